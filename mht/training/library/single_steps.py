"""The trainer's single steps, for a user's own loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mht.algorithms.batch import Batch, Examples, Rollouts, Stats
from mht.core.errors import DataError
from mht.core.keywords import explain_keywords
from mht.core.records import Rollout
from mht.data.examples.example import IGNORED, Example, collate_prompts, collate_sft
from mht.generation.sampling.padding import left_padded
from mht.models.readers import policy_model
from mht.training.library import batches

if TYPE_CHECKING:
    from mht.algorithms.ppo.step import PPO
    from mht.algorithms.sft import SFT
    from mht.data.given.train_data import TrainData
    from mht.devices.base import Devices
    from mht.generation.sampling.rollout import Responder
    from mht.models.policy import Policy

PROMPTS = {
    "input_ids": "queries query_tensors prompt_ids prompts inputs ids",
    "attention_mask": "mask prompt_mask",
}
RESPONSES = {
    "response_ids": "responses response_tensors completion_ids completions",
    "response_mask": "response_masks completion_mask",
    "rewards": "scores reward",
    "items": "item",
}


class SingleSteps:
    """SFT steps, responses and PPO steps on batches of any size, padded on either side.

    Attributes:
        policy: what trains.
        responder: draws from it.
        devices: where its passes run.
    """

    policy: Policy
    responder: Responder
    devices: Devices
    sft: SFT
    ppo: PPO
    generator: torch.Generator
    reader: TrainData
    _drawn: tuple[Tensor, Rollout] | None = None  # as given out, and what is known of it

    @explain_keywords("sft_step", batch="inputs data")
    def sft_step(self, batch: Mapping[str, Any]) -> float:
        """One SFT step.

        Args:
            batch: (B, T) ``input_ids``, ``labels`` (-100 = not trained on) and
                ``attention_mask`` (1 = a real token), as tensors or lists. Without the mask the
                runs of PAD at a row's ends are padding. Padding has no label. Other keys are not
                read.

        Returns:
            The loss before the step, nats per token.

        Raises:
            DataError: the batch lacks something, does not fit, or has nothing to learn.
        """
        given = Batch(Examples(batches.sft_batch(batch, **self._tokens)))
        return self.sft.step(given).stats["loss"]

    @explain_keywords("respond_to_batch", **PROMPTS)
    def respond_to_batch(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Sample one response for each prompt: each row is continued behind its last real token.

        Args:
            input_ids: (B, P) int64 prompts, padded on either side; `prompts_of` takes them out of
                an SFT batch, whose own rows hold the targets too.
            attention_mask: (B, P), 1 = a real token; None takes the runs of PAD at a row's ends as
                padding.

        Returns:
            (B, R) int64, right-padded with PAD, EOS included.

        Raises:
            DataError: a prompt is empty, or too long for the model.
        """
        prompts = batches.prompts(input_ids, attention_mask, **self._tokens)
        rollout = self.devices.draw(self.responder, *prompts, self.generator)
        response_ids = rollout.response_ids.clone()
        self._drawn = response_ids, rollout
        return response_ids

    @explain_keywords("ppo_step", **PROMPTS, **RESPONSES)
    def ppo_step(
        self,
        input_ids: Tensor,
        response_ids: Tensor,
        rewards: Sequence[float] | Tensor,
        attention_mask: Tensor | None = None,
        items: Sequence[Mapping[str, Any]] | None = None,
        response_mask: Tensor | None = None,
    ) -> Stats:
        """One PPO step on given responses.

        The tensor that the last `respond_to_batch` gave comes with the log-probabilities that it
        was sampled with. For any other, or once it was changed, those of the policy as it stands
        are computed.

        Args:
            input_ids: (B, P) int64 prompts, padded on either side.
            response_ids: (B, R) int64 responses to them, right-padded; what follows a row's first
                EOS is padding.
            rewards: B scores, one per response.
            attention_mask: (B, P) of the prompts, 1 = a real token; None takes the runs of PAD at a
                row's ends as padding.
            items: each prompt's row of the data, for references with a ``where``.
            response_mask: (B, R), 1 = a real token; None takes the PAD that a row ends with as
                padding.

        Returns:
            The step's figures, keys ``group/name``.

        Raises:
            DataError: prompts and responses do not fit each other or the model.
            RewardError: the rewards are not one finite number for each response.
        """
        rollout = self._rollout(input_ids, response_ids, attention_mask, response_mask)
        self._drawn = None
        scores = batches.scores(rewards, len(rollout))
        given = Batch(rollouts=Rollouts(rollout, lambda: scores, items))
        return self.ppo.step(given).stats

    def collate(self, rows: Sequence[Any]) -> dict[str, Any]:
        """A batch of rows of any form that ``train_data`` may have: a DataLoader's ``collate_fn``.

        Args:
            rows: dicts or prepared examples.

        Returns:
            ``input_ids``, ``attention_mask`` and ``labels`` (B, T) for `sft_step`. ``prompt_ids``
            and ``prompt_mask`` (B, P) for `respond_to_batch` and `ppo_step`. The lists ``prompt``,
            ``target`` and ``item`` for a reward.

        Raises:
            DataError: a row is not what it should be.
        """
        examples = self.reader.read(list(rows), "rows")
        prompt_ids, prompt_mask = collate_prompts(examples, self.responder.pad_id)
        return {
            **collate_sft(examples, self.responder.pad_id),
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask.long(),
            "prompt": [example.prompt for example in examples],
            "target": [example.target for example in examples],
            "item": [example.item for example in examples],
        }

    def prompts_of(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The prompts of an SFT batch: the tokens before each row's first label.

        Args:
            batch: as `sft_step` takes it.

        Returns:
            ``input_ids`` (B, P) int64, left-padded, and ``attention_mask`` (B, P) int64, for
            `respond_to_batch` and `ppo_step`.
        """
        tensors = batches.sft_batch(batch, **self._tokens)
        learnt = (tensors["labels"] != IGNORED).int()
        mask = tensors["attention_mask"].bool() & (learnt.cumsum(1) == 0)
        ids, mask = left_padded(tensors["input_ids"], mask, self.responder.pad_id)
        start = int(mask.any(0).int().argmax())
        return ids[:, start:], mask[:, start:].long()

    def decode_responses(
        self,
        input_ids: Tensor,
        response_ids: Tensor,
        attention_mask: Tensor | None = None,
        response_mask: Tensor | None = None,
    ) -> list[str]:
        """The texts of responses as rewards read them in `train`; arguments as of `ppo_step`."""
        rollout = self._rollout(input_ids, response_ids, attention_mask, response_mask)
        unknown = [Example("", "", "", [], [])] * len(rollout)
        return [sample.response for sample in self.responder.samples(rollout, unknown)]

    @property
    def _tokens(self) -> dict[str, int]:
        vocabulary = policy_model(self.policy.model).vocabulary
        return {"pad_id": self.responder.pad_id, "vocabulary": vocabulary}

    def _rollout(
        self, input_ids: Any, response_ids: Any, attention_mask: Any, response_mask: Any
    ) -> Rollout:
        """The rollout of given ids: the one that was drawn, where they are still its own."""
        ids, mask = batches.prompts(input_ids, attention_mask, **self._tokens)
        responses, real = batches.responses(response_ids, response_mask, **self._tokens)
        if len(ids) != len(responses):
            raise DataError(f"response_ids: {len(responses)} responses to {len(ids)} prompts")
        rollout = self.responder.rebuild(ids, responses, mask, real)
        if self._drawn is None or self._drawn[0] is not response_ids:
            return rollout
        drawn = self._drawn[1]
        same = torch.equal(drawn.response_ids, self._drawn[0])  # it can be written to
        return drawn if same and _same_prompts(drawn, rollout) else rollout


def _same_prompts(a: Rollout, b: Rollout) -> bool:
    return torch.equal(a.prompt_mask, b.prompt_mask) and torch.equal(
        a.prompt_ids.masked_fill(~a.prompt_mask, 0), b.prompt_ids.masked_fill(~b.prompt_mask, 0)
    )
