"""The SFT step: next-token cross-entropy on the response tokens alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mht.algorithms.base import Learner, Trainee
from mht.algorithms.batch import Batch, Examples, Outcome
from mht.core.errors import DataError, UserError
from mht.data.examples.order import by_length
from mht.devices.base import Devices
from mht.losses import IGNORED
from mht.models.logprobs import token_scores

Tensors = Mapping[str, Tensor]


class NothingToLearn(DataError, ValueError):
    """A batch without labels, such as one of prompts alone."""


@dataclass(frozen=True)
class Part:
    """The result of one microbatch.

    Attributes:
        loss: its part of the batch's loss.
        rows: (b,) int64, its rows of the batch.
        each: (b,) the loss of each of them, nats per label; NaN without a label.
    """

    loss: float
    rows: Tensor
    each: Tensor


class SFT(Learner):
    """Makes SFT steps."""

    def __init__(self, trainee: Trainee):
        self.trainee = trainee

    @property
    def lr(self) -> float:
        """The rate of the next step: the schedule's share of ``sft_lr``, or of PPO's rate."""
        updater, own = self.trainee.updater, self.trainee.config.sft_lr
        if own is None or not updater.peak_lr:
            return updater.lr
        return updater.lr / updater.peak_lr * own

    def step(self, batch: Batch) -> Outcome:
        """Learn from one batch of examples.

        With several processes each is given the whole batch and learns from its rows.
        """
        updater, given = self.trainee.updater, batch.examples
        assert given is not None  # as needed
        lr_scale = self.lr / updater.lr if updater.lr else 1.0
        update = updater.step_in_parts(self._losses(given), lr_scale)
        loss = updater.devices.sums({"loss": sum(part.loss for part in update.reports)})["loss"]
        # the schedule has moved on: the curve shows the rate of the next step
        stats = {"loss": loss, "optim/lr": self.lr, **update.scale_figures}
        return Outcome(stats, losses=self._of_all(update.reports, len(given)))

    def _losses(self, given: Examples) -> Iterator[tuple[Tensor, Part]]:
        """The batch's loss, microbatch by microbatch, with the result of each."""
        config, devices = self.trainee.config, self.trainee.updater.devices
        for tensors, share, rows in microbatches(given.tensors, config.microbatch_size, devices):
            logprobs, learnt = label_logprobs(self.trainee.policy.model, tensors)
            weights = None if given.weights is None else given.weights[rows]
            loss = -(logprobs if weights is None else logprobs * by_token(weights, learnt)).mean()
            loss = loss * share
            yield loss, Part(loss.item(), rows, row_losses(logprobs, learnt))

    def _of_all(self, parts: Sequence[Part], count: int) -> list[float]:
        """Every process's row losses, in the batch's order."""
        devices = self.trainee.updater.devices
        mine = range(count)[devices.rows(count)]
        own = {
            row: loss
            for part in parts
            for row, loss in zip(part.rows.tolist(), part.each.tolist(), strict=True)
        }
        known = {str(i): own.get(i, math.nan) if i in mine else 0.0 for i in range(count)}
        return list(devices.sums(known).values())


def microbatches(
    batch: Tensors, size: int | None, devices: Devices | None = None
) -> Iterator[tuple[Tensors, float, Tensor]]:
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


def batch_loss(model: nn.Module, batch: Tensors) -> Tensor:
    """The loss of one batch: mean nats per labelled token, a scalar; see `label_logprobs`."""
    return -label_logprobs(model, batch)[0].mean()


def label_logprobs(model: nn.Module, batch: Tensors) -> tuple[Tensor, Tensor]:
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


def by_token(weights: Tensor, learnt: Tensor) -> Tensor:
    """(N,) the rows' weights (B,), for each of the N tokens of `label_logprobs`."""
    return weights.to(learnt.device)[learnt.nonzero()[:, 0]]


@torch.no_grad()
def row_losses(logprobs: Tensor, learnt: Tensor) -> Tensor:
    """(B,) mean nats per label of each row, NaN where it has none; of `label_logprobs`."""
    count = learnt.sum(1)
    total = logprobs.new_zeros(len(learnt)).index_add(0, learnt.nonzero()[:, 0], -logprobs)
    return total / count
