"""Rewards of staying with the prompt: topic_consistency, qa_relevance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mht.core.component import refuse
from mht.core.errors import ModelError
from mht.data.text.sample import Sample
from mht.data.text.special import broken_up
from mht.rewards.base import UNIT, Device, Positive, Range, Reward, reward
from mht.rewards.learned.model_reward import ClassifierReward
from mht.rewards.models.sentence_encoder import embed
from mht.rewards.models.sequence_classifier import (
    Classifier,
    classifier,
    probabilities,
    warn_of_long,
)

Topics = Annotated[list[str], Field(min_length=1)]
MODELS = {
    "embedding": "sentence-transformers/all-MiniLM-L6-v2",
    "zero_shot": "cross-encoder/nli-deberta-v3-small",
}


@reward("topic_consistency")
class TopicConsistency(Reward):
    """How much the response stays on the prompt's theme, or on given topics, 0 to 1.

    ``embedding`` is ``(cos + 1) / 2`` of the sentence embeddings of the response and the prompt, or
    the nearest of ``topics`` (Reimers & Gurevych 2019, arXiv:1908.10084).

    ``zero_shot`` lets an NLI classifier read the response and each topic's ``hypothesis`` (Yin et
    al. 2019, arXiv:1909.00161). With ``target`` the topics compete (softmax over their entailment),
    and the targets' shares add up. Without it each is entailed or not by itself, and the likeliest
    counts.

    A blank response gives 0.0; a blank prompt without topics has no theme, which gives 0.5.

    Attributes:
        method: "embedding" or "zero_shot".
        model: folder or hub name; null is sentence-transformers/all-MiniLM-L6-v2 for embedding and
            cross-encoder/nli-deberta-v3-small for zero_shot.
        topics: the themes, in a few words each; null is the prompt itself (embedding only).
        target: those of the topics that the response should keep to, against the others
            (zero_shot only); null is any of them.
        hypothesis: the sentence that zero_shot tests; {} stands for the topic.
        device: "auto" (a GPU if there is one) or a torch device.
        batch_size: texts, or pairs of response and hypothesis, per forward pass.
        max_tokens: longer pairs are cut (zero_shot only); null is the model's own limit.
    """

    family: ClassVar[str] = "relevance"
    needs: ClassVar[str] = "a sentence-transformers model, or an NLI classifier for zero_shot"
    score_range: ClassVar[Range] = UNIT

    method: Literal["embedding", "zero_shot"] = "embedding"
    model: str | None = None
    topics: Topics | None = None
    target: str | Topics | None = None
    hypothesis: str = "This text is about {}."
    device: Device = "auto"
    batch_size: Positive = 32
    max_tokens: Positive | None = None

    @model_validator(mode="after")
    def _options_fit_the_method(self) -> TopicConsistency:
        refuse(self._problems())
        return self

    def _problems(self) -> list[tuple[str, str]]:
        topics, targets = self.topics or [], self.targets or []
        strange = [target for target in targets if target not in topics]
        if self.method == "embedding":
            named = [("target", self.target), ("max_tokens", self.max_tokens)]
            return [(k, f"is for zero_shot, got {v!r}") for k, v in named if v is not None]
        if not topics:
            return [("topics", "is required for zero_shot: a list of themes")]
        if "{}" not in self.hypothesis:
            return [("hypothesis", f"needs {{}} where the topic goes, got {self.hypothesis!r}")]
        if strange or (targets and set(targets) == set(topics)):
            some = f"{', '.join(map(repr, targets))} of {', '.join(map(repr, topics))}"
            return [("target", f"names some of the topics, not others and not all, got {some}")]
        return []

    @property
    def checkpoint(self) -> str:
        """The model's folder or hub name."""
        return self.model or MODELS[self.method]

    @property
    def targets(self) -> list[str] | None:
        """The topics that count against the others."""
        return [self.target] if isinstance(self.target, str) else self.target

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """The response, and the prompt where that is the theme."""
        return (sample.response,) if self.topics else (sample.prompt, sample.response)

    def models(self) -> tuple[str, ...]:
        """The encoder or classifier."""
        return (self.checkpoint,)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The similarities or probabilities."""
        filled = [sample for sample in samples if sample.response.strip()]
        method = self._similarities if self.method == "embedding" else self._probabilities
        values = iter(method(filled) if filled else [])
        return [next(values) if sample.response.strip() else 0.0 for sample in samples]

    def _similarities(self, samples: Sequence[Sample]) -> list[float]:
        rows = embed(
            [*(sample.response for sample in samples), *(self.topics or ())],
            self.checkpoint,
            self.device,
            self.batch_size,
            needed_by="topic_consistency",
            prompts=[] if self.topics else [sample.prompt for sample in samples],
            warn=self.warn_once,
        )
        responses, themes = rows[: len(samples)], rows[len(samples) :]
        if self.topics:
            cosines = (responses @ themes.T).amax(-1)
        else:
            known = rows.new_tensor([bool(sample.prompt.strip()) for sample in samples])
            cosines = (responses * themes).sum(-1) * known
        return ((cosines + 1) / 2).clamp(0, 1).tolist()

    def _probabilities(self, samples: Sequence[Sample]) -> list[float]:
        topics = self.topics or []
        claims = [self.hypothesis.replace("{}", topic) for topic in topics]
        model = classifier(self.checkpoint, self.device)
        model.refuse_regression()
        against, entailed = _sides(model, self.checkpoint)
        responses = [broken_up(sample.response, model.tokenizer) for sample in samples]
        pairs = [(response, claim) for response in responses for claim in claims]
        warn_of_long(self.warn_once, model, pairs, self.max_tokens)
        logits = model.logits(pairs, self.batch_size, self.max_tokens)
        logits = logits.view(len(samples), len(claims), -1)
        if self.targets is None:
            each = logits[..., [against, entailed]].softmax(-1)[..., 1]
            return each.amax(-1).tolist()
        chosen = [i for i, topic in enumerate(topics) if topic in self.targets]
        return logits[..., entailed].softmax(-1)[:, chosen].sum(-1).clamp(max=1).tolist()


def _sides(model: Classifier, name: str) -> tuple[int, int]:
    """Where an NLI classifier, three-way or two-way, has what speaks against a claim and for it."""
    labels = [label.casefold() for label in model.labels]
    against = [i for i, label in enumerate(labels) if label.startswith(("contra", "not"))]
    entailed = [i for i, label in enumerate(labels) if label.startswith("entail")]
    if len(against) != 1 or len(entailed) != 1:
        raise ModelError(
            f"model {name!r} is no NLI classifier: its labels are {', '.join(model.labels)}, not "
            "entailment and contradiction (or not_entailment)"
        )
    return against[0], entailed[0]


@reward("qa_relevance")
class QARelevance(ClassifierReward):
    """How relevant the response is as an answer to the prompt, by a ranker, 0 to 1.

    A cross-encoder reads prompt and response as its two segments (Nogueira & Cho 2019,
    arXiv:1901.04085). The sigmoid of its one output; of a model with several labels, the target's
    probability. The output itself, also of a regression head, is the type reward_model with
    ``text: pair``.

    Attributes:
        model: folder or hub name of a ranker or of a classifier of pairs.
        target: the label, for a model with several.
    """

    family: ClassVar[str] = "relevance"
    needs: ClassVar[str] = "a cross-encoder of question and answer"
    score_range: ClassVar[Range] = UNIT

    model: str = "cross-encoder/ms-marco-MiniLM-L6-v2"
    target: str | None = None

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """Prompt and response."""
        return sample.prompt, sample.response

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The sigmoid or the label's probability."""
        model = self.classifier()
        model.refuse_regression()
        output = self.output(model, self.target)
        independent = model.multi_label or len(model.labels) == 1
        shares = probabilities(self.logits(model, samples, "pair"), independent)
        return shares[:, output].tolist()
