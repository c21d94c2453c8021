"""The sections about data: what the policy and the reward model learn from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mht.core.bounds import Decay, NonNegative, Positive, Rate, Segmenter, Share, Weight
from mht.core.component import Chosen, Section

Source = Annotated[Any, Chosen("source")]


class SplitConfig(Section):
    """Shares of the texts, chosen by a hash of each text; the policy trains on what is left.

    Attributes:
        reward_model: for training the reward model, where it learns from the same source.
        validation: for choosing settings.
        test: for the numbers that are reported.
    """

    reward_model: Share = 0.4
    validation: Share = 0.05
    test: Share = 0.15

    @model_validator(mode="after")
    def _leave_something(self) -> SplitConfig:
        taken = self.reward_model + self.validation + self.test
        if taken >= 1:
            raise ValueError(f"the shares leave nothing to train the policy on (sum {taken:g})")
        return self


class DataConfig(Section):
    """What the policy learns from.

    Attributes:
        source: where the examples come from.
        labels: where the ratings, labels or preferences for the reward model come from.
        splits: how the texts are divided.
        prompt_words: for texts without a prompt of their own: how many of the first words are the
            prompt; the rest is the target.
        segmenter: what a word is in scripts without spaces, such as Chinese and Thai. It is each
            character ("characters"), a word of ICU's dictionaries ("icu", needs the package
            icu4py), or the text between spaces ("spaces").
        min_target_words: texts that leave a shorter target are dropped.
        duplicates: "drop" leaves the first of equal texts. "keep" leaves all, for data in which
            the number of occurrences matters. Either way equal texts are in the same split.
        max_prompt_tokens: a longer prompt is an error, unless ``long_prompts`` says otherwise.
        long_prompts: "error", "drop", or "truncate" (drops the oldest turns, then the beginning of
            the last).
        max_target_tokens: longer targets are cut and then carry no EOS.
    """

    source: Source
    labels: Source | None = None
    splits: SplitConfig = SplitConfig()
    prompt_words: Positive = 5
    segmenter: Segmenter = "characters"
    min_target_words: Positive = 3
    duplicates: Literal["drop", "keep"] = "drop"
    max_prompt_tokens: Positive = 256
    long_prompts: Literal["error", "drop", "truncate"] = "error"
    max_target_tokens: Positive = 48


class RewardModelConfig(Section):
    """The classifier trained on what people judged, used as a reward and as a judge.

    What ``data.labels`` holds decides: of ratings it learns negative and positive, of labels their
    classes, of two answers to a prompt, one preferred, a score.

    Attributes:
        encoder: a bundled encoder ("all-MiniLM-L6-v2"), a hub name or a folder; a causal LM too.
            Without one (null), nothing may read data/raw/encoder.
        epochs: passes over the texts or pairs.
        batch_size: texts or pairs per optimiser step.
        lr: peak learning rate; linear warm-up over the first tenth, then linear decay.
        num_layers_unfrozen: how many of the encoder's top layers train with the head, or "all".
        neutral: texts rated within +- this of 0 are left out of training and accuracy.
        max_tokens: longer texts are cut at their ends; of a pair the end of the prompt is read, and
            the whole answer.
        holdout: share of the texts or pairs kept for its own accuracy and calibration.
        text: what is read of an answer in a pair: "response", "full" (prompt + answer), "pair"
            (two segments) or "chat" (in the encoder's chat template). The type ``reward_model``
            has the same option, which must have the same value.
        margin: by how much the better answer's score should lead.
        centering: weight of a penalty that keeps the scores of pairs around 0.
        judge_share: share of the texts or pairs that this model does not see. They train a second
            model of the same kind, models/reward_model/judge, for ``evaluate.judges``. 0 trains
            none.
    """

    encoder: str | None = "all-MiniLM-L6-v2"
    epochs: Positive = 2
    batch_size: Positive = 32
    lr: Rate = 5e-5
    num_layers_unfrozen: NonNegative | Literal["all"] = "all"
    neutral: Weight = 0.5
    max_tokens: Positive = 64
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.1
    text: Literal["response", "full", "pair", "chat"] = "pair"
    margin: Weight = 0.0
    centering: Weight = 0.0
    judge_share: Decay = 0.0
