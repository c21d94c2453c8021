"""The SFT step: next-token cross-entropy on the response tokens alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from mht.losses import IGNORED, sft_loss
from mht.models.policy import position_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def batch_loss(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """The loss of one batch; logits are computed from the first labelled position on.

    Args:
        model: a causal LM.
        batch: (B, T) tensors ``input_ids``, ``attention_mask`` (1 = a real token) and ``labels``
            (-100 = not trained on); padding may be on either side.

    Returns:
        Scalar, mean nats per labelled token.

    Raises:
        ValueError: no label is to be learnt.
    """
    ids, mask, labels = (
        batch[key].to(model.device) for key in ("input_ids", "attention_mask", "labels")
    )
    learnt = (labels[:, 1:] != IGNORED).any(0)
    if not learnt.any():
        raise ValueError("the batch has no label to learn: every one is -100 or stands first")
    first = int(learnt.int().argmax())  # the logits here predict the first label
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position_ids(mask.bool()),
        use_cache=False,
        logits_to_keep=ids.shape[1] - first,
    ).logits
    return sft_loss(logits, labels[:, first:])
