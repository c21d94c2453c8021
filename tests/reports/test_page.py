"""The page: its data can't break out of the script, names can't break out of the HTML."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from mht.data.text.sample import Sample
from mht.evaluation.summary import Evaluated
from mht.reports.figures.palette import palette, slots
from mht.reports.page.browser import browser_data, embedded
from mht.reports.page.render import page
from mht.reports.tables import scores_of
from mht.reports.wording import markdown, percent

NASTY = "</script><script>alert(1)</script><!--<script> & \u2028 \"quoted' {{ 7 * 7 }}"


class Elements(HTMLParser):
    """What a browser would see: elements with attributes, and the text of scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and data.strip():
            self.scripts.append(data)


def evaluated(response: str = NASTY) -> dict[str, Evaluated]:
    """Two variants' samples."""
    samples = [Sample(NASTY, response, " fine"), Sample("b", "", "")]
    one = Evaluated(["1", "2"], samples, {"reward": [0.123456, float("nan")], "vader": [1.0, 0.0]})
    other = Evaluated(["1", "2"], samples, {"reward": [0.5, 0.5], "bleu": [0.0, 0.0]})
    return {"base": one, NASTY: other}


def rendered(**parts) -> str:
    """A page with nothing in it but samples and what is given."""
    found = evaluated()
    return page(
        variants=list(found),
        sentences=[NASTY, "b", "c"],
        data=browser_data(found, "base"),
        **{"eyebrow": NASTY, "headline": NASTY, "reading": NASTY, "extra": [NASTY], "rows": [],
           "choice": NASTY, **parts},
    )  # fmt: skip


@pytest.mark.parametrize("text", [NASTY, "<!--", "]]>", "é 日本 \u2029", "\\u003c"])
def test_embedded_json_is_the_same_data_and_no_markup(text):
    made = embedded({"text": text, text: [1.5, None]})
    assert json.loads(made) == {"text": text, text: [1.5, None]}
    assert not re.search("[<>&\u2028\u2029]", made)


def test_no_text_becomes_markup():
    found = Elements(rendered())
    assert [tag for tag, _ in found.tags].count("script") == 2, "the data and our own"
    assert not {"img", "iframe", "object"} & {tag for tag, _ in found.tags}
    assert not [a for _, attributes in found.tags for a in attributes if a.startswith("on")]
    data = json.loads(found.scripts[0])
    assert data["rows"][0]["p"] == NASTY and data["variants"][1]["name"] == NASTY
    assert "49" not in rendered(), "jinja does not run what is written in samples"
    assert "innerHTML" not in found.scripts[1] and "document.write" not in found.scripts[1]


def test_nothing_is_loaded_from_elsewhere():
    for _, attributes in Elements(rendered(runs=[("a", "b")])).tags:
        for name in ("src", "srcset", "action", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_the_scripts_ids_are_on_the_page():
    found = Elements(rendered())
    ids = {attributes["id"] for _, attributes in found.tags if "id" in attributes}
    wanted = set(re.findall(r"(?:\$|getElementById)\('(\w+)'\)", found.scripts[1]))
    assert wanted and wanted <= ids


def test_the_samples_data():
    found = evaluated()
    assert scores_of(found) == ["reward"], "what every variant has"
    data = json.loads(browser_data(found, "base"))
    assert data["baseline"] == 0 and json.loads(browser_data(found, "x"))["baseline"] == -1
    assert data["rows"][0]["s"] == [[0.1235], [0.5]]
    assert data["rows"][1]["s"] == [[None], [0.5]] and data["rows"][1]["r"] == ["", ""]
    long = json.loads(browser_data(evaluated("x" * 9000), "base"))
    assert len(long["rows"][0]["r"][0]) == 2000


def test_every_variant_has_a_colour():
    names = ["base", "sft_only", "ppo_only", "hybrid", "memory", "markov", "a", "b"]
    assert len(set(slots(names).values())) == len(names)
    for dark in (False, True):
        assert len(set(palette(names, dark=dark).marks.values())) == len(names)
    ink = palette(["ink", "paper"])
    assert ink.ink not in ink.marks.values(), "a variant may have any name"
    assert set(slots([f"v{i}" for i in range(30)]).values()) <= set(range(8))


def test_wording():
    assert [percent(x) for x in (0.0004, -0.0004, 0.05, -0.05)] == [
        "0.0%",
        "0.0%",
        "+5.0%",
        "-5.0%",
    ]
    assert markdown("<b>|*") == "&lt;b&gt;\\|\\*"
