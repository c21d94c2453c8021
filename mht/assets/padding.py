"""A padding token that ends no response, for a model and its tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mht.data.text.special import control_tokens, end_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NEW_PAD = "<|pad|>"


def set_pad(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give model and tokenizer a PAD that ends no response, in place.

    The tokens that end a response stay, even if the model's own PAD is one of them. The new PAD is
    a special token of the tokenizer that nothing else uses. Without one, ``<|pad|>`` is added with
    the mean of the embeddings, so that its logit is typical.
    """
    ends = end_ids(tokenizer, model.config.get_text_config(), model.generation_config)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in ends:
        spare = _spare_token(tokenizer, ends)
        if spare:
            tokenizer.pad_token = spare
        else:
            tokenizer.add_special_tokens({"pad_token": _new_pad(tokenizer)})
    _grow(model, tokenizer.pad_token_id + 1)
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id
        own = config.eos_token_id
        if tokenizer.eos_token_id not in (own if isinstance(own, list) else [own]):
            config.eos_token_id = tokenizer.eos_token_id


def _spare_token(tokenizer: PreTrainedTokenizerBase, ends: set[int]) -> str | None:
    used = control_tokens(tokenizer, ends)
    special = [t for _, t in sorted(tokenizer.added_tokens_decoder.items()) if t.special]
    spare = [t.content for t in special if t.content not in used]
    likely = [t for t in spare if any(word in t for word in ("pad", "unused", "reserved"))]
    content = set(map(str, tokenizer.extra_special_tokens or ()))  # such as <answer>
    return (likely or [t for t in spare[::-1] if t not in content] or [None])[0]


def _new_pad(tokenizer: PreTrainedTokenizerBase) -> str:
    taken = tokenizer.get_vocab()
    names = (NEW_PAD, *(f"<|pad_{number}|>" for number in range(1, len(taken) + 2)))
    return next(name for name in names if name not in taken)


def _grow(model: PreTrainedModel, size: int) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if size <= rows:
        return  # many models have more rows than their tokenizer has tokens
    model.resize_token_embeddings(size, mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        for weight in (layer.weight, getattr(layer, "bias", None)):
            if weight is not None:
                weight.data[rows:] = weight.data[:rows].mean(0)
