"""Probability of a sequence classifier's labels; the presets are settings of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mht.core.component import refuse
from mht.core.errors import ModelError
from mht.data.text.sample import Sample
from mht.rewards.base import UNIT, Range, TextReward
from mht.rewards.learned.model_reward import ClassifierReward
from mht.rewards.models.sequence_classifier import Classifier, classifier, probabilities

Share = Annotated[float, Field(ge=0, le=1)]
Names = Annotated[list[str], Field(min_length=1)]
Spellings = tuple[str, ...]
NUMBERED = re.compile(r"LABEL_\d+")
ABSENCE = re.compile(r"not?([-_ ]|$)|non|nothate|neutral|normal|neither|clean|safe|unbiased")


class LabelReward(TextReward, ClassifierReward):
    """Probability of a label, as a sequence classifier sees it in the text.

    Several targets are one event. Labels that exclude each other (softmax) add up. Of labels that
    overlap (sigmoid) the likeliest counts: an insult is toxic too.

    Attributes:
        model: folder or hub name (with a revision: name@revision) of a sequence classifier.
        target: one of its labels, or a list of them. Case does not count, and "-", "_" and blanks
            are equal. So are a preset's spellings of one label, such as toxic and toxicity.
        scale: true gives the probability; false gives 1.0 where a target is the likeliest label
            (sigmoid: where the probability is at least 0.5), else 0.0.
        threshold: with scale: false, 1.0 from this probability on instead.
        labels: names for the checkpoint's outputs, in their order, in place of its own.
        activation: "auto" follows the checkpoint's config; a single output with the target's name
            gets sigmoid. Regression heads are refused. Set "softmax" or "sigmoid" where the config
            is wrong.
        checkpoints: short names of models.
        spellings: label names that mean the same.
        unnamed: what the numbered outputs (LABEL_0...) of some hub models mean, in their order.
    """

    family: ClassVar[str] = "classifiers"
    needs: ClassVar[str] = "a sequence classifier, such as models/reward_model"
    score_range: ClassVar[Range] = UNIT
    range_note: ClassVar[str] = "0 or 1 with scale: false"
    better: ClassVar[Literal["high", "low", "either"]] = "either"
    checkpoints: ClassVar[Mapping[str, str]] = {}
    spellings: ClassVar[tuple[Spellings, ...]] = ()
    unnamed: ClassVar[Mapping[str, Spellings]] = {}

    target: str | Names
    scale: bool = True
    threshold: Share | None = None
    labels: Names | None = None
    activation: Literal["auto", "softmax", "sigmoid"] = "auto"

    @model_validator(mode="after")
    def _threshold_is_for_0_and_1(self) -> LabelReward:
        if self.threshold is not None and self.scale:
            refuse([("threshold", f"needs scale: false, got {self.threshold} with scale: true")])
        return self

    @property
    def checkpoint(self) -> str:
        """The model's folder or hub name."""
        return self.checkpoints.get(self.model, self.model)

    @property
    def targets(self) -> list[str]:
        """The labels that count."""
        return [self.target] if isinstance(self.target, str) else self.target

    def models(self) -> tuple[str, ...]:
        """The classifier."""
        return (self.checkpoint,)

    def direction(self) -> Literal["high", "low", "either"]:
        """As the preset has it; the other way round for the label of its absence (NEUTRAL)."""
        absent = all(ABSENCE.match(target.casefold()) for target in self.targets)
        return "high" if self.better == "low" and absent else self.better

    def classifier(self) -> Classifier:
        """See `ClassifierReward.classifier`; by the checkpoint's whole name."""
        return classifier(self.checkpoint, self.device)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The targets' probability, or whether they win."""
        model = self.classifier()
        independent = self._independent(model)
        chosen = self._chosen(model)
        shares = probabilities(self.logits(model, samples, self.text), independent)
        part = shares[:, chosen]
        values = part.amax(-1) if independent else part.sum(-1).clamp(max=1)
        if self.scale:
            return values.tolist()
        if independent or self.threshold is not None:
            return (values >= (0.5 if self.threshold is None else self.threshold)).float().tolist()
        return [float(i in chosen) for i in shares.argmax(-1).tolist()]

    def _independent(self, model: Classifier) -> bool:
        if self.activation == "auto":
            model.refuse_regression()
            return model.multi_label or len(model.labels) == 1
        return self.activation == "sigmoid"

    def _chosen(self, model: Classifier) -> list[int]:
        """The targets' outputs."""
        names = self._names(model)
        found = {target: self._place(target, names) for target in self.targets}
        if len(names) == 1 and (None in found.values() or self.activation == "softmax"):
            if self.activation == "sigmoid":
                return [0]
            raise ModelError(
                f"model {self.model!r} has one output: use the type reward_model, or set "
                f"activation to sigmoid if it is the log-odds of {self.targets[0]!r}"
            )
        for target, place in found.items():
            if place is None:
                raise ModelError(_no_label(target, names))
        return sorted({place for place in found.values() if place is not None})

    def _names(self, model: Classifier) -> Sequence[str]:
        """The outputs' names: the option's, else the checkpoint's, or what its numbers mean."""
        numbered = all(NUMBERED.fullmatch(label) for label in model.labels)
        known = self.unnamed.get(self.checkpoint.partition("@")[0]) if numbered else None
        names = self.labels or known or model.labels
        if len(names) != len(model.labels):
            raise ModelError(
                f"labels has {len(names)} names, but the model has {len(model.labels)} outputs: "
                + ", ".join(model.labels)
            )
        return names

    def has(self, target: str, names: Sequence[str]) -> bool:
        """Whether a model with outputs of these names has the target."""
        return self._place(target, names) is not None

    def _place(self, target: str, names: Sequence[str]) -> int | None:
        """Where the target is, under its own name before another spelling of it."""
        plain = [_plain(name) for name in names]
        same = next((s for s in self.spellings if _plain(target) in s), ())
        return next((plain.index(s) for s in (_plain(target), *same) if s in plain), None)


def _plain(label: str) -> str:
    """A label as it is compared.

    >>> _plain("NOT-HATE"), _plain("severe toxic")
    ('not_hate', 'severe_toxic')
    """
    return re.sub(r"[\s-]", "_", label.strip().casefold())


def _no_label(target: str, names: Sequence[Any]) -> str:
    shown = ", ".join(names)
    if all(NUMBERED.fullmatch(name) for name in names):
        return (
            f"the model has no label {target!r}, only numbered ones ({shown}): set labels to a "
            f"list of their names, in this order"
        )
    return f"the model has no label {target!r}: set target to one of {shown}"
