"""MCMC over whole responses: Metropolis-Hastings towards ``p(x) exp(score(x) / T)``.

The target is the policy tilted by the reward: the optimum of RL with a KL penalty of coefficient T
(Korbak et al. 2022, arXiv:2205.11275). The chain reaches it at inference, without training.

A step keeps the response x up to a random position, ``i ~ uniform{0, ..., |x| - 1}``, and draws
what follows anew. With the model itself as the proposal, p(x_>=i | x_<i) cancels the model's part
of the target. What is left of the Hastings ratio for a move to y is

    exp((score(y) - score(x)) / T) * |x| / |y|

since the way back has to choose the same position, and does so with probability 1 / |y| (as in
QUEST, Faria et al. 2024, arXiv:2406.00049). Lengths count the EOS, which is drawn and redrawn like
any token. Each position's moves are balanced on their own, so the mixture over positions is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from mht.core.errors import UserError
from mht.core.records import Rollout
from mht.data.text.sample import Sample
from mht.generation.decoding.base import Generated, Prompts
from mht.generation.decoding.ngram import NGramProposal
from mht.generation.decoding.ngram_model import NGram
from mht.generation.sampling.decode import sample
from mht.generation.sampling.rollout import Responder
from mht.generation.sampling.seeds import RowSeeds

if TYPE_CHECKING:
    from mht.rewards import Reward


class Proposal(Protocol):
    """Where new endings come from."""

    def draw(self, ids: Tensor, mask: Tensor, limits: Tensor, numbers: RowSeeds) -> Rollout:
        """An ending for each row of left-padded tokens (B, P), of at most ``limits`` (B,)."""
        ...

    def weight(self, rollout: Rollout) -> Tensor:
        """(B,) log of the model's probability of whole responses over the proposal's."""
        ...


@dataclass(frozen=True)
class ModelProposal:
    """The model itself, with the responder's temperature and truncation: they are p's too."""

    responder: Responder

    def draw(self, ids: Tensor, mask: Tensor, limits: Tensor, numbers: RowSeeds) -> Rollout:
        """See `Proposal.draw`."""
        return sample(
            self.responder.model,
            ids,
            mask,
            eos_ids=self.responder.eos_ids,
            pad_id=self.responder.pad_id,
            generator=numbers,
            limits=limits,
            **self.responder.decoding | {"response_tokens": int(limits.max())},
        )

    def weight(self, rollout: Rollout) -> Tensor:
        """Zeros: it is the model."""
        return torch.zeros(len(rollout), device=rollout.prompt_ids.device)


class Chains:
    """A Markov chain of responses for each row of a batch.

    Args:
        start: the first responses.
        proposal: draws new endings.
        score: B scores of a rollout's responses.
        score_temperature: T, in units of the score.
        limit: tokens that a response may have.
        pad_id: fills the responses on the right.
        numbers: a stream for each row: a chain does not depend on the others.

    Attributes:
        state: the present responses, (B, limit).
        scores: theirs, (B,) float64.
        accepted: share of all proposals so far that were accepted; NaN before the first.
    """

    def __init__(
        self,
        start: Rollout,
        proposal: Proposal,
        score: Callable[[Rollout], Sequence[float]],
        *,
        score_temperature: float,
        limit: int,
        pad_id: int,
        numbers: RowSeeds,
    ):
        self.proposal, self.score, self.numbers = proposal, score, numbers
        self.score_temperature, self.limit, self.pad_id = score_temperature, limit, pad_id
        nothing = torch.zeros_like(start.lengths)
        self.state = self._joined(start, start, nothing)
        self.scores = self._scores(self.state)
        self._weights = proposal.weight(self.state)
        self._proposals = self._accepts = 0

    @property
    def accepted(self) -> float:
        """See above."""
        return self._accepts / self._proposals if self._proposals else float("nan")

    def step(self) -> int:
        """One proposal for each chain, taken or not; how many tokens were drawn."""
        old, count = self.state, len(self.state)
        kept = (self.numbers.uniform(count).squeeze(1) * old.lengths).long()
        ids, mask = prefixes(old, kept)
        ending = self.proposal.draw(ids, mask, self.limit - kept, self.numbers)
        new = self._joined(old, ending, kept)
        scores, weights = self._scores(new), self.proposal.weight(new)
        log_ratio = (scores - self.scores) / self.score_temperature + weights - self._weights
        log_ratio += old.lengths.double().log() - new.lengths.double().log()
        taken = self.numbers.uniform(count).squeeze(1).log() < log_ratio
        self.state = _chosen(taken, new, old)
        self.scores = torch.where(taken, scores, self.scores)
        self._weights = torch.where(taken, weights, self._weights)
        self._proposals, self._accepts = self._proposals + count, self._accepts + int(taken.sum())
        return int(ending.lengths.sum())

    def _scores(self, rollout: Rollout) -> Tensor:
        device = rollout.prompt_ids.device
        return torch.tensor(list(self.score(rollout)), dtype=torch.float64, device=device)

    def _joined(self, old: Rollout, ending: Rollout, kept: Tensor) -> Rollout:
        """The first ``kept`` (B,) tokens of each old response, and then the ending."""
        column = torch.arange(self.limit, device=kept.device)[None]
        behind = (column - kept[:, None]).clamp(0, ending.response_ids.shape[1] - 1)
        own = old.response_ids.gather(
            1, column.clamp(max=old.response_ids.shape[1] - 1).expand(len(old), -1)
        )
        ids = torch.where(column < kept[:, None], own, ending.response_ids.gather(1, behind))
        mask = column < (kept + ending.lengths)[:, None]
        ids = ids.masked_fill(~mask, self.pad_id)
        return Rollout(old.prompt_ids, old.prompt_mask, ids, mask, ending.ended)


def prefixes(rollout: Rollout, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts followed by the first ``kept`` (B,) response tokens: ids and mask, left-padded."""
    column = torch.arange(rollout.response_ids.shape[1], device=kept.device)[None]
    real = torch.cat([rollout.prompt_mask, column < kept[:, None]], 1)
    order = real.int().argsort(dim=1, stable=True)
    width = int(real.sum(1).max())
    order = order[:, -width:]
    return rollout.input_ids.gather(1, order), real.gather(1, order)


def _chosen(taken: Tensor, new: Rollout, old: Rollout) -> Rollout:
    rows = taken[:, None]
    return Rollout(
        old.prompt_ids,
        old.prompt_mask,
        torch.where(rows, new.response_ids, old.response_ids),
        torch.where(rows, new.response_mask, old.response_mask),
        torch.where(taken, new.ended, old.ended),
    )


@dataclass(frozen=True)
class MCMC:
    """Metropolis-Hastings with target ``p(x) exp(score / score_temperature)``.

    The chain begins with a response drawn from p, and its last state is the answer. With enough
    steps that is a draw from the target, not its maximum. A reward whose scores depend on the batch
    (diversity, whiten) gives the chains no fixed target, which is warned of.

    Attributes:
        steps: proposals for each prompt, those of the burn-in included.
        score_temperature: the smaller, the more the score counts; in its units.
        burn_in: steps before the first state is kept in ``drawn``.
        thin: of the later states every such one is kept.
        proposal: draws endings; None is the model. With an n-gram model a step costs the large
            model one pass over the response instead of one for each token, but is accepted less.
    """

    steps: int = 20
    score_temperature: float = 0.1
    burn_in: int = 0
    thin: int = 1
    proposal: NGram | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.thin < 1 or not 0 <= self.burn_in < self.steps:
            raise UserError(
                "mcmc: steps and thin should be at least 1 and burn_in less than steps; got steps "
                f"{self.steps}, thin {self.thin}, burn_in {self.burn_in}"
            )
        if self.score_temperature <= 0:
            raise UserError(
                f"mcmc: score_temperature should be above 0, got {self.score_temperature}"
            )

    def run(self, prompts: Prompts) -> Generated:
        """See `Strategy.run`; ``drawn`` has the kept states, ``acceptance_rate`` is a figure."""
        reward, responder = prompts.guide("mcmc"), prompts.responder
        if responder.decoding["temperature"] == 0:
            raise UserError("mcmc: temperature 0 proposes the same response for ever; set another")

        def score(rollout: Rollout) -> list[float]:
            samples = responder.samples(rollout, prompts.examples)
            return reward.evaluate(samples, update=False).score

        ids, mask = prompts.batch()
        limit = responder.decoding["response_tokens"]
        numbers, model = prompts.numbers(), ModelProposal(responder)
        start = model.draw(ids, mask, ids.new_full((len(ids),), limit), numbers)
        chains = Chains(
            start,
            NGramProposal(self.proposal, responder) if self.proposal else model,
            score,
            score_temperature=self.score_temperature,
            limit=limit,
            pad_id=responder.pad_id,
            numbers=numbers,
        )
        together = chains.scores.tolist()
        self._warn_of_company(reward, responder.samples(start, prompts.examples), together)
        return self._walked(chains, prompts, int(start.lengths.sum()))

    def _warn_of_company(
        self, reward: Reward, samples: Sequence[Sample], together: Sequence[float]
    ) -> None:
        """Warn where scores change when half of the batch is not there: no target is fixed then."""
        halves = [samples[start::2] for start in (0, 1) if samples[start::2]]
        apart = [reward.evaluate(half, update=False).score for half in halves]
        most = max(
            abs(one - other)
            for start, scores in enumerate(apart)
            for one, other in zip(scores, together[start::2], strict=True)
        )
        if most > 0.05 * self.score_temperature:  # rounding stays far below
            warnings.warn(
                "mcmc: the reward's scores depend on the rest of the batch (here by up to "
                f"{most:.2g}), so the chains have no fixed target: leave out what does that, such "
                "as diversity",
                stacklevel=4,
            )

    def _walked(self, chains: Chains, prompts: Prompts, computed: int) -> Generated:
        examples, responder = prompts.examples, prompts.responder
        drawn: list[list[Sample]] = [[] for _ in examples]
        scores: list[list[float]] = [[] for _ in examples]
        for number in range(1, self.steps + 1):
            computed += chains.step()
            if number > self.burn_in and (number - self.burn_in - 1) % self.thin == 0:
                samples = responder.samples(chains.state, examples)
                for row, (each, score) in enumerate(zip(samples, chains.scores, strict=True)):
                    drawn[row].append(each)
                    scores[row].append(float(score))
        samples = responder.samples(chains.state, examples)
        return Generated(
            samples,
            chains.state.response_tokens,
            prompts.guide("mcmc").evaluate(samples, update=False),
            drawn,
            scores,
            {"acceptance_rate": chains.accepted},
            computed,
        )
