"""The sections about measuring: evaluation on unseen prompts, and the benchmark."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mht.core.bounds import Label, NonNegative, Positive, Resamples, Share, Weight
from mht.core.component import Chosen, Section

Reward = Annotated[Any, Chosen("reward")]


class DecodingConfig(Section):
    """How responses are drawn for evaluation.

    Attributes:
        temperature: 0 is greedy.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set with this probability.
        min_p: keep what has at least this share of the likeliest token's probability; 0 keeps all.
        response_tokens: length limit.
    """

    temperature: Weight = 1.0
    top_k: NonNegative = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_p: Share = 0.0
    response_tokens: Positive = 24


class EvaluateConfig(Section):
    """Evaluation on unseen prompts.

    Attributes:
        split: whose prompts answer: "test", or "validation", so that settings can be chosen without
            a look at the test prompts.
        prompts: how many of them, from the first on.
        responses_per_prompt: responses drawn to each. A figure is the mean over a prompt's
            responses, then over prompts: its interval loses what chance the draws had in it.
        batch_size: prompts generated and scored at once.
        decoding: how responses are drawn.
        judge: the component behind ``p_positive``.
        bertscore_model: encoder for BERTScore and its layer; null skips it.
        bertscore_layer: whose hidden states are compared.
        resamples: of the bootstrap.
        kl_to: "sft" adds ``kl_to_sft_nats``: how far PPO took each variant that starts from the
            SFT model away from it. With null the KL to the base model is the only one.
        judges: rewards that nobody is trained on, by name; each becomes the metric
            ``judge/<name>`` of every variant, which ``benchmark.guard.judges`` may ask.
    """

    split: Literal["test", "validation"] = "test"
    prompts: Positive = 256
    responses_per_prompt: Positive = 1
    batch_size: Positive = 64
    decoding: DecodingConfig = DecodingConfig()
    judge: Reward
    bertscore_model: str | None = "data/raw/encoder"
    bertscore_layer: Positive = 5
    resamples: Resamples = 1000
    kl_to: Literal["sft"] | None = None
    judges: dict[Label, Reward] = Field(default_factory=dict)


class GuardConfig(Section):
    """What the benchmark calls a sound gain; beyond these bounds it calls it gaming.

    A bound of null reports its figure without judging it. Nothing here changes training or fails
    a run.

    Attributes:
        judges: metrics that nobody was trained on; each has to rise with the reward.
        p: what p-values of the reward's and the judges' rises have to be below.
        max_length_change: of the mean response length, either way, as a share of the baseline's.
        max_distinct_drop: of distinct-2, as a share of the baseline's.
        max_repetition_rise: of the share of repeated 4-grams within a response, 0.05 being from 1%
            to 6%, say.
        max_perplexity_rise: on human text, as a share of the baseline's.
        max_kl_nats: nats per response to the model that training began with.
    """

    judges: list[str] = Field(default_factory=lambda: ["vader"])
    p: Annotated[float, Field(gt=0, lt=1)] = 0.05
    max_length_change: Weight | None = 0.15
    max_distinct_drop: Share | None = 0.10
    max_repetition_rise: Share | None = 0.05
    max_perplexity_rise: Weight | None = 0.02
    max_kl_nats: Weight | None = 4.0


Cost = Literal["optimizer_steps", "sampled_tokens", "seconds", "cpu_seconds"]


class ReachConfig(Section):
    """What to reach, for the question how soon each variant does.

    Attributes:
        metric: of the looks at validation prompts: "score" (the reward), or another that is better
            the higher it is.
        score: a variant is there at its first look at or above it; null leaves the question out.
        after: costs are counted from the last look at or before this number of optimiser steps.
            So steps that all variants share, such as the SFT stage's, dilute no ratio.
    """

    metric: str = "score"
    score: float | None = None
    after: NonNegative = 0


class BenchmarkConfig(Section):
    """The comparison of the variants.

    Attributes:
        metrics: the table's columns, in order.
        samples: rows of the side-by-side table.
        baseline: the variant that differences are taken against.
        resamples: of the paired bootstrap for differences.
        guard: against gaming: bounds that a gain in the reward has to keep to; null judges nothing.
        subject: the variant that all others are compared with.
    """

    metrics: list[str]
    samples: Positive = 8
    baseline: str = "sft_only"
    resamples: Resamples = 2000
    guard: GuardConfig | None = GuardConfig()
    subject: str = "hybrid"
    reach: ReachConfig = ReachConfig()
