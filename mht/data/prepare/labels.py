"""Raw rows to what a reward model learns from: cleaned, each once, none that the policy has."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from statistics import fmean
from typing import Any

from mht.data.examples.tokenize import Cut, cut_row
from mht.data.judgements.judgements import Judgements
from mht.data.judgements.kinds import Kind, kind_of
from mht.data.text.clean import clean, content_key
from mht.data.text.sample import Sample
from mht.data.text.turns import earlier_turns

Row = dict[str, Any]
Keys = set[str] | None


def clean_row(row: Row) -> Row:
    """The row with its texts cleaned, those of earlier turns too.

    An answer that begins with a space goes on with its prompt, and keeps that space.
    """
    cleaned: Row = {**row}
    cleaned |= {key: clean(row[key]) for key in ("text", "prompt") if key in row}
    cleaned |= {key: _answer(row[key]) for key in ("target", "rejected") if key in row}
    turns = earlier_turns(row.get("item", {}))
    if turns:
        turns = [{**turn, "content": clean(turn["content"])} for turn in turns]
        cleaned["item"] = {**row["item"], "turns": turns}
    return cleaned


def _answer(text: str) -> str:
    """The cleaned text, behind a space where it begins with one and not on a new line."""
    behind = clean(f".{text}")[1:]
    return behind if behind[:1] == " " else behind.strip()


def policy_texts(cut: Cut) -> set[str]:
    """The keys of every text that would leak this example into the labels."""
    whole = cut.prompt + cut.joiner + cut.target
    texts = {cut.key, content_key(whole), content_key(cut.target)}
    return texts if cut.messages is None else texts | {content_key(cut.prompt)}


def judged(rows: Iterable[Row], *, keep: Keys = None, avoid: Keys = None) -> Judgements:
    """The rows' judgements, near duplicates once, in the order of their hashes.

    Args:
        rows: as a source gives them, all of one kind; none makes an empty table of ratings.
        keep: only rows with these content keys; None takes all.
        avoid: no texts with these content keys.
    """
    cleaned = [clean_row(row) for row in rows]
    kind = (kind_of(cleaned[0]) if cleaned else None) or "ratings"
    if keep is not None:
        cleaned = [row for row in cleaned if row_key(row) in keep]
    return Judgements(kind, MAKERS[kind](cleaned, avoid or set()))


def row_key(row: Row) -> str:
    """The content key of a cleaned row, as its `Cut` has it."""
    return cut_row(row, 1).key


def _by_text(rows: Iterable[Row], avoid: set[str], key: str) -> Iterator[tuple[str, list[Any]]]:
    """Each text with its rows' values under a key; the text of a prompt has its target in it."""
    texts: dict[str, str] = {}
    values: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        text = row["text"] if "text" in row else Sample(row["prompt"], row["target"]).full
        content = content_key(text)
        if text and content not in avoid:
            texts.setdefault(content, text)
            values[content].append(row[key])
    return ((texts[content], values[content]) for content in sorted(texts))


def _rated(rows: Iterable[Row], avoid: set[str]) -> list[Row]:
    """Texts with their mean rating."""
    rated = _by_text(rows, avoid, "rating")
    return [{"text": text, "rating": fmean(ratings)} for text, ratings in rated]


def _labelled(rows: Iterable[Row], avoid: set[str]) -> list[Row]:
    """Texts with the label that most of their rows have; those without such a label left out."""
    winners = [(text, _winner(Counter(votes))) for text, votes in _by_text(rows, avoid, "label")]
    return [{"text": text, "label": label} for text, label in winners if label]


def _winner(votes: Counter[str]) -> str | None:
    (label, most), *others = votes.most_common(2)
    return None if others and others[0][1] == most else label


def _compared(rows: Iterable[Row], avoid: set[str]) -> list[Row]:
    """Pairs of answers to a prompt; a pair judged both ways stays, as two judgements."""
    pairs: dict[str, Row] = {}
    for row in rows:
        prompt, chosen, rejected = cut_row(row, 1).prompt, row["target"], row["rejected"]
        full = [Sample(prompt, answer).full for answer in (chosen, rejected)]
        whole = {*map(content_key, full), row_key(row)}
        texts = {content_key(text) for text in (prompt, chosen, rejected) if text}
        same = content_key(chosen) == content_key(rejected)
        if not chosen or not rejected or same or avoid & (whole | texts):
            continue
        turns = json.dumps(earlier_turns(row.get("item", {})), ensure_ascii=False)
        pair = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "turns": turns}
        pairs.setdefault(content_key(prompt, chosen, rejected), pair)
    return [pairs[key] for key in sorted(pairs)]


MAKERS: Mapping[Kind, Callable[[Iterable[Row], set[str]], list[Row]]] = {
    "ratings": _rated,
    "labels": _labelled,
    "preferences": _compared,
}
