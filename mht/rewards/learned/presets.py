"""What a classifier reward is usually for: a model, a label and a direction under a short name.

Some defaults name a revision (``@refs/pr/1``): the pull request in which the hub converted the
authors' weights to safetensors. No other format is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from mht.core.errors import ModelError
from mht.rewards.base import reward
from mht.rewards.learned.classifier import LabelReward, Names, Spellings
from mht.rewards.models.detoxify_model import cached_file, checkpoint_of, detoxify_model
from mht.rewards.models.sequence_classifier import Classifier


@reward("classifier")
class AnyClassifier(LabelReward):
    """Probability of a label, as any sequence classifier sees it in the text."""

    example: ClassVar[Mapping[str, Any]] = {"model": "models/reward_model", "target": "positive"}


@reward("sentiment")
class Sentiment(LabelReward):
    """Probability that the text has the target sentiment.

    Any sentiment classifier does; the default was trained on film reviews (SST-2, Socher et al.
    2013, D13-1170).
    """

    example: ClassVar[Mapping[str, Any]] = {"model": "models/reward_model"}
    better: ClassVar[Literal["high", "low", "either"]] = "high"
    unnamed: ClassVar[Mapping[str, Spellings]] = {
        "cardiffnlp/twitter-roberta-base-sentiment": ("negative", "neutral", "positive")
    }

    model: str = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
    target: str | Names = "positive"


@reward("emotion")
class Emotion(LabelReward):
    """Probability that the text has the target emotion.

    The default has labels for neutral and the 27 emotions of GoEmotions (Demszky et al. 2020,
    arXiv:2005.00547), any number at once:

    - admiration, amusement, anger, annoyance, approval, caring, confusion, curiosity, desire
    - disappointment, disapproval, disgust, embarrassment, excitement, fear, gratitude, grief, joy
    - love, nervousness, optimism, pride, realization, relief, remorse, sadness, surprise
    """

    needs: ClassVar[str] = "an emotion classifier"
    spellings: ClassVar[tuple[Spellings, ...]] = (("joy", "happiness", "happy"),)

    model: str = "SamLowe/roberta-base-go_emotions"
    target: str | Names = "joy"


@reward("sarcasm")
class Sarcasm(LabelReward):
    """Probability that the text is ironic or sarcastic.

    The default was trained on tweets (TweetEval, Barbieri et al. 2020, arXiv:2010.12421).
    """

    needs: ClassVar[str] = "an irony or sarcasm classifier"
    spellings: ClassVar[tuple[Spellings, ...]] = (
        ("sarcasm", "irony", "sarcastic", "ironic"),
        ("non_irony", "not_irony", "non_sarcasm", "not_sarcastic"),
    )
    unnamed: ClassVar[Mapping[str, Spellings]] = {
        "helinivan/english-sarcasm-detector": ("not_sarcastic", "sarcastic")
    }

    model: str = "cardiffnlp/twitter-roberta-base-irony@refs/pr/1"
    target: str | Names = "irony"


@reward("formality")
class Formality(LabelReward):
    """Probability that the text is formal; ``target: informal`` for the other end.

    The default was trained on GYAFC (Rao & Tetreault 2018, arXiv:1803.06535).
    """

    needs: ClassVar[str] = "a formality classifier"
    better: ClassVar[Literal["high", "low", "either"]] = "high"

    model: str = "s-nlp/roberta-base-formality-ranker"
    target: str | Names = "formal"


class Harm(LabelReward):
    """Probability of something that the text should not have; low is better: set ``invert``."""

    family: ClassVar[str] = "safety"
    better: ClassVar[Literal["high", "low", "either"]] = "low"
    range_note: ClassVar[str] = "0 or 1 with scale: false; invert: true gives 1 - p"


@reward("toxicity", "detoxify")
class Toxicity(Harm):
    """Probability that the text is toxic; low is better: ``invert: true`` gives 1 - p.

    ``model`` is a folder, a hub name, or a short name of one of Detoxify's checkpoints
    (github.com/unitaryai/detoxify):

    - original: toxic, severe_toxic, obscene, threat, insult, identity_hate
    - unbiased: toxicity, severe_toxicity, obscene, identity_attack, insult, threat,
      sexual_explicit, and nine groups of people that a text is about
    - multilingual: toxic; with the package, the labels of unbiased

    Each label is a probability of its own. Detoxify's names work with all of them.

    Detoxify's own checkpoints run through its package: a .ckpt file, a folder with one, or a short
    name whose file is in torch hub's cache. Anything else is loaded by transformers, a short name
    as the same weights from the hub.
    """

    needs: ClassVar[str] = "a toxicity classifier"
    checkpoints: ClassVar[Mapping[str, str]] = {
        "original": "unitary/toxic-bert",
        "unbiased": "unitary/unbiased-toxic-roberta@refs/pr/2",
        "multilingual": "unitary/multilingual-toxic-xlm-roberta@refs/pr/1",
    }
    spellings: ClassVar[tuple[Spellings, ...]] = (
        ("toxicity", "toxic"),
        ("severe_toxicity", "severe_toxic"),
        ("identity_attack", "identity_hate"),
    )
    unnamed: ClassVar[Mapping[str, Spellings]] = {
        "Xuhui/ToxDect-roberta-large": ("neutral", "toxic")
    }

    model: str = "original"
    target: str | Names = "toxicity"

    def models(self) -> tuple[str, ...]:
        """The checkpoint, with config and tokenizer where they are beside it; or the classifier."""
        file = checkpoint_of(self.model)
        if file is None:
            return super().models()
        return (str(file.parent if (file.parent / "config.json").is_file() else file),)

    def classifier(self) -> Classifier:
        """Detoxify's model where its checkpoint is present, else transformers' classifier."""
        file = checkpoint_of(self.model)
        if file is not None:
            return detoxify_model(file, self.device, self.checkpoints.values())
        try:
            return super().classifier()
        except ModelError as error:
            cached = cached_file(self.model)
            if cached is None:
                raise
            raise ModelError(f"{error}; or put Detoxify's checkpoint at {cached}") from error


@reward("hate_speech")
class HateSpeech(Harm):
    """Probability that the text is hate speech; low is better: ``invert: true`` gives 1 - p.

    The default was trained on four rounds of adversarial examples (Vidgen et al. 2021,
    arXiv:2012.15761).
    """

    needs: ClassVar[str] = "a hate speech classifier"
    spellings: ClassVar[tuple[Spellings, ...]] = (
        ("hate", "hate_speech", "hateful", "hatespeech"),
        ("nothate", "not_hate", "non_hate"),
    )
    unnamed: ClassVar[Mapping[str, Spellings]] = {
        "cardiffnlp/twitter-roberta-base-hate": ("not_hate", "hate")
    }

    model: str = "facebook/roberta-hate-speech-dynabench-r4-target"
    target: str | Names = "hate"


@reward("offensiveness")
class Offensiveness(Harm):
    """Probability that the text is offensive; low is better: ``invert: true`` gives 1 - p.

    The default was trained on tweets (TweetEval, Barbieri et al. 2020, arXiv:2010.12421).
    """

    needs: ClassVar[str] = "an offensive language classifier"
    spellings: ClassVar[tuple[Spellings, ...]] = (
        ("offensive", "offensiveness", "off"),
        ("non_offensive", "not_offensive", "not"),
    )

    model: str = "cardiffnlp/twitter-roberta-base-offensive@refs/pr/1"
    target: str | Names = "offensive"


@reward("bias")
class Bias(Harm):
    """Probability that the text is biased; low is better: ``invert: true`` gives 1 - p.

    The default was trained on sentences that Wikipedia's editors made neutral; it sees slanted
    wording, not unfairness to a group.
    """

    needs: ClassVar[str] = "a bias classifier"
    spellings: ClassVar[tuple[Spellings, ...]] = (
        ("biased", "bias"),
        ("neutral", "non_biased", "unbiased", "not_biased"),
    )

    model: str = "valurank/distilroberta-bias@refs/pr/2"
    target: str | Names = "biased"
