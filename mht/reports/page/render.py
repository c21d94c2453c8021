"""A report's parts put into the page: the one place where text becomes HTML."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from mht.reports.conclusion import guard_rows
from mht.reports.figures.palette import slots
from mht.reports.guard import Finding

ASKED = ("Who wins?", "Do judges agree that nobody was trained on?", "At what cost?")
PARTS: dict[str, Any] = {
    "warning": None,
    "about": [],
    "changed": None,
    "guard": None,
    "comparisons": [],
    "reach": None,
    "figures": [],
    "samples": [],
    "samples_note": "",
    "others": [],
    "runs": [],
}


def page(*, variants: Sequence[str], sentences: Sequence[str], data: str, **parts: Any) -> str:
    """The page as HTML.

    Args:
        variants: their names, in order.
        sentences: the conclusion's three, or none.
        data: of `browser_data`, which is escaped already.
        parts: what ``report.html`` names; those in `PARTS` may be left out.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    template = Environment(
        loader=PackageLoader("mht.reports", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html")
    numbers = slots(variants)
    return template.render(
        **{**PARTS, **parts},
        variants=[{"name": name, "slot": numbers[name]} for name in variants],
        sentences=list(zip(ASKED, sentences, strict=False)),
        data=data,
    )


def guard_part(findings: Sequence[Finding], variants: Sequence[str]) -> dict[str, Any] | None:
    """The guard's table for the page; None without findings."""
    if not findings:
        return None
    numbers = slots(variants)
    return {
        "baseline": findings[0].baseline,
        "variants": [{"name": f.variant, "slot": numbers[f.variant]} for f in findings],
        "rows": guard_rows(findings),
    }


def figure_parts(
    light: Mapping[str, bytes],
    dark: Mapping[str, bytes],
    titles: Mapping[str, str],
    captions: Mapping[str, str],
    split: str,
) -> list[dict[str, Any]]:
    """Figures for the page, as data in it.

    Args:
        light: figure name to PNG, for light paper.
        dark: the same for dark paper.
        titles: of the figures, by name.
        captions: the same, with ``{split}`` where the split's name goes.
        split: whose prompts were answered.
    """
    return [
        {
            "title": titles[name],
            "caption": captions[name].format(split=split),
            "width": int.from_bytes(png[16:20], "big") * 2 // 3,  # 150 dots per inch, 100 shown
            "light": _base64(png),
            "dark": _base64(dark[name]),
        }
        for name, png in light.items()
    ]


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode("ascii")
