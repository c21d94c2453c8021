"""Plain data as MLflow's flat names: parameters, metrics and tags."""

from __future__ import annotations

import functools
import json
import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MAX_NAME = 250
INTERVAL = {"mean", "low", "high"}


@functools.cache
def clean(name: str) -> str:
    """The name with what MLflow refuses replaced: ``evaluate@base/kl`` is ``evaluate.base/kl``."""
    allowed = re.sub(r"[^\w\-. :/]", ".", name)
    return posixpath.normpath(allowed).lstrip("/.")[:MAX_NAME] or "_"


def flat_params(data: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings by dotted path, values as JSON; text stays as it is.

    >>> flat_params({"ppo": {"lr": 1e-4, "kl_control": {"type": "fixed"}}})
    {'ppo.lr': '0.0001', 'ppo.kl_control.type': 'fixed'}
    """
    leaves = _leaves(data, "", ".")
    return {clean(k): v if isinstance(v, str) else json.dumps(v) for k, v in leaves}


def flat_metrics(data: Any, prefix: str = "") -> dict[str, float]:
    """The numbers of a nested mapping by path, in metric names' form; the rest is left out.

    Of an interval only the mean is kept, under the name of the interval.

    >>> flat_metrics({"hybrid": {"kl_nats": {"mean": 0.5, "low": 0.4, "high": 0.6}}}, "benchmark")
    {'benchmark/hybrid/kl_nats': 0.5}
    """
    return dict(finite({k: v for k, v in _leaves(data, prefix, "/") if _is_number(v)}))


def finite(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Clean names and values; infinity and NaN are skipped, as the store would change them."""
    for name, value in metrics.items():
        number = float(value)
        if math.isfinite(number):
            yield clean(name), number


def chosen(params: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """Those flat parameters that a stage's ``params`` keys stand for, sections included."""
    keys = tuple(keys)
    return {p: v for p, v in params.items() if any(p == k or p.startswith(f"{k}.") for k in keys)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _leaves(data: Any, path: str, joint: str) -> Iterator[tuple[str, Any]]:
    if joint == "/" and isinstance(data, Mapping) and data.keys() == INTERVAL:
        yield path, data["mean"]
        return
    if isinstance(data, Mapping) and data:
        pairs: Iterable[tuple[Any, Any]] = data.items()
    elif isinstance(data, list | tuple) and any(isinstance(x, Mapping) for x in data):
        pairs = enumerate(data)
    else:
        yield path, data
        return
    for key, value in pairs:
        yield from _leaves(value, f"{path}{joint}{key}" if path else str(key), joint)
