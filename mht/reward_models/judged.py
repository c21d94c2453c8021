"""The judgements that train and test a reward model: classes of texts, or pairs of answers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mht.config import RewardModelConfig
from mht.core.errors import DataError
from mht.data.text.sample import Sample
from mht.data.text.truncation import Text, fitted

NAMES = ("negative", "positive")
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Rated:
    """Texts with their labels.

    Attributes:
        texts: N texts.
        labels: N places in ``names``.
        names: of the classes.
    """

    texts: list[str]
    labels: list[int]
    names: tuple[str, ...] = NAMES

    def lengths(self) -> list[int]:
        """Characters of each text."""
        return [len(text) for text in self.texts]

    def batch(self, index: Sequence[int]) -> list[Text]:
        """Some of the texts."""
        return [self.texts[i] for i in index]

    def loss(self, logits: Tensor, index: Sequence[int]) -> Tensor:
        """Cross-entropy of the logits (B, classes) of a batch, in nats."""
        labels = torch.tensor([self.labels[i] for i in index])
        return functional.cross_entropy(logits, labels.to(logits.device))


@dataclass(frozen=True)
class Compared:
    """Pairs of answers in which people preferred the first.

    Attributes:
        chosen: N texts that were preferred.
        rejected: N texts that were not.
        margin: see `preference_loss`.
        centering: see `preference_loss`.
        names: of the one output.
    """

    chosen: list[Text]
    rejected: list[Text]
    margin: float = 0.0
    centering: float = 0.0
    names: tuple[str, ...] = ("score",)

    def lengths(self) -> list[int]:
        """Characters of the longer text of each pair."""
        pairs = zip(self.chosen, self.rejected, strict=True)
        return [max(_length(a), _length(b)) for a, b in pairs]

    def batch(self, index: Sequence[int]) -> list[Text]:
        """The chosen texts of some pairs, then the rejected ones."""
        return [self.chosen[i] for i in index] + [self.rejected[i] for i in index]

    def loss(self, logits: Tensor, index: Sequence[int]) -> Tensor:
        """`preference_loss` of the logits (2B, 1) of a batch."""
        chosen, rejected = logits[:, 0].float().chunk(2)
        return preference_loss(chosen, rejected, margin=self.margin, centering=self.centering)


def preference_loss(
    chosen: Tensor, rejected: Tensor, *, margin: float = 0.0, centering: float = 0.0
) -> Tensor:
    """``-log sigmoid(r_c - r_r - margin) + centering * (r_c + r_r)^2``, the mean over the pairs.

    The model of Bradley and Terry, as in Christiano et al. 2017 (arXiv:1706.03741) and Stiennon et
    al. 2020 (arXiv:2009.01325). A margin requires a distance between the two scores (Llama 2,
    arXiv:2307.09288, where each pair has its own; here all pairs share one). The model learns only
    differences, so any constant may be added to its scores. The last term draws their mean to 0
    (arXiv:2312.09244, eq. 2).

    Args:
        chosen: (B,) scores.
        rejected: (B,) scores.
        margin: in the scores' unit.
        centering: weight of the last term.

    >>> float(preference_loss(torch.tensor([1.0]), torch.tensor([1.0])))  # log 2
    0.6931471824645996
    """
    loss = -functional.logsigmoid(chosen - rejected - margin)
    return (loss + centering * (chosen + rejected) ** 2).mean()


def _length(text: Text) -> int:
    return len(text) if isinstance(text, str) else sum(map(len, text))


def split_rated(
    texts: Sequence[str], ratings: Sequence[float], *, neutral: float, holdout: float, seed: int
) -> tuple[Rated, Rated]:
    """Training and held-out texts without those rated close to 0.

    Raises:
        DataError: too few texts are left, or all have one label.
    """
    clear = [(t, int(r > 0)) for t, r in zip(texts, ratings, strict=True) if abs(r) > neutral]
    parts = _split(clear, holdout, seed)
    for name, part in zip(("training", "held-out"), parts, strict=True):
        if len({label for _, label in part}) < 2:
            raise DataError(
                f"data.labels: {len(part)} of {len(texts)} rated texts are {name} texts, and they "
                "lack ratings above or below 0: give more rated texts, or lower "
                "reward_model.neutral"
            )
    train, held = (Rated([t for t, _ in p], [y for _, y in p]) for p in parts)
    return train, held


def split_labelled(rows: Rows, *, holdout: float, seed: int) -> tuple[Rated, Rated]:
    """Training and held-out texts of classes, which are in alphabetical order.

    Raises:
        DataError: there is only one class, or a class has no training text.
    """
    names = tuple(sorted({row["label"] for row in rows}))
    if len(names) < 2:
        raise DataError(f"data.labels: a classifier needs two labels, got {list(names)}")
    pairs = [(row["text"], names.index(row["label"])) for row in rows]
    train, held = _split(pairs, holdout, seed)
    missing = [name for i, name in enumerate(names) if i not in {y for _, y in train}]
    if missing or not held:
        what = f"label {missing[0]!r} has no training text" if missing else "no text is held out"
        raise DataError(f"data.labels: of {len(rows)} labelled texts, {what}: give more of them")
    first, second = (Rated([t for t, _ in p], [y for _, y in p], names) for p in (train, held))
    return first, second


def split_compared(
    rows: Rows, config: RewardModelConfig, tokenizer: Any, *, seed: int
) -> tuple[Compared, Compared]:
    """Training and held-out pairs; pairs that begin with the same question stay together.

    Args:
        rows: ``prompt``, ``chosen``, ``rejected`` and ``turns``.
        config: the part of a pair that is read, the holdout, margin and centering.
        tokenizer: its chat template renders conversations.
        seed: of the split.

    Raises:
        DataError: too few pairs.
        ModelError: ``text`` is "chat", and the tokenizer has no template.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for number, row in enumerate(rows):
        turns = json.loads(row["turns"])
        opening = turns[0]["content"] if turns else row["prompt"]
        groups.setdefault(opening or str(number), []).append(row)
    parts = _split(list(groups.values()), config.holdout, seed)
    if not all(parts):
        raise DataError(
            f"data.labels: {len(rows)} pairs with {len(groups)} different questions are too few to "
            "hold some out: give more, or set reward_model.holdout nearer to 0.5"
        )
    train, held = (_compared([r for g in part for r in g], config, tokenizer) for part in parts)
    return train, held


def _split(items: Sequence[Any], holdout: float, seed: int) -> list[list[Any]]:
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed)).tolist()
    cut = round(len(items) * holdout)
    return [[items[i] for i in order[cut:]], [items[i] for i in order[:cut]]]


def _compared(rows: Rows, config: RewardModelConfig, tokenizer: Any) -> Compared:
    def read(answer: str) -> list[Text]:
        turns = [{"turns": json.loads(row["turns"])} for row in rows]
        samples = [Sample(r["prompt"], r[answer], item=t) for r, t in zip(rows, turns, strict=True)]
        found = fitted(samples, config.text, tokenizer, config.max_tokens)
        if found.note:
            warnings.warn(f"reward_model.max_tokens: {found.note}", stacklevel=2)
        return found.texts

    return Compared(read("chosen"), read("rejected"), config.margin, config.centering)
