"""What happens around a reward's own arithmetic: texts once, failures, checks, a common range."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mht.core.component import refuse
from mht.core.errors import (
    ConfigError,
    DataError,
    MissingPackage,
    ModelError,
    RewardError,
    UserError,
)
from mht.data.text.sample import Sample
from mht.rewards.node import Node

Score = Callable[[list[Sample]], list[float]]
SETTINGS = (
    ConfigError,
    DataError,
    MissingPackage,
    ModelError,
)  # wrong for every text: they always stop


class Scorer:
    """Runs one node of a reward tree over a batch.

    Args:
        reward: the node.
        label: its path and type, for the errors.
    """

    def __init__(self, reward: Node, label: str):
        self.reward, self.label = reward, label
        self._error: Exception | None = None

    def scores(self, samples: list[Sample], score: Score) -> tuple[list[float], list[float]]:
        """One checked number per sample, and 1.0 for each that failed and got ``on_error``.

        Raises:
            RewardError: not finite, or too few or many, and ``on_error`` is "stop".
        """
        places = self._places(samples)
        unique = [samples[i] for i in dict.fromkeys(places)]
        numbers, failed = self._forgiving(unique, score)
        at = {place: k for k, place in enumerate(dict.fromkeys(places))}
        failures = [failed[at[p]] for p in places]
        self._warn(sum(map(bool, failures)), len(samples))
        return [numbers[at[p]] for p in places], failures

    def _warn(self, failures: int, count: int) -> None:
        if failures:
            what = f"{failures} of {count} responses got {self.reward.on_error} (on_error)"
            why = " ".join(str(self._error).split()) or type(self._error).__name__
            said = why if self.label in why else f"{self.label}: {why}"
            warnings.warn(f"{what}, since scoring failed: {said:.200}", stacklevel=4)

    def _places(self, samples: list[Sample]) -> list[int]:
        """For each sample the first one that reads the same."""
        keys = [self.reward.reads(sample) for sample in samples]
        if None in keys:
            return list(range(len(samples)))
        first: dict[Any, int] = {}
        return [first.setdefault(key, i) for i, key in enumerate(keys)]

    def _forgiving(self, samples: list[Sample], score: Score) -> tuple[list[float], list[float]]:
        instead = self.reward.on_error
        if isinstance(instead, str):
            return self._strict(samples, score), [0.0] * len(samples)
        try:
            return self._strict(samples, score), [0.0] * len(samples)
        except SETTINGS:
            raise
        except Exception as error:  # counted and said; whose it was, each one alone will tell
            self._error = error
            if len(samples) == 1 or self.reward.reads(samples[0]) is None:
                return [float(instead)] * len(samples), [1.0] * len(samples)
        each = [self._forgiving([sample], score) for sample in samples]
        return [n for (n,), _ in each], [f for _, (f,) in each]

    def _strict(self, samples: list[Sample], score: Score) -> list[float]:
        return checked(score(samples), samples, self.label)


@contextmanager
def named(label: str) -> Iterator[None]:
    """Within it, errors get the name of the component that they come from."""
    try:
        yield
    except UserError as error:
        error.args = (f"{label}: {error}",)
        raise
    except Exception as error:
        error.add_note(f"in the reward component {label}")
        raise


def checked(values: Any, samples: Sequence[Sample], label: str) -> list[float]:
    """The values as floats.

    Raises:
        RewardError: not finite, not numbers, or not one per sample.
    """
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise RewardError(f"{label}: gave {values!r:.80}, not a list of numbers") from None
    if len(numbers) != len(samples):
        raise RewardError(f"{label}: gave {len(numbers)} scores for {len(samples)} samples")
    for sample, number in zip(samples, numbers, strict=True):
        if not math.isfinite(number):
            raise RewardError(f"{label}: gave {number} for the response {sample.response!r:.80}")
    return numbers


def made_comparable(reward: Node) -> bool:
    """Whether ``scale`` and ``invert`` change anything."""
    return reward.invert or (reward.scale and reward.bounds() != (0.0, 1.0))


def comparable(
    reward: Node, values: list[float], failed: Sequence[float] | None = None
) -> list[float]:
    """The values after the reward's ``scale`` and ``invert``; what ``on_error`` gave stays."""
    given, (low, high) = values, reward.bounds()
    if reward.scale:
        values, (low, high) = [unit(v, low, high) for v in values], (0.0, 1.0)
    if reward.invert:
        values = [mirror(v, low, high) for v in values]
    kept = failed or [0.0] * len(values)
    return [g if f else v for g, v, f in zip(given, values, kept, strict=True)]


def comparable_bounds(reward: Node) -> tuple[float, float]:
    """The range of `comparable`."""
    low, high = reward.bounds()
    if reward.scale:
        low, high = 0.0, 1.0
    if reward.invert and not (math.isfinite(low) and math.isfinite(high)):
        low, high = -high, -low
    if not isinstance(reward.on_error, str):
        low, high = min(low, reward.on_error), max(high, reward.on_error)
    return low, high


def refuse_low(rewards: Mapping[str, Node]) -> None:
    """Refuse rewards whose low scores are the good ones, where more has to mean better.

    Args:
        rewards: by the key of the section that holds them.

    Raises:
        PydanticCustomError: one of them is neither inverted nor changed by a postprocess.
    """
    what = "a low score is the good one of this reward: set it to true"
    refuse(
        (f"{key}.invert", what)
        for key, part in rewards.items()
        if part.direction() == "low" and not part.invert and not part.postprocess
    )


def unit(value: float, low: float, high: float) -> float:
    """The value's place in [low, high], in [0, 1]; ends that are not finite are approached.

    >>> unit(3.0, 1.0, 5.0), unit(3.0, 0.0, math.inf), unit(0.0, -math.inf, math.inf)
    (0.5, 0.75, 0.5)
    """
    if low == high:
        return 0.0
    if math.isfinite(low) and math.isfinite(high):
        return min(max((value - low) / (high - low), 0.0), 1.0)
    if math.isfinite(low):
        beyond = max(value - low, 0.0)
        return beyond / (1 + beyond)
    if math.isfinite(high):
        return 1 / (1 + max(high - value, 0.0))
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))


def mirror(value: float, low: float, high: float) -> float:
    """The value turned round in its range, or around 0 where an end is not finite.

    >>> mirror(0.9, 0.0, 1.0) == 1.0 - 0.9, mirror(3.0, 0.0, math.inf)
    (True, -3.0)
    """
    finite = math.isfinite(low) and math.isfinite(high)
    return low + high - value if finite else -value
