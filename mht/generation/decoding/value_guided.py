"""Value-guided decoding: PPO's value head looks one token ahead and reweights the candidates."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mht.core.errors import ModelError, UserError
from mht.core.records import Rollout
from mht.generation.decoding.base import Generated, Prompts
from mht.generation.sampling.decode import Steps
from mht.generation.sampling.draw import draw, truncate_logits
from mht.generation.sampling.seeds import RowSeeds
from mht.models.base import Decoding, Seen
from mht.models.readers import policy_model
from mht.models.value.critics import make_critic
from mht.models.value.files import VALUE_HEAD_FILE, load_value_head, stored_value_head
from mht.models.value.heads import LinearHead


def read_value_head(model: nn.Module, folder: str | Path) -> LinearHead:
    """The value head that PPO has saved beside a model.

    Args:
        model: the model of that folder.
        folder: such as models/hybrid.

    Raises:
        ModelError: there is none, it was never trained, or it is a branch, which reads whole texts
            and not the cache.
    """
    file = Path(folder) / VALUE_HEAD_FILE
    if not file.is_file():
        raise ModelError(f"{folder}: no {VALUE_HEAD_FILE}: value-guided decoding needs PPO's")
    kind, state = stored_value_head(file)
    if kind["type"] not in ("linear", "mlp"):
        raise ModelError(
            f"{file}: a value head of type {kind['type']} can't look ahead token by token; train "
            "with ppo.value_head.type linear or mlp"
        )
    spec: dict[str, Any] = {"type": kind["type"]}
    inner = state.get("inner.weight")
    if kind["type"] == "mlp" and inner is not None:
        spec |= {"activation": kind["activation"], "hidden_size": len(inner)}
    critic = make_critic(spec)
    head = critic.head(model, model, frozen=0).to(model.device)
    if not load_value_head(head, critic, folder):
        raise ModelError(f"{file}: does not fit the model beside it")
    if not head.weight.any():
        raise ModelError(f"{file}: says 0 of every state: no PPO step has trained it")
    return head.requires_grad_(False)


def _tried(texts: Decoding, candidates: Tensor) -> Seen:
    """Read each of (n, k) tokens behind its text, which makes n * k texts of n."""
    rows, count = candidates.shape
    texts.select(torch.arange(rows, device=candidates.device).repeat_interleave(count))
    return texts.step(candidates.reshape(-1, 1))


@torch.no_grad()
def guided_sample(
    model: nn.Module,
    head: LinearHead,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    *,
    beta: float,
    candidates: int,
    response_tokens: int,
    eos_ids: Collection[int],
    pad_id: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    generator: RowSeeds,
) -> tuple[Rollout, Tensor]:
    """Responses drawn token by token from ``softmax(log p + beta * V)`` over the likeliest tokens.

    V is the value of the state that a token leads to. An EOS, and the last token within the length
    limit, lead to no state that PPO has ever valued. They get the value of the state before, so
    that guidance neither seeks nor avoids the end.

    Args:
        model: the policy.
        head: its value head.
        prompt_ids: (B, P) int64, left-padded.
        prompt_mask: (B, P) bool, True = a real token.
        beta: how much a unit of value counts, in nats.
        candidates: how many of the likeliest tokens are looked at.
        response_tokens: the length limit.
        eos_ids: tokens that end a response.
        pad_id: fills the responses on the right.
        temperature: of p; 0 takes the best candidate, with p at temperature 1.
        top_k: see `mht.generation.sampling.draw.truncate_logits`; so are the next two.
        top_p: of p.
        min_p: of p.
        generator: a stream for each row.

    Returns:
        The rollout, whose logprobs are those of p before truncation. And (B, R) log-probabilities
        of its tokens under the distribution that they were drawn from, 0 at padding.
    """
    batch, device = len(prompt_ids), prompt_ids.device
    lengths = torch.zeros(batch, dtype=torch.long, device=device)
    ended = torch.zeros(batch, dtype=torch.bool, device=device)
    eos = torch.tensor(sorted(eos_ids), dtype=torch.long, device=device)
    ids, base, guided = Steps(batch, fill=pad_id), Steps(batch), Steps(batch)
    rows, reader = torch.arange(batch, device=device), policy_model(model)
    texts = reader.start(prompt_ids.shape[1] + response_tokens)
    with reader.inference():
        seen = texts.step(prompt_ids, prompt_mask)
        for step in range(response_tokens):
            last = step == response_tokens - 1
            logprobs = (seen.logits.float() / (temperature or 1.0)).log_softmax(-1)
            shaped = truncate_logits(logprobs, top_k=top_k, top_p=top_p, min_p=min_p)
            likeliest, options = shaped.topk(min(candidates, shaped.shape[1]))
            values = head(seen.hidden).expand(options.shape)
            if not last:
                seen = _tried(texts, options)
                ends = torch.isin(options, eos)
                values = torch.where(ends, values, head(seen.hidden).view(options.shape))
            drawn = draw(
                likeliest + beta * values,
                temperature=1.0 if temperature else 0.0,
                generator=generator.of(rows),
            )
            tokens = options.gather(1, drawn.tokens[:, None])
            ids.add(rows, tokens)
            base.add(rows, logprobs.gather(1, tokens))
            guided.add(rows, drawn.logprobs[:, None])
            lengths[rows] += 1
            done = torch.isin(tokens[:, 0], eos)
            ended[rows[done]] = True
            if last or done.all():
                break
            chosen = torch.arange(len(rows), device=device) * options.shape[1] + drawn.tokens
            texts.select(chosen[~done])
            seen, rows = seen.rows(chosen[~done]), rows[~done]
    mask = torch.arange(int(lengths.max()), device=device)[None] < lengths[:, None]
    rollout = Rollout(prompt_ids, prompt_mask, ids.all(), mask, ended, logprobs=base.all())
    return rollout, guided.all()


@dataclass(frozen=True)
class ValueGuided:
    """Sampling from ``softmax(log p + beta * V(next state))`` over the k likeliest tokens.

    The MDP view of decoding (Mudgal et al. 2023, controlled decoding, arXiv:2310.17022), with the
    value model that PPO leaves behind. Liu et al. 2023, arXiv:2309.15028, search a tree with it
    instead of looking one token ahead. With the values of p itself, and beta = 1 / kl_coef, it is
    one step of improvement towards the policy that PPO's KL-penalised objective asks for.

    Attributes:
        head: see `read_value_head`.
        beta: how much a unit of value counts; 0 is sampling among the candidates.
        candidates: tokens looked at in each step; the work per token grows with it.
    """

    head: LinearHead
    beta: float = 1.0
    candidates: int = 8

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise UserError(f"value-guided: candidates should be at least 1, got {self.candidates}")

    def run(self, prompts: Prompts) -> Generated:
        """See `Strategy.run`; ``kl_nats`` is the log ratio to p, summed over the response (k1)."""
        responder = prompts.responder
        rollout, guided = guided_sample(
            responder.model,
            self.head,
            *prompts.batch(),
            beta=self.beta,
            candidates=self.candidates,
            eos_ids=responder.eos_ids,
            pad_id=responder.pad_id,
            generator=prompts.numbers(),
            **responder.decoding,
        )
        assert rollout.logprobs is not None
        ratios = ((guided - rollout.logprobs) * rollout.response_mask).sum(1)
        return Generated(
            responder.samples(rollout, prompts.examples),
            rollout.response_tokens,
            figures={"kl_nats": float(ratios.mean())},
            computed_tokens=int(rollout.lengths.sum()) * self.candidates,
        )
