"""How much of a text a model reads: its limit in tokens, and what is left out of a longer text."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from mht.core.errors import ModelError
from mht.data.text.sample import Sample

Text = str | tuple[str, str]  # one text, or two segments
TABLES = {
    "embed_positions", "position_embedding", "position_embeddings", "positions_embed", "wpe",
}  # fmt: skip
RELATIVE = {"rel_embeddings", "relative_attention_bias"}
OTHER_INPUT = re.compile(r"vision|visual|image|audio|speech")
STATED = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx")
MOST_TOKENS = 8192  # of a text, for models without a limit of their own
UNSTATED = 1_000_000  # from here on, a tokenizer's model_max_length stands for "not known"


def token_limit(model: Any, tokenizer: Any) -> int | None:
    """The most tokens of a text, special ones included, that the model takes; None is any number.

    The smallest of what the position embeddings have room for, the config and the tokenizer say.
    A tokenizer that states no limit, or a wrong and larger one, does not raise it.
    """
    stated = getattr(tokenizer, "model_max_length", None)
    limits = [_positions(model), stated if stated and 0 < stated < UNSTATED else None]
    return min((limit for limit in limits if limit), default=None)


def _positions(model: Any) -> int | None:
    """The positions of a model's text; None where they are relative, or nothing states them."""
    tables, relative = [], False
    for name, module in model.named_modules():
        if OTHER_INPUT.search(name):
            continue
        last = name.rpartition(".")[2]
        relative |= last in RELATIVE
        rows = getattr(module, "weight", None)
        if last in TABLES and rows is not None and rows.ndim == 2:
            tables.append(len(rows) - _first_position(module))
    return None if relative and not tables else min([*tables, *_stated(model.config)], default=None)


def _first_position(table: Any) -> int:
    """The row of a text's first token: BART's tables have an offset, RoBERTa's follow padding."""
    offset = getattr(table, "offset", None)
    if isinstance(offset, int):
        return offset
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else padding + 1


def _stated(config: Any) -> Iterator[int]:
    """What a config, and those of the parts that read and write text, say of positions."""
    parts = [config, *(getattr(config, part, None) for part in ("text_config", "encoder"))]
    for part in parts:
        found = [getattr(part, key, None) for key in STATED]
        yield from (n for n in found if isinstance(n, int) and n > 0)


def valid_unicode(text: str) -> str:
    """The text with a question mark for each lone surrogate, which tokenizers do not take."""
    return text.encode("utf-8", "replace").decode()


class Fitted(NamedTuple):
    """Texts as a model reads them.

    Attributes:
        texts: one for each sample.
        note: what is left out of those that are too long; "" where all are whole.
    """

    texts: list[Text]
    note: str


def fitted(samples: Sequence[Sample], text: str, tokenizer: Any, limit: int) -> Fitted:
    """What a model reads of each sample, in ``limit`` tokens at most.

    The response comes first: it is whole, and before it stands the end of the prompt, as much as
    there is room for. Only a response that is too long by itself is cut: its beginning is read.
    With "response" that is left to the tokenizer.

    Args:
        samples: prompts and responses.
        text: "response", "full", "pair" or "chat"; see `Sample.as_read`.
        tokenizer: the model's.
        limit: of a text or pair, special tokens included.

    Raises:
        ModelError: there is no room for a single token of the response.
    """
    texts = [_read(sample, text, tokenizer) for sample in samples]
    long = [i for i, n in enumerate(token_counts(texts, tokenizer)) if n > limit]
    for i in long if text != "response" else ():
        texts[i] = _fit(samples[i], text, tokenizer, limit)
    return Fitted(texts, cut_note(limit) if long else "")


def cut_note(limit: int) -> str:
    """What is read of a text that is too long, in one sentence."""
    return (
        f"a text is longer than the {limit} tokens that the model reads: it reads the end of the "
        "prompt and the whole response, or the beginning of a response that is too long by itself"
    )


def end_note(
    texts: Sequence[Text], tokenizer: Any, limit: int, what: str = "a text is"
) -> Iterator[str]:
    """One sentence where one of the texts or pairs is too long for a model that leaves out ends."""
    if max(token_counts([valid_text(text) for text in texts], tokenizer), default=0) > limit:
        yield f"{what} longer than the {limit} tokens that the model reads: the end is left out"


def ending(text: str, tokenizer: Any, limit: int) -> str:
    """The text's end, ``limit`` tokens at most with those that the tokenizer adds."""
    while text and (excess := token_counts([text], tokenizer)[0] - limit) > 0:
        text = end(text, excess, tokenizer)
    return text


def _read(sample: Sample, text: str, tokenizer: Any) -> Text:
    return valid_text(sample.as_read(text, tokenizer))


def valid_text(text: Text) -> Text:
    """A text or pair as `valid_unicode` makes it."""
    if isinstance(text, str):
        return valid_unicode(text)
    return valid_unicode(text[0]), valid_unicode(text[1])


def _fit(sample: Sample, text: str, tokenizer: Any, limit: int) -> Text:
    """The sample's text, shortened until it fits; where tokens merge that takes a few rounds."""
    read = _read(sample, text, tokenizer)
    while (excess := token_counts([read], tokenizer)[0] - limit) > 0:
        sample = _shorter(sample, text, tokenizer, excess)
        read = _read(sample, text, tokenizer)
    return read


def _shorter(sample: Sample, text: str, tokenizer: Any, excess: int) -> Sample:
    """The sample with some ``excess`` tokens less: the prompt's first ones, else the response's."""
    if text == "chat" and any(turn["content"] for turn in sample.messages[:-1]):
        return _shorter_chat(sample, tokenizer, excess)
    if text in ("full", "pair") and sample.prompt:
        return replace(sample, prompt=end(sample.prompt, excess, tokenizer))
    response = beginning(sample.response, excess, tokenizer)
    if not response:
        raise ModelError(
            "a text's special tokens leave no room for its response: set max_tokens higher, or "
            "take a model that reads more"
        )
    return replace(sample, response=response)


def _shorter_chat(sample: Sample, tokenizer: Any, excess: int) -> Sample:
    """The conversation without its oldest exchange, or without its first tokens.

    A system turn goes last of all, and what is left begins with a user's turn, as templates ask.
    """
    turns = sample.messages[:-1]
    system = [turn for turn in turns[:1] if turn["role"] == "system"]
    turns = turns[len(system) :]
    if len(turns) > 1 and len(_ids(turns[0]["content"], tokenizer)) <= excess:
        turns = turns[1:]
        while len(turns) > 1 and turns[0]["role"] != "user":
            turns = turns[1:]
    else:
        cut = turns if turns[0]["content"] else system
        cut[0] = {**cut[0], "content": end(cut[0]["content"], excess, tokenizer)}
    item = {**sample.item, "turns": [*system, *turns[:-1]]}
    return replace(sample, prompt=turns[-1]["content"], item=item)


def end(text: str, excess: int, tokenizer: Any) -> str:
    """The text without its first ``excess`` tokens; a character less at least."""
    starts = _edges(text, tokenizer, 0)
    if starts is None:
        return _bisected(text, excess, tokenizer, lambda at: text[at:])
    return text[max(1, starts[excess]) :] if excess < len(starts) else ""


def beginning(text: str, excess: int, tokenizer: Any) -> str:
    """The text without its last ``excess`` tokens; a character less at least."""
    ends = _edges(text, tokenizer, 1)
    if ends is None:
        return _bisected(text, excess, tokenizer, lambda at: text[: len(text) - at])
    return text[: min(len(text) - 1, ends[-excess - 1])] if excess < len(ends) else ""


def _edges(text: str, tokenizer: Any, side: int) -> list[int] | None:
    """Where each token starts (side 0) or ends (1) in the text; None for a slow tokenizer."""
    if not tokenizer.is_fast:
        return None
    found = tokenizer(
        valid_unicode(text), add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    return [edges[side] for edges in found["offset_mapping"]]


def _bisected(text: str, excess: int, tokenizer: Any, less: Callable[[int], str]) -> str:
    """``less(n)`` for the fewest characters n that are worth ``excess`` tokens."""
    most = len(_ids(text, tokenizer)) - excess
    places = range(1, len(text) + 1)
    at = bisect_left(places, True, key=lambda n: len(_ids(less(n), tokenizer)) <= most)
    return less(places[min(at, len(text) - 1)])


def _ids(text: str, tokenizer: Any) -> list[int]:
    return tokenizer(valid_unicode(text), add_special_tokens=False, verbose=False)["input_ids"]


def token_counts(texts: Sequence[Text], tokenizer: Any) -> list[int]:
    """Tokens of each text or pair, special ones included."""
    if not texts:
        return []
    first = [text if isinstance(text, str) else text[0] for text in texts]
    second = [text[1] for text in texts if not isinstance(text, str)] or None
    return [len(ids) for ids in tokenizer(first, second, verbose=False)["input_ids"]]
