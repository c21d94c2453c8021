"""Best-of-n: of several responses to a prompt, the one that the reward likes best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mht.core.errors import UserError
from mht.core.records import Scored
from mht.generation.decoding.base import Generated, Prompts
from mht.generation.sampling.seeds import RowSeeds, copies


def kl_bound(n: int) -> float:
    """Nats: what the KL of best-of-n to the sampling model is at most, ``log n - (n - 1) / n``.

    Stiennon et al. 2020, arXiv:2009.01325, state it as the value. Beirami et al. 2024,
    arXiv:2401.01879, show that it is an upper bound, loose where n is large beside the number of
    likely responses.

    >>> kl_bound(1), round(kl_bound(4), 4)
    (0.0, 0.6363)
    """
    return math.log(n) - (n - 1) / n


@dataclass(frozen=True)
class BestOfN:
    """The best of n sampled responses by the reward; the first one of equals.

    The first of the n is what `Sampling` draws with the same seed, so the score never falls as n
    grows. A reward whose scores depend on the batch (diversity, whiten) sees all n responses to all
    prompts of the batch at once.

    Attributes:
        n: responses for each prompt.
    """

    n: int = 8

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"best-of-n: n should be at least 1, got {self.n}")

    def run(self, prompts: Prompts) -> Generated:
        """See `Strategy.run`; ``drawn`` has all n, ``kl_bound_nats`` is `kl_bound`."""
        reward, responder = prompts.guide("best-of-n"), prompts.responder
        repeated = [example for example in prompts.examples for _ in range(self.n)]
        numbers = RowSeeds(copies(prompts.seeds, self.n), responder.model.device)
        rollout = responder.respond(repeated, numbers)
        samples, tokens = responder.samples(rollout, repeated), rollout.response_tokens
        scored = reward.evaluate(samples, update=False)
        groups = [range(start, start + self.n) for start in range(0, len(repeated), self.n)]
        best = [max(group, key=scored.score.__getitem__) for group in groups]
        return Generated(
            samples=[samples[i] for i in best],
            tokens=[tokens[i] for i in best],
            scored=_rows(scored, best),
            drawn=[[samples[i] for i in group] for group in groups],
            drawn_scores=[[scored.score[i] for i in group] for group in groups],
            figures={"kl_bound_nats": kl_bound(self.n)},
            computed_tokens=int(rollout.lengths.sum()),
        )


def _rows(scored: Scored, rows: Sequence[int]) -> Scored:
    components = {name: [values[i] for i in rows] for name, values in scored.components.items()}
    return Scored([scored.score[i] for i in rows], components)
