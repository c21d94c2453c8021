"""The same phases in every cycle."""

from __future__ import annotations

from mht.algorithms.mixes.base import Mix, mix


@mix("alternation")
class Alternation(Mix):
    """Every cycle has the phases that the settings give."""

    type: str = "alternation"
