"""What every strategy takes and gives back, and the one that asks no reward: plain sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from mht.core.errors import UserError
from mht.core.records import Scored
from mht.data.examples.example import Example, collate_prompts
from mht.data.examples.tokenize import Cut, read
from mht.data.text.clean import content_key
from mht.data.text.sample import Sample, joiner
from mht.data.text.texts import Codec
from mht.generation.sampling.rollout import Responder
from mht.generation.sampling.seeds import RowSeeds, row_seeds

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from mht.rewards import Reward


@dataclass(frozen=True)
class Prompts:
    """B prompts that a strategy is to answer.

    Attributes:
        responder: the model with its tokenizer and its sampling options.
        examples: the prompts.
        seeds: one for each; a response depends on its own alone.
        reward: scores responses; its state stays as it is.
    """

    responder: Responder
    examples: Sequence[Example]
    seeds: Sequence[int]
    reward: Reward | None

    def guide(self, strategy: str) -> Reward:
        """The reward, for a strategy that is guided by one.

        Raises:
            UserError: there is none.
        """
        if self.reward is None:
            raise UserError(f"{strategy} is guided by a reward: give one")
        return self.reward

    def batch(self) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, P) on the model's device, left-padded, True = a real token.

        Raises:
            DataError: a prompt is empty, or leaves no room for a response.
        """
        ids, mask = collate_prompts(self.examples, self.responder.pad_id)
        self.responder.check_lengths(mask.sum(1))
        device = self.responder.model.device
        return ids.to(device), mask.to(device)

    def numbers(self) -> RowSeeds:
        """A stream of random numbers for each prompt, on the model's device."""
        return RowSeeds(self.seeds, self.responder.model.device)


@dataclass(frozen=True)
class Generated:
    """Responses to B prompts, one each.

    Attributes:
        samples: the texts.
        tokens: the responses as token ids, EOS included where there is one.
        scored: what the reward says of them; None without a reward.
        drawn: for each prompt all responses that the strategy looked at, where it keeps several.
        drawn_scores: their scores.
        figures: what the strategy says of itself, means over the prompts.
        computed_tokens: token positions that the model computed after the prompts.
    """

    samples: list[Sample]
    tokens: list[list[int]]
    scored: Scored | None = None
    drawn: list[list[Sample]] = field(default_factory=list)
    drawn_scores: list[list[float]] = field(default_factory=list)
    figures: Mapping[str, float] = field(default_factory=dict)
    computed_tokens: int = 0


class Strategy(Protocol):
    """A way to answer prompts."""

    def run(self, prompts: Prompts) -> Generated:
        """One response for each prompt."""
        ...


@dataclass(frozen=True)
class Sampling:
    """Ancestral sampling with the responder's temperature and truncation."""

    def run(self, prompts: Prompts) -> Generated:
        """See `Strategy.run`."""
        responder = prompts.responder
        rollout = responder.respond(prompts.examples, prompts.numbers())
        samples, tokens = responder.samples(rollout, prompts.examples), rollout.response_tokens
        return Generated(samples, tokens, computed_tokens=int(rollout.lengths.sum()))


def generate(
    strategy: Strategy,
    responder: Responder,
    examples: Sequence[Example],
    *,
    reward: Reward | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> Generated:
    """Responses to any number of prompts, batch after batch.

    Args:
        strategy: how.
        responder: the model with its tokenizer and its sampling options.
        examples: the prompts; see `prompt_examples`.
        reward: what guides the strategies that are guided by one; scores the others' responses.
        seed: a response follows from it, its prompt and the number of the same prompts before it.
            The batch changes it by rounding alone, which may turn a nearly tied token.
        batch_size: prompts at once.
    """
    seeds = row_seeds(seed, [e.prompt_ids for e in examples])
    parts = []
    for start in range(0, len(examples), batch_size):
        rows = slice(start, start + batch_size)
        part = strategy.run(Prompts(responder, examples[rows], seeds[rows], reward))
        if reward is not None and part.scored is None:
            part = replace(part, scored=reward.evaluate(part.samples, update=False))
        parts.append(part)
    return parts[0] if len(parts) == 1 else _joined(parts)


def prompt_examples(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    chat: bool = False,
    codec: Codec | None = None,
) -> list[Example]:
    """Prompts without targets, tokenised as `prepare` does it.

    Args:
        tokenizer: the model's.
        prompts: texts that the model is to continue.
        chat: they are a user's messages, put into the tokenizer's chat template if it has one.
        codec: that of a `Responder`, which knows all that ends a response; None makes one.
    """
    codec = codec or Codec(tokenizer)
    found = []
    for prompt in prompts:
        key = content_key(prompt)
        messages = [{"role": "user", "content": prompt}] if chat else None
        between = joiner(prompt) if chat else ""
        cut = Cut(prompt, "", messages, key, key, between)
        ids = read(codec, cut).ids
        found.append(Example(key[:16], prompt, "", ids, [], joiner=between))
    return found


def _joined(parts: Sequence[Generated]) -> Generated:
    scored = [part.scored for part in parts if part.scored is not None]
    count = sum(len(part.samples) for part in parts)
    return Generated(
        samples=[s for part in parts for s in part.samples],
        tokens=[t for part in parts for t in part.tokens],
        scored=_joined_scores(scored) if scored else None,
        drawn=[d for part in parts for d in part.drawn],
        drawn_scores=[d for part in parts for d in part.drawn_scores],
        figures={
            name: sum(part.figures[name] * len(part.samples) for part in parts) / count
            for name in (parts[0].figures if parts else {})
        },
        computed_tokens=sum(part.computed_tokens for part in parts),
    )


def _joined_scores(parts: Sequence[Scored]) -> Scored:
    return Scored(
        [x for part in parts for x in part.score],
        {
            name: [x for part in parts for x in part.components[name]]
            for name in parts[0].components
        },
    )
