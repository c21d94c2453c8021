"""The SFT step: next-token cross-entropy on the response tokens alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from mht.losses import IGNORED
from mht.models.head import token_scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Batch = Mapping[str, Tensor]


def microbatches(batch: Mapping[str, Tensor], size: int | None) -> Iterator[tuple[Batch, float]]:
    """A batch in parts of at most ``size`` rows, each with its share of the labelled tokens.

    The sum of the parts' losses, each times its share, is the batch's loss. Rows of like length go
    together, so there is less padding to compute. Parts with nothing to learn are left out.
    """
    rows = len(batch["labels"])
    if size is None or size >= rows:
        yield batch, 1.0
        return
    mask = batch["attention_mask"].bool()
    learnt = ((batch["labels"][:, 1:] != IGNORED) & mask[:, :-1]).sum(1)
    for index in mask.sum(1).argsort(descending=True, stable=True).split(size):
        share = float(learnt[index].sum() / learnt.sum())
        if share:
            columns = mask[index].any(0)
            yield {key: value[index][:, columns] for key, value in batch.items()}, share


def batch_loss(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """The loss of one batch; logits are computed for the labelled tokens only.

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
    # a token whose predecessor is padding has nothing to be predicted from
    learnt = (labels[:, 1:] != IGNORED) & mask[:, :-1].bool()
    if not learnt.any():
        raise ValueError("the batch has no label to learn: every one is -100 or stands first")
    first = int(learnt.any(0).int().argmax())  # the logits here predict the first label
    logprobs, _, _ = token_scores(
        model, learnt[:, first:], labels[:, 1:][learnt], ids[:, :-1], mask[:, :-1].bool()
    )
    return -logprobs.mean()
