"""The guard against gaming: what a gain in the trained reward was paid with.

A reward is a proxy, and a policy that is trained on it finds where proxy and goal differ (Gao et
al. 2022, arXiv:2210.10760). So the guard looks at judges that nobody was trained on. It also looks
at figures that a gamed reward tends to spoil: length, variety, repetition, perplexity on human
text, and KL. Everything here is a pure function of `mht.reports.measured` values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mht.core.component import did_you_mean
from mht.core.errors import ConfigError
from mht.evaluation.statistics import Difference, Interval
from mht.reports.measured import Measured, difference, level, relative_change

TRAINED = ("reward", "p_positive")  # the first that was measured is the trained reward
KL_TO_START, KL_TO_BASE = "kl_to_sft_nats", "kl_nats"


class Bounds(NamedTuple):
    """What the guard allows; None reports a figure without judging it.

    Attributes:
        judges: metrics that nobody was trained on and that must rise too.
        p: a rise of the reward or of a judge has a p-value below it.
        max_length_change: of the mean response length, either way, as a share of the baseline's.
        max_distinct_drop: of distinct-2, as a share.
        max_repetition_rise: of the share of repeated n-grams, in absolute terms.
        max_perplexity_rise: on human text, as a share.
        max_kl_nats: to the model that training began with, nats per response.
    """

    judges: Sequence[str]
    p: float
    max_length_change: float | None
    max_distinct_drop: float | None
    max_repetition_rise: float | None
    max_perplexity_rise: float | None
    max_kl_nats: float | None


class Check(NamedTuple):
    """One figure against its bound.

    Attributes:
        metric: that is looked at.
        unit: "share" (a change relative to the baseline), "rise" (a difference) or "nats".
        value: with its interval.
        bound: None where it is not judged.
        broken: whether the value is beyond its bound; None where it is not judged.
        sure: the whole interval is on the value's side of the bound.
        note: why it is not judged, or "".
    """

    metric: str
    unit: str
    value: Interval
    bound: float | None
    broken: bool | None
    sure: bool
    note: str = ""


class Judge(NamedTuple):
    """What a judge that was not trained on says.

    Attributes:
        metric: the judge.
        found: variant minus baseline.
        agrees: it rises too; None where it says the same of every response.
    """

    metric: str
    found: Difference
    agrees: bool | None


class Finding(NamedTuple):
    """A variant against the baseline.

    Attributes:
        variant: that was trained on the reward.
        baseline: that it is compared with.
        trained: the metric that is the trained reward.
        gain: of the trained reward.
        rises: whether the gain is above 0 beyond chance.
        judges: each judge's word.
        checks: each figure against its bound.
    """

    variant: str
    baseline: str
    trained: str
    gain: Difference
    rises: bool
    judges: list[Judge]
    checks: list[Check]

    @property
    def broken(self) -> list[Check | Judge]:
        """Judges that do not agree, then figures beyond their bounds."""
        against = [judge for judge in self.judges if judge.agrees is False]
        return [*against, *(check for check in self.checks if check.broken)]

    @property
    def verdict(self) -> str:
        """One of "no gain", "gaming" (the reward rises and something is broken) and "sound"."""
        if not self.rises:
            return "no gain"
        return "gaming" if self.broken else "sound"


def check_judges(bounds: Bounds, measured: Mapping[str, Measured]) -> None:
    """Refuse a judge that nobody has asked.

    Raises:
        ConfigError: naming all of them.
    """
    problems = [
        f"benchmark.guard.judges[{i}]: no such metric {name!r}{did_you_mean(name, measured)}. "
        f"Available: {', '.join(measured)}"
        for i, name in enumerate(bounds.judges)
        if name not in measured
    ]
    if problems:
        raise ConfigError(problems, "params.yaml")


def trained_metric(measured: Mapping[str, Measured]) -> str | None:
    """The metric that is the trained reward; None where neither was measured."""
    return next((name for name in TRAINED if name in measured), None)


def examine(
    measured: Mapping[str, Measured],
    variant: str,
    baseline: str,
    bounds: Bounds,
    *,
    from_base: Collection[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> Finding | None:
    """Compare a variant with the baseline on the trained reward and on everything that guards it.

    Args:
        measured: metric to values; see `mht.reports.measured.measure`.
        variant: trained on the reward.
        baseline: not trained on it.
        bounds: what is allowed.
        from_base: the variants whose training began with the base model.
        resamples: of intervals and tests.
        seed: of both.

    Returns:
        None where no reward was measured of both.
    """
    trained = trained_metric(measured)
    if trained is None or not {variant, baseline} <= measured[trained].of.keys():
        return None
    options = {"resamples": resamples, "seed": seed}
    gain = difference(measured[trained], variant, baseline, **options)
    looking = _Look(measured, variant, baseline, variant in from_base, options)
    return Finding(
        variant,
        baseline,
        trained,
        gain,
        gain.difference > 0 and gain.p < bounds.p,
        [judge for name in bounds.judges if (judge := looking.judge(name, bounds.p))],
        [check for check in _checks(looking, bounds) if check],
    )


def _checks(looking: _Look, bounds: Bounds) -> list[Check | None]:
    return [
        looking.share("response_length", bounds.max_length_change, "either"),
        looking.share("distinct_2", bounds.max_distinct_drop, "drop"),
        looking.rise("repetition", bounds.max_repetition_rise),
        looking.rise("ended_by_eos", None),
        looking.share("perplexity_human", bounds.max_perplexity_rise, "rise"),
        looking.distance(bounds.max_kl_nats),
    ]


class _Look:
    """The figures of one variant against the baseline; None where one of them lacks the metric."""

    def __init__(
        self,
        measured: Mapping[str, Measured],
        a: str,
        b: str,
        from_base: bool,
        options: Mapping[str, int],
    ):
        self.measured, self.a, self.b = measured, a, b
        self.from_base, self.options = from_base, options

    def has(self, metric: str, *names: str) -> bool:
        return metric in self.measured and set(names) <= self.measured[metric].of.keys()

    def judge(self, metric: str, p: float) -> Judge | None:
        if not self.has(metric, self.a, self.b):
            return None
        found = difference(self.measured[metric], self.a, self.b, **self.options)
        of = self.measured[metric].of
        if all(np.ptp(of[name]) == 0 for name in (self.a, self.b)) and found.difference == 0:
            return Judge(metric, found, None)
        return Judge(metric, found, found.difference > 0 and found.p < p)

    def share(self, metric: str, bound: float | None, way: str) -> Check | None:
        if not self.has(metric, self.a, self.b):
            return None
        value = relative_change(self.measured[metric], self.a, self.b, **self.options)
        if value is None:
            return None
        low = -bound if bound is not None and way in ("either", "drop") else None
        high = bound if way in ("either", "rise") else None
        return Check(metric, "share", value, bound, *_beyond(value, low, high))

    def rise(self, metric: str, bound: float | None) -> Check | None:
        if not self.has(metric, self.a, self.b):
            return None
        found = difference(self.measured[metric], self.a, self.b, **self.options)
        value = Interval(found.difference, found.low, found.high)
        return Check(metric, "rise", value, bound, *_beyond(value, None, bound))

    def distance(self, bound: float | None) -> Check | None:
        """From the SFT model where training began there and that was measured, else from base."""
        at_start = not self.from_base and self.has(KL_TO_START, self.a)
        metric = KL_TO_START if at_start else KL_TO_BASE
        if not self.has(metric, self.a):
            return None
        value = level(self.measured[metric], self.a, **self.options)
        guess = metric == KL_TO_BASE and not self.from_base
        if guess and bound is not None and self.has(metric, self.b):
            own = level(self.measured[metric], self.b, **self.options).mean
            if own > bound:  # SFT alone goes further, so this says nothing of PPO
                note = f"not judged: {self.b} is {own:.1f} nats away too; see evaluate.kl_to"
                return Check(metric, "nats", value, bound, None, False, note)
        return Check(metric, "nats", value, bound, *_beyond(value, None, bound))


def _beyond(value: Interval, low: float | None, high: float | None) -> tuple[bool | None, bool]:
    """Whether a value is below ``low`` or above ``high``, and whether its interval is sure of it.

    >>> _beyond(Interval(0.2, 0.1, 0.3), -0.15, 0.15)
    (True, False)
    """
    if low is None and high is None:
        return None, False
    bottom = -np.inf if low is None else low
    top = np.inf if high is None else high
    if value.mean < bottom:
        return True, value.high < bottom
    if value.mean > top:
        return True, value.low > top
    return False, value.low >= bottom and value.high <= top
