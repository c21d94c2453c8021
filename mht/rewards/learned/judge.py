"""A language model as the judge: llm_judge."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mht.core.component import refuse
from mht.core.errors import RewardError
from mht.data.text.sample import Sample
from mht.data.text.special import broken_up
from mht.data.text.truncation import cut_note
from mht.rewards.base import UNIT, Positive, Range, reward
from mht.rewards.learned.model_reward import ModelReward
from mht.rewards.models.causal_lm import CausalLM, Window, causal_lm
from mht.rewards.models.instruct import TOKENS, Instruction, names_in

TEXTS = ("prompt", "response", "target")
KNOWN = (*TEXTS, "criterion", "answers")
ASKED = "Prompt:\n{prompt}\n\nResponse:\n{response}\n\n{criterion}\nAnswer with {answers} only."
TEMPLATES = {
    "verdicts": ASKED,
    "rubric": ASKED,
    "gptscore response": "{criterion}\n\n{prompt}\n\n",
    "gptscore target": "{response}\n\n{criterion}\n\n",
}
CRITERIA = {
    "verdicts": "Is this a correct and helpful response to the prompt?",
    "rubric": "How correct and helpful is this response to the prompt?",
    "gptscore response": "Write a correct and helpful response to this prompt.",
    "gptscore target": "Say the same in other words.",
}


@dataclass(frozen=True)
class Grade:
    """How the judge came to a score.

    Attributes:
        score: the expectation over the answers.
        shares: each answer's probability, out of these answers.
        mass: the probability that the model gives one of them at all. Where it is small, the judge
            has not understood the question, or its answers begin with other words.
    """

    score: float
    shares: dict[str, float]
    mass: float


@reward("llm_judge")
class LLMJudge(ModelReward):
    """The grade that a causal language model gives the response, from its probabilities.

    No text is sampled: the score is an expectation, as in G-Eval (Liu et al. 2023,
    arXiv:2303.16634). It is the same for the same texts, and finer than any single answer. All
    tokens of an answer count. Where one answer is the beginning of another (1 and 10), the longer
    one's probability is taken off.

    "gptscore" is the mean log-probability of a text under an instruction (GPTScore, Fu et al. 2023,
    arXiv:2302.04166), in nats per token. An empty text gets ``-log(vocabulary)``.

    A model with a chat template gets the instruction as the user's turn. One without gets it as
    plain text, with "Answer:" at its end for verdicts and rubric. What is too long for the model is
    cut: the prompt at its beginning, then the target at its end. A response is cut at its end where
    it is too long by itself. Special tokens that a text spells out are broken up. Reasoning models
    are asked not to think first, where their template has that switch.

    Attributes:
        model: folder or hub name of a causal language model, best one that follows instructions.
        method: "verdicts" takes the expectation of ``verdicts``; "rubric" that of a number from 1
            to ``points``, mapped to [0, 1]; "gptscore" the mean log-probability.
        verdicts: the answers with what each is worth.
        points: the best mark of the rubric.
        scored: whose log-probability is taken by gptscore: the "response" given the prompt, or
            the "target" given the response.
        criterion: what is asked for, one sentence; null is a general one for each method.
        template: the instruction, with {prompt}, {response}, {target}, {criterion} and {answers}
            ("Yes or No", "a number from 1 to 5"); null is a short one for each method.
        system: what the system's turn says; null leaves it out.
        batch_size: sequences per forward pass, at most.
        max_tokens: of instruction and answer; null is the model's own limit, or 8192.
    """

    family: ClassVar[str] = "learned"
    needs: ClassVar[str] = "a causal language model, best one that follows instructions"
    score_range: ClassVar[Range] = UNIT
    range_note: ClassVar[str] = "verdicts: from the worst to the best; gptscore: up to 0"
    example: ClassVar[Mapping[str, Any] | None] = {"model": "models/base"}

    method: Literal["verdicts", "rubric", "gptscore"] = "verdicts"
    verdicts: Annotated[dict[str, float], Field(min_length=2)] = Field(
        default={"Yes": 1.0, "No": 0.0}
    )
    points: Annotated[int, Field(ge=2, le=100)] = 5
    scored: Literal["response", "target"] = "response"
    criterion: str | None = None
    template: str | None = None
    system: str | None = None
    batch_size: Positive = 8
    max_tokens: Positive | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> LLMJudge:
        if any(not answer.strip() for answer in self.verdicts):
            refuse([("verdicts", "an answer is blank")])
        if len(set(self.verdicts.values())) < 2:
            refuse([("verdicts", "all are worth the same: every response would score alike")])
        try:
            names = names_in(self._template, KNOWN)
        except ValueError as error:
            refuse([("template", str(error))])
        problem = self._problem(names)
        if problem:
            refuse([("template", problem)])
        return self

    def _problem(self, names: set[str]) -> str:
        scores_response = self.method == "gptscore" and self.scored == "response"
        if not scores_response and "response" not in names:
            return "needs {response}: else every response would score alike"
        if self.method == "gptscore" and self.scored in names:
            return f"must not have {{{self.scored}}}: the model would only have to repeat it"
        return ""

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """The texts that the template has, and the scored one."""
        return tuple(getattr(sample, name) for name in self._texts)

    def bounds(self) -> Range:
        """The worst and the best verdict, 0 and 1, or all that a log-probability can be."""
        if self.method == "gptscore":
            return -math.inf, 0.0
        values = self.verdicts.values()
        return (min(values), max(values)) if self.method == "verdicts" else UNIT

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The expectations, or the mean log-probabilities."""
        if "target" in self._texts and not any(s.target for s in samples):
            warnings.warn(
                f"{self.__name__} reads targets, but no sample of this batch has one", stacklevel=2
            )
        if self.method == "gptscore":
            return self._mean_logprobs(samples)
        return [grade.score for grade in self.explain(samples)]

    def explain(self, samples: Sequence[Sample]) -> list[Grade]:
        """For each sample the probability of each answer.

        Raises:
            RewardError: the method is gptscore, which has none.
        """
        if self.method == "gptscore":
            raise RewardError("gptscore has no answers to explain: take verdicts or rubric")
        model, asked = self._asked("\nAnswer:")
        worth = self._worth
        empty = {**dict.fromkeys(TEXTS, ""), **self._fixed}
        answers = asked.answers(empty, list(worth))
        room = self._room(model) - max(map(len, answers))
        contexts = [asked.ids(self._values(s), self._fixed, room) for s in samples]
        self._say_cut(asked.cut, model)
        logprobs = model.continuations(contexts, answers, self.batch_size)
        return [grade(row, answers, worth) for row in logprobs]

    def _mean_logprobs(self, samples: Sequence[Sample]) -> list[float]:
        model, asked = self._asked("")
        room = self._room(model)
        most = self._most(asked, room)
        todo, cut = [], False
        for i, sample in enumerate(samples):
            ids = model.encode(broken_up(getattr(sample, self.scored), model.tokenizer))
            cut |= len(ids) > most
            if ids := ids[:most]:
                before = asked.ids(self._values(sample), self._fixed, room - len(ids))
                todo.append(Window(i, [*before, *ids], len(ids)))
        self._say_cut(cut or asked.cut, model)
        scores = [-math.log(model.vocabulary)] * len(samples)
        for window, nats in zip(todo, model.window_losses(todo, self.batch_size), strict=True):
            scores[window.text] = -nats / window.scored
        return scores

    def _most(self, asked: Instruction, room: int) -> int:
        """The most tokens of the scored text: a target leaves half of the room to the response."""
        if self.scored == "target":
            return max(1, room // 2)
        return max(1, room - len(asked.ids(dict.fromkeys(TEXTS, ""), self._fixed, room)))

    def _say_cut(self, cut: bool, model: CausalLM) -> None:
        if cut:
            self.warn_once(cut_note(self._room(model)))

    def _asked(self, opening: str) -> tuple[CausalLM, Instruction]:
        model = causal_lm(self.model, self.device)
        return model, Instruction(model, self._template, self.system, opening)

    def _room(self, model: CausalLM) -> int:
        return min(n for n in (self.max_tokens, model.limit, TOKENS) if n)

    @property
    def _worth(self) -> dict[str, float]:
        """Every answer with what it is worth."""
        if self.method == "verdicts":
            return self.verdicts
        return {str(n): (n - 1) / (self.points - 1) for n in range(1, self.points + 1)}

    @property
    def _kind(self) -> str:
        return f"gptscore {self.scored}" if self.method == "gptscore" else self.method

    @property
    def _template(self) -> str:
        return TEMPLATES[self._kind] if self.template is None else self.template

    @property
    def _fixed(self) -> dict[str, str]:
        """What is the same for every sample."""
        rubric = f"a number from 1 (worst) to {self.points} (best)"
        answers = rubric if self.method == "rubric" else " or ".join(self.verdicts)
        return {"criterion": self.criterion or CRITERIA[self._kind], "answers": answers}

    @property
    def _texts(self) -> list[str]:
        """The sample's texts that decide the score."""
        names = names_in(self._template, KNOWN)
        scored = {self.scored} if self.method == "gptscore" else set()
        return [name for name in TEXTS if name in names | scored]

    def _values(self, sample: Sample) -> dict[str, str]:
        return {name: getattr(sample, name) for name in TEXTS}


def grade(
    logprobs: Sequence[float], answers: Sequence[Sequence[int]], worth: Mapping[str, float]
) -> Grade:
    """The expectation over some answers.

    Args:
        logprobs: of each answer, in nats.
        answers: their tokens; the probability of one that others begin with is what is left of it.
        worth: each answer's text with its value, in the same order.

    >>> grade([0.0, -math.inf], [[1], [2]], {"Yes": 1.0, "No": 0.0}).score
    1.0
    """
    largest = max(logprobs)
    own = [math.exp(value - largest) for value in logprobs]
    for i in sorted(range(len(answers)), key=lambda i: -len(answers[i])):
        start = list(answers[i])
        longer = [k for k, ids in enumerate(answers) if k != i and list(ids[: len(start)]) == start]
        own[i] = max(0.0, own[i] - sum(own[k] for k in longer))
    total = math.fsum(own)
    shares = {text: share / total for text, share in zip(worth, own, strict=True)}
    score = math.fsum(shares[text] * value for text, value in worth.items())
    return Grade(score, shares, total * math.exp(largest))
