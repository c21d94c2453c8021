"""Supervised fine-tuning, as a phase."""

from __future__ import annotations

from typing import ClassVar

from mht.algorithms.base import EXAMPLES, Algorithm, Learner, Trainee, algorithm


@algorithm("sft")
class SupervisedFineTuning(Algorithm):
    """Next-token cross-entropy on the targets; its settings are those of the cycles."""

    type: str = "sft"
    needs: ClassVar[frozenset[str]] = frozenset({EXAMPLES})

    def learner(self, trainee: Trainee) -> Learner:
        """See `Algorithm.learner`."""
        from mht.algorithms.sft import SFT

        return SFT(trainee)
