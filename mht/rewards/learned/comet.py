"""COMET, the learned metric of translation: comet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import field_validator

from mht.data.text.sample import Sample
from mht.data.text.truncation import end_note
from mht.rewards.base import Positive, reward
from mht.rewards.learned.model_reward import ModelReward
from mht.rewards.models.comet_model import CHECKPOINT, HPARAMS, comet_model, weights_of


@reward("comet")
class Comet(ModelReward):
    """A trained estimate of how good the response is as a translation of the prompt.

    COMET's regression metric, Rei et al. 2020 (arXiv:2009.09025). An XLM-R encoder reads prompt
    (the source), response (the translation) and target (the reference). A small network makes a
    number of their embeddings. Its scale depends on the checkpoint: about 0 to 1 for
    wmt22-comet-da, a z-score around 0 for those of 2020. The model is computed here on transformers
    from the official checkpoint: only its tensors are read, and none of its code runs.

    Attributes:
        model: a folder as `hf download Unbabel/wmt22-comet-da --local-dir ...` makes it, with
            hparams.yaml and checkpoints/model.ckpt (or model.safetensors beside it).
        encoder: folder or hub name that the encoder's config and tokenizer come from; null is the
            one that hparams.yaml names.
    """

    family: ClassVar[str] = "learned"
    needs: ClassVar[str] = "a target; a COMET checkpoint with a regression metric"
    range_note: ClassVar[str] = "about 0 to 1 for wmt22-comet-da"
    example: ClassVar[Mapping[str, Any] | None] = None

    encoder: str | None = None
    batch_size: Positive = 16

    @field_validator("model")
    @classmethod
    def _is_a_checkpoint(cls, model: str) -> str:
        folder = Path(model).expanduser()
        needed = {HPARAMS: folder / HPARAMS, CHECKPOINT: weights_of(folder)}
        missing = [name for name, file in needed.items() if not file.is_file()]
        if missing:
            raise ValueError(
                f"there is no {missing[0]} in that folder: "
                "`hf download Unbabel/wmt22-comet-da --local-dir models/comet` makes one"
            )
        return model

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """Source, translation, reference."""
        return sample.prompt, sample.response, sample.target

    def models(self) -> tuple[str, ...]:
        """The checkpoint's files, and the encoder where it is named here."""
        folder = Path(self.model).expanduser()
        files = (str(folder / HPARAMS), str(weights_of(folder)))
        return files if self.encoder is None else (*files, self.encoder)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The estimates."""
        model = comet_model(self.model, self.encoder, self.device)
        triples = [(s.prompt, s.response, s.target) for s in samples]
        for note in end_note([text for t in triples for text in t], model.tokenizer, model.limit):
            self.warn_once(note)
        return model.scores(triples, self.batch_size)
