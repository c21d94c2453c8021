"""The bundled corpora: rated movie reviews, and question-and-answer dialogues."""

from __future__ import annotations

import html
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import Field

from mht.data.sources.base import Source, source
from mht.data.sources.bundled import REVIEWS, SUPPORT, package_file

Topic = Literal[
    "ai", "coding", "computers", "conversations", "food", "health", "history", "literature",
    "money", "movies", "politics", "psychology", "science", "sports", "tech_support", "trivia",
]  # fmt: skip
# In these files the lines after the first are other answers to it, not the next turns.
ALTERNATIVE_ANSWERS = {"computers"}


@source("reviews")
class Reviews(Source):
    """Sentences of movie reviews, each with its mean human sentiment rating in [-4, 4]."""

    def rows(self) -> list[dict[str, Any]]:
        """``{"text", "rating", "item": {"source_id"}}`` for each sentence."""
        lines = _reviews_file().decode("utf-8").splitlines()
        return [_review(*line.split("\t", 2)) for line in lines if line]

    def asset(self) -> dict[str, Any]:
        """The entry of ``assets.json``."""
        return REVIEWS.asset()


def _reviews_file() -> bytes:
    with tarfile.open(package_file(REVIEWS)) as outer:
        folder = "vaderSentiment-3.3.2/additional_resources"
        packed = _member(outer, f"{folder}/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(packed)) as inner:
        return _member(inner, "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, f"{name} is a file in the pinned archive"
    return file.read()


def _review(source_id: str, rating: str, text: str) -> dict[str, Any]:
    return {"text": mend(text), "rating": float(rating), "item": {"source_id": int(source_id)}}


def mend(text: str) -> str:
    r"""A review as its author typed it, as far as can be told.

    The corpus lost every hyphen and dash to spaces (a dash left two or more), writes double
    quotes as two single ones or a backquote, and has some spaces before punctuation.

    >>> mend("A ''wry'' film    smart , `old' &amp; sad ... and good .")
    'A "wry" film - smart, \'old\' & sad ... and good.'
    """
    text = html.unescape(text).strip()
    text = re.sub(r"(?<=\S) {3,}(?=\S)", " - ", text)
    text = text.replace("''", '"').replace("`", "'")
    text = re.sub(r"\s+", " ", text)
    return re.sub(r" ([,;:!?.])(?=\s|$)", r"\1", text)


@source("support")
class Support(Source):
    """Question-and-answer dialogues of the ChatterBot corpus: prompt -> target.

    Attributes:
        topics: which of its files; every turn of the answering side becomes one row, with the
            turns before it in ``item["turns"]``.
        max_turns: later turns of a long dialogue are left out.
    """

    topics: list[Topic] = Field(
        default=[
            "ai", "coding", "computers", "conversations", "health", "history", "literature",
            "science", "sports", "tech_support", "trivia",
        ],
        min_length=1,
    )  # fmt: skip
    max_turns: Annotated[int, Field(ge=2)] = 8

    def rows(self) -> list[dict[str, Any]]:
        """``{"prompt", "target", "item": {"topic", "turns"?}}`` for each answer."""
        with zipfile.ZipFile(package_file(SUPPORT)) as archive:
            rows = (_topic_rows(archive, topic, self.max_turns) for topic in self.topics)
            return list(chain.from_iterable(rows))

    def asset(self) -> dict[str, Any]:
        """The entry of ``assets.json``."""
        return SUPPORT.asset()


def _topic_rows(archive: zipfile.ZipFile, topic: str, max_turns: int) -> Iterator[dict[str, Any]]:
    from ruamel.yaml import YAML

    text = archive.read(f"chatterbot_corpus/data/english/{topic}.yml").decode("utf-8")
    for dialogue in YAML(typ="safe").load(text)["conversations"]:
        if not isinstance(dialogue, list):
            continue  # one trivia entry lost its list marks in the file and reads as a string
        if topic in ALTERNATIVE_ANSWERS:
            for answer in dialogue[1:]:
                yield {"prompt": dialogue[0], "target": answer, "item": {"topic": topic}}
        else:
            yield from dialogue_rows(dialogue[:max_turns], topic)


def dialogue_rows(dialogue: list[str], topic: str) -> Iterator[dict[str, Any]]:
    """One row for each answer of a dialogue, whose odd turns are the answers."""
    roles = ["user", "assistant"]
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(dialogue)]
    for i in range(1, len(turns), 2):
        item = {"topic": topic, "turns": turns[: i - 1]} if i > 1 else {"topic": topic}
        yield {"prompt": dialogue[i - 1], "target": dialogue[i], "item": item}
