"""Rated sentences of movie reviews, from a bundled corpus."""

from __future__ import annotations

import html
import io
import re
import tarfile
from typing import Any

from mht.data.sources.base import Source, source
from mht.data.sources.bundled import REVIEWS, package_file


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
    r"""A review with the corpus's damage to its punctuation repaired.

    The corpus replaced every hyphen and dash by spaces; a dash left two or more. Its
    double quotes are two single ones or a backquote. Some spaces stand before punctuation.

    >>> mend("A ''wry'' film    smart , `old' &amp; sad ... and good .")
    'A "wry" film - smart, \'old\' & sad ... and good.'
    """
    text = html.unescape(text).strip()
    text = re.sub(r"(?<=\S) {3,}(?=\S)", " - ", text)
    text = text.replace("''", '"').replace("`", "'")
    text = re.sub(r"\s+", " ", text)
    return re.sub(r" ([,;:!?.])(?=\s|$)", r"\1", text)
