"""The SFT step: next-token cross-entropy on the response tokens alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mht.core.errors import DataError, UserError
from mht.data.examples.order import by_length
from mht.devices.base import Devices
from mht.losses import IGNORED
from mht.models.head import token_scores
from mht.optim.optimizers import Updater

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mht.config import HybridConfig

Batch = Mapping[str, Tensor]


class NothingToLearn(DataError, ValueError):
    """A batch without labels, such as one of prompts alone."""


class SFT:
    """SFT on a model.

    Args:
        model: what trains.
        updater: the optimiser shared with the PPO phase.
        config: its rate and its microbatches.
    """

    def __init__(self, model: PreTrainedModel, updater: Updater, config: HybridConfig):
        self.model, self.updater, self.config = model, updater, config
        self.devices = updater.devices

    @property
    def lr(self) -> float:
        """The rate of the next step: the schedule's share of ``sft_lr``, or of PPO's rate."""
        if self.config.sft_lr is None or not self.updater.peak_lr:
            return self.updater.lr
        return self.updater.lr / self.updater.peak_lr * self.config.sft_lr

    def step(self, batch: Batch, each: list[float] | None = None) -> float:
        """Learn from one batch; the loss before the step, nats per labelled token.

        With several processes each is given the whole batch and learns from its rows.

        Args:
            batch: as `batch_loss` takes it.
            each: gets the loss of each row, NaN where it has no label; None asks for none.
        """
        losses: list[float] = []
        own: dict[int, float] = {}
        self.updater.step(
            self._losses(batch, losses, None if each is None else own),
            self.lr / self.updater.lr if self.updater.lr else 1.0,
        )
        if each is not None:
            each += self._of_all(own, len(batch["labels"]))
        return self.devices.sums({"loss": sum(losses)})["loss"]

    def _losses(
        self, batch: Batch, losses: list[float], each: dict[int, float] | None
    ) -> Iterator[Tensor]:
        """The batch's loss, microbatch by microbatch.

        The figures go to ``losses``, and each row's loss to ``each`` if that is wanted.
        """
        size = self.config.microbatch_size
        for part, share, rows in microbatches(batch, size, self.devices):
            logprobs, learnt = label_logprobs(self.model, part)
            loss = -logprobs.mean() * share
            losses.append(loss.item())
            if each is not None:
                each |= zip(rows.tolist(), row_losses(logprobs, learnt).tolist(), strict=True)
            yield loss

    def _of_all(self, own: Mapping[int, float], count: int) -> list[float]:
        """Every process's row losses, in the batch's order."""
        mine = range(count)[self.devices.rows(count)]
        known = {str(i): own.get(i, math.nan) if i in mine else 0.0 for i in range(count)}
        return list(self.devices.sums(known).values())


def microbatches(
    batch: Batch, size: int | None, devices: Devices | None = None
) -> Iterator[tuple[Batch, float, Tensor]]:
    """A batch in parts of at most ``size`` rows, each with its share of the labelled tokens.

    Each comes with the numbers of its rows (int64), too.

    The sum of the parts' losses, each times its share, is the batch's loss; with several processes
    the sum over all of them. Rows of like length go together, so there is less padding to compute.
    Parts with nothing to learn are left out.
    """
    mask = batch["attention_mask"].bool()
    own = torch.arange(len(mask), device=mask.device)[
        devices.rows(len(mask)) if devices else slice(None)
    ]
    if len(own) == len(mask) and (size is None or size >= len(mask)):
        yield batch, 1.0, own
        return
    learnt = ((batch["labels"][:, 1:] != IGNORED) & mask[:, :-1]).sum(1)
    for index in by_length(mask[own].sum(1), size or len(own)):
        rows = own[index]
        share = float(learnt[rows].sum() / learnt.sum())
        if not share and devices and devices.shards:
            raise UserError(
                "every microbatch of an SFT batch needs a label to learn under FSDP and DeepSpeed"
            )
        if share:
            columns = mask[rows].any(0)
            yield {key: value[rows][:, columns] for key, value in batch.items()}, share, rows


def batch_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The loss of one batch: mean nats per labelled token, a scalar; see `label_logprobs`."""
    return -label_logprobs(model, batch)[0].mean()


def label_logprobs(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """The logprobs of a batch's labels; logits are computed for the labelled tokens only.

    Args:
        model: a causal LM.
        batch: (B, T) tensors ``input_ids``, ``attention_mask`` (1 = a real token) and ``labels``
            (-100 = not trained on); padding may be on either side.

    Returns:
        (N,) nats, row by row, and the mask (B, T - 1) of the N tokens learnt, True = learnt.

    Raises:
        NothingToLearn: every label is -100 or stands first.
    """
    ids, mask, labels = (
        batch[key].to(model.device) for key in ("input_ids", "attention_mask", "labels")
    )
    # a token whose predecessor is padding has nothing to be predicted from
    learnt = (labels[:, 1:] != IGNORED) & mask[:, :-1].bool()
    if not learnt.any():
        raise NothingToLearn("the batch has no label to learn: every one is -100 or stands first")
    first = int(learnt.any(0).int().argmax())  # the logits here predict the first label
    logprobs, _, _ = token_scores(
        model, learnt[:, first:], labels[:, 1:][learnt], ids[:, :-1], mask[:, :-1].bool()
    )
    return logprobs, learnt


@torch.no_grad()
def row_losses(logprobs: Tensor, learnt: Tensor) -> Tensor:
    """(B,) mean nats per label of each row, NaN where it has none; of `label_logprobs`."""
    count = learnt.sum(1)
    total = logprobs.new_zeros(len(learnt)).index_add(0, learnt.nonzero()[:, 0], -logprobs)
    return total / count
