"""Question-and-answer dialogues, from a bundled corpus."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import Field

from mht.data.sources.base import Source, source
from mht.data.sources.bundled import SUPPORT, package_file

Topic = Literal[
    "ai", "coding", "computers", "conversations", "food", "health", "history", "literature",
    "money", "movies", "politics", "psychology", "science", "sports", "tech_support", "trivia",
]  # fmt: skip
# In these files the lines after the first are other answers to it, not the next turns.
ALTERNATIVE_ANSWERS = {"computers"}


@source("support")
class Support(Source):
    """Question-and-answer dialogues of the ChatterBot corpus: prompt -> target.

    Attributes:
        topics: the files to read. Every turn of the answering side becomes one row, with the
            turns before it in ``item["turns"]``.
        max_turns: maximum number of turns read from a dialogue.
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
    """One row for each answer of a dialogue; the odd turns, counted from 0, are the answers."""
    roles = ["user", "assistant"]
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(dialogue)]
    for i in range(1, len(turns), 2):
        item = {"topic": topic, "turns": turns[: i - 1]} if i > 1 else {"topic": topic}
        yield {"prompt": dialogue[i - 1], "target": dialogue[i], "item": item}
