"""Makes fresh models: random weights from a seed, and a tokenizer of whole words."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.config.fresh import FreshModel
from mht.core.errors import ModelError
from mht.core.model_files.folder import MADE_BY
from mht.core.outputs import replaced_folder

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

PAD, EOS = "<pad>", "</s>"


def make_fresh(kind: FreshModel, texts: Iterable[str]) -> tuple[Any, PreTrainedTokenizerFast]:
    """A model in evaluation mode and its tokenizer; the same arguments give the same pair.

    Args:
        kind: the model's shape and the seed of its weights.
        texts: their words are the vocabulary.

    Raises:
        ModelError: the texts have no words.
    """
    tokenizer = word_tokenizer(texts)
    return draw_weights(kind, tokenizer), tokenizer


def draw_weights(kind: FreshModel, tokenizer: PreTrainedTokenizerFast) -> Any:
    """The model in evaluation mode, with the weights that follow from its seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(kind.seed)
        model = kind.build(_settings(kind, tokenizer))
    return model.eval()


def redraw(folder: Path, kind: FreshModel, out: Path) -> None:
    """Write the model of another seed beside that in ``folder``, with the same tokenizer.

    Args:
        folder: of a fresh model of this kind.
        kind: with the other seed.
        out: gets model and tokenizer.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.name_or_path = ""  # no path of this machine in an output
    for leftover in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(leftover, None)
    with replaced_folder(out) as part:
        draw_weights(kind, tokenizer).save_pretrained(part)
        tokenizer.save_pretrained(part)


def _settings(kind: FreshModel, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    from transformers import PretrainedConfig

    return PretrainedConfig(
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=kind.shape().context,
        **{MADE_BY: kind.model_dump(mode="json")},
    )


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with PAD 0, EOS 1 and one token for each word of the texts.

    Spaces separate words, and a token includes the space before its word. So a continuation decodes
    with its leading space. Encoding a word that is in no text fails with an error.

    Args:
        texts: in any order.

    Raises:
        ModelError: there is no word in them.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in texts for word in text.split()}, key=lambda w: (len(w), w))
    if not words:
        raise ModelError("model.name: a fresh model needs data with words in them")
    vocabulary = [PAD, EOS, *(f" {word}" for word in words)]
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.Strip(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Prepend(" "),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
