"""Where texts lie among each other by a model's own word vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mht.models.readers import policy_model


@torch.no_grad()
def mean_embeddings(model: nn.Module, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """(N, D) mean of the input embeddings of each text's tokens; 0 for a text without tokens.

    Args:
        model: a language model; see `policy_model`.
        texts: N token lists.
    """
    weight = policy_model(model).embeddings
    found = np.zeros((len(texts), weight.shape[1]), np.float32)
    for row, ids in enumerate(texts):
        if len(ids):
            found[row] = weight[list(ids)].float().mean(dim=0).cpu().numpy()
    return found
