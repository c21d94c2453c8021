"""How fast each type of reward scores, and what the tree around the types costs."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import spread
from mht.cli.reward_types import built_in
from mht.core.errors import UserError
from mht.core.progress import track
from mht.data.text.sample import Sample
from mht.rewards import Reward, make_reward
from mht.rewards.learned.classifier import LabelReward

BATCH = 64
WORDS = "a warm and funny film with one dull scene , great music but no plot to speak of"
STEP_ROW = "ppo_iteration_frozen"  # whose seconds are a PPO step's
CLASSIFIER = {"model": "models/reward_model", "target": "positive"}
# what the pipeline's own models serve; another type's `example` may name them too. A preset of
# classifiers costs what its model costs: here all have the same one
PIPELINE: Mapping[str, Mapping[str, Any]] = {
    **{cls.type_name: CLASSIFIER for cls in built_in() if issubclass(cls, LabelReward)},
    **dict.fromkeys(
        (
            "legal_validity",
            "medical_accuracy",
            "qa_relevance",
            "reward_model",
            "scientific_integrity",
        ),
        CLASSIFIER,
    ),
    "bertscore": {"model_type": "data/raw/encoder", "num_layers": 5},
    "cosine_sts": {"model": "data/raw/encoder"},
    "fluency": {"model": "models/base"},
    "llm_judge": {"model": "models/base"},
    "perplexity": {"model": "models/base"},
    "topic_consistency": {"model": "data/raw/encoder"},
}
CHEAP: Mapping[str, Any] = {
    "match": {"type": "exact_match"},
    "words": {"type": "jaccard"},
    "length": {"type": "length_window", "min": 9, "max": 17, "scale": True, "on_error": 0.0},
    "shout": {"type": "regex_presence", "pattern": "!", "invert": True},
    "nouns": {"type": "keyword_count", "keywords": ["film", "plot"], "normalize": True},
}
TREE = {"type": "weighted_sum", "components": CHEAP, "postprocess": [{"type": "ema_normalize"}]}


@dataclass(frozen=True)
class Rewards:
    """Texts per second of every type, a batch at once and one at a time, and the tree's overhead.

    Attributes:
        results: where the PPO step's seconds are, of an earlier row.
        rounds: of which medians are taken.
        texts: a batch's size.
    """

    results: Path = Path("bench/results.json")
    rounds: int = 3
    texts: int = BATCH

    def measure(self) -> dict[str, Any]:
        """The figures of each type that can be had here, a note for each other one."""
        types: dict[str, Any] = {}
        for cls in track(built_in(), "rewards"):
            try:
                types[cls.type_name] = self.of_type(cls)
            except UserError as error:
                types[cls.type_name] = {"skipped": " ".join(str(error).split())}
        return {"texts": self.texts, "types": types, "tree": self.overhead(batch(self.texts))}

    def of_type(self, cls: type[Reward]) -> dict[str, Any]:
        """Texts per second, together and alone; new texts each time, as types may remember some.

        Raises:
            UserError: it needs what is not here.
        """
        reward = ready(cls)
        rounds = [batch(self.texts, number) for number in range(2 * self.rounds + 1)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reward.evaluate(rounds.pop(), update=False)  # loads and warms up
            together = [taken(_together, reward, rounds.pop()) for _ in range(self.rounds)]
            alone = [taken(_alone, reward, rounds.pop()) for _ in range(self.rounds)]
        return {
            "together_per_s": spread([self.texts / s for s in together]),
            "alone_per_s": spread([self.texts / s for s in alone]),
            "ratio": spread([a / b for a, b in zip(alone, together, strict=True)]),
            "models": models(reward),
        }

    def overhead(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Seconds that a tree of cheap components takes beside its components' own arithmetic."""
        tree, beside = make_reward(TREE), []
        parts = list(tree.children().values())
        for _ in range(4 * self.rounds):
            whole = taken(tree.evaluate, samples)
            beside.append(whole - sum(taken(part.score, samples) for part in parts))
        found = {"components": len(parts), "overhead_ms": spread([1000 * s for s in beside])}
        step = self._step_s()
        if step:
            found["share_of_ppo_step"] = found["overhead_ms"]["median"] / 1000 / step
        return found

    def _step_s(self) -> float | None:
        """The seconds of a PPO step, where that row has been measured."""
        rows = json.loads(self.results.read_text()) if self.results.exists() else {}
        return rows[STEP_ROW]["mht"]["seconds"]["median"] if STEP_ROW in rows else None


def ready(cls: type[Reward]) -> Reward:
    """A reward of the type that loads here.

    Raises:
        UserError: it needs a model or a file that is not here.
    """
    options = PIPELINE.get(cls.type_name, cls.example)
    if options is None:
        raise UserError("takes a file of its user's")
    reward = make_reward({"type": cls.type_name, **options})
    for name in models(reward):
        if not Path(name).is_dir():
            raise UserError(f"its model is not in this folder: {name}")
    return reward


def models(reward: Reward) -> list[str]:
    """The models of a reward and of all below it."""
    below = [name for child in reward.children().values() for name in models(child)]
    return [*reward.models(), *below]


def batch(count: int, number: int = 0) -> list[Sample]:
    """Different responses of some 20 words, as a PPO step writes them; others for each number."""
    words = WORDS.split()
    texts = [" ".join([*words[i % 7 :], *words[: i % 5], f"{number}.{i}"]) for i in range(count)]
    return [Sample("the film is ", text, WORDS, {"id": i}) for i, text in enumerate(texts)]


def taken(work: Callable[..., object], *arguments: Any) -> float:
    """The seconds that it takes."""
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def _together(reward: Reward, samples: Sequence[Sample]) -> None:
    reward.evaluate(samples, update=False)


def _alone(reward: Reward, samples: Sequence[Sample]) -> None:
    for sample in samples:
        reward.evaluate([sample], update=False)
