"""Responses of a step as the memory keeps them, and as later steps learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mht.core.records import Rollout
from mht.data.examples.example import Example
from mht.data.text.sample import Sample
from mht.memory import Attempt


def attempts_of(
    rows: Sequence[int],
    examples: Sequence[Example],
    rollout: Rollout,
    samples: Sequence[Sample],
    scores: Sequence[float],
    surprises: Sequence[float],
    step: int,
) -> list[Attempt]:
    """B attempts, one for each response of a rollout.

    Args:
        rows: B rows of the training data.
        examples: their examples.
        rollout: the responses, with the logprobs of the sampling.
        samples: the same as texts.
        scores: the reward's.
        surprises: B mean absolute advantages, before whitening; NaN where a step gives none.
        step: PPO steps made before.
    """
    assert rollout.logprobs is not None  # the trainer has sampled it
    lengths, ended = rollout.lengths.tolist(), rollout.ended.tolist()
    ids, logprobs = rollout.response_ids.tolist(), rollout.logprobs.tolist()
    return [
        Attempt(
            row=row,
            prompt=example.prompt,
            response=samples[i].response,
            target=example.target,
            prompt_ids=example.prompt_ids,
            response_ids=ids[i][: lengths[i]],
            logprobs=logprobs[i][: lengths[i]],
            ended=ended[i],
            score=float(scores[i]),
            loss=surprises[i],
            step=step,
        )
        for i, (row, example) in enumerate(zip(rows, examples, strict=True))
    ]


def as_examples(attempts: Sequence[Attempt], examples: Sequence[Example]) -> list[Example]:
    """The examples of some attempts with each response, token by token, as the target."""
    return [
        replace(example, target=attempt.response, target_ids=attempt.response_ids)
        for example, attempt in zip(examples, attempts, strict=True)
    ]
