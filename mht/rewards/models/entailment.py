"""Natural language inference in batches: what truth_nli and the evidence rewards share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from mht.core.errors import ModelError
from mht.data.text.special import broken_up
from mht.rewards.models.sequence_classifier import Classifier, classifier

Aggregation = Literal["p_e_minus_p_c", "p_e", "p_e_plus_half_neutral"]


class Shares(NamedTuple):
    """Three probabilities that add up to 1.

    Attributes:
        entailed: the premise says so.
        neutral: the premise says nothing about it.
        contradicted: the premise says otherwise.
    """

    entailed: float
    neutral: float
    contradicted: float

    def value(self, aggregation: Aggregation) -> float:
        """One number in [0, 1].

        >>> Shares(0.5, 0.25, 0.25).value("p_e_minus_p_c")
        0.625
        """
        if aggregation == "p_e":
            return self.entailed
        if aggregation == "p_e_plus_half_neutral":
            return self.entailed + self.neutral / 2
        return (self.entailed - self.contradicted + 1) / 2


class Entailment:
    """A three-way NLI classifier, its outputs found by their names.

    Args:
        name: folder or hub name.
        device: "auto" or a torch device.
        batch_size: pairs per forward pass.
        max_tokens: longer pairs are cut, the longer of the two texts first; None is the model's
            own limit.

    Raises:
        ModelError: it can't be had, or has other labels.
    """

    def __init__(self, name: str, device: str, batch_size: int, max_tokens: int | None = None):
        self.model = classifier(name, device)
        self.model.refuse_regression()
        self.places = _places(self.model, name)
        self.batch_size, self.max_tokens = batch_size, max_tokens

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[Shares]:
        """The shares of each (premise, hypothesis), in their order; each pair is run once."""
        pairs = [broken_up(pair, self.model.tokenizer) for pair in pairs]
        rows = self.model.logits(pairs, self.batch_size, self.max_tokens).softmax(-1).tolist()
        return [Shares(*(row[place] for place in self.places)) for row in rows]


def _places(model: Classifier, name: str) -> list[int]:
    """Where the model has entailment, neutral and contradiction."""
    places = []
    for start in ("entail", "neutral", "contra"):
        found = [i for i, label in enumerate(model.labels) if label.casefold().startswith(start)]
        if len(found) != 1 or len(model.labels) != 3:
            raise ModelError(
                f"model {name!r} is no three-way NLI classifier: its labels are "
                f"{', '.join(model.labels)}, not entailment, neutral, contradiction"
            )
        places += found
    return places
