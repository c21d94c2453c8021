"""docs/reference/configuration.md has every key of params.yaml as mht/config/ enforces it."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from mht.config import Config, HybridConfig, LoRAConfig, ReferenceConfig
from mht.core.component import Section
from tools import config_docs
from tools.config_docs import hints, main, meanings, members, shape, tables


def all_sections(cls=Config) -> set[type[Section]]:
    inner = [config_docs._inside(hint)[1] for hint in hints(cls).values()]
    own = [h for h in [*inner, *members(cls).values()] if h is not None]
    return {cls}.union(*(all_sections(h) for h in own))


def test_page_is_up_to_date():
    assert main(["--check"]) == 0, "run python -m tools.config_docs"


def test_a_stale_page_is_noticed_and_mended(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    text = config_docs.PAGE.read_text(encoding="utf-8")
    page.write_text(text.replace("| `0.05` |", "| `0.5` |"), encoding="utf-8")
    monkeypatch.setattr(config_docs, "PAGE", page)
    assert main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert main([]) == 0
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("cls", sorted(all_sections(), key=lambda c: c.__name__))
def test_docstrings_and_fields_agree(cls):
    described = meanings(cls) | (meanings(HybridConfig) if issubclass(cls, HybridConfig) else {})
    assert not described.keys() - cls.model_fields.keys(), "describes a field that is not there"
    plain = {n for n, h in hints(cls).items() if h not in all_sections()}
    assert not plain - described.keys(), f"{cls.__name__} describes no {plain - described.keys()}"


def test_every_optimizer_and_schedule_has_a_row_with_its_options():
    page = config_docs.TRAINING.read_text(encoding="utf-8")
    assert "| `constant` | none |" in page
    assert "| `sgd` | `weight_decay: 0.0`, `decay_norms_and_biases: true`, `momentum: 0.0`," in page
    for cls in config_docs.CHOICES.values():
        assert all(f"| `{kind}` | " in page for kind in cls.choices)


def test_every_key_has_a_row():
    page = tables()
    for name, hint in hints(Config).items():
        if isinstance(hint, type):
            for key in hint.model_fields:
                assert f"| `{name}.{key}` |" in page
    assert "| `baselines.NAME.start` | text |" in page and "| `untrained.NAME.start` |" in page
    row = "| `ppo.dual_clip` | number or `null` | > 1 | `null` | lower bound for negative"
    assert row in page
    assert "| `data.splits.test` | number | >= 0, <= 1 | `0.15` |" in page
    assert "| `ppo.cycles` | integer | >= 0, <= 100000 | required |" in page
    assert "| `model.lora` | section or `null` |  | `null` |" in page
    assert "| `ppo.references.NAME.kl_coef` | number | >= 0 | required |" in page


def test_shapes_in_words():
    assert shape(Annotated[float, Field(gt=0, le=1)]) == ("number", "> 0, <= 1")
    assert shape(Literal["a", "b"] | None) == ("`a`, `b` or `null`", "")
    pair = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]
    assert shape(pair) == ("list of integers", "each >= 0, 2 of them")
    assert shape(dict[str, ReferenceConfig]) == ("mapping of names to sections", "")
    assert shape(LoRAConfig | None) == ("section or `null`", "")
    with pytest.raises(TypeError, match="no words for"):
        shape(complex)


def test_links_within_the_page_lead_to_headings():
    import re

    page = config_docs.PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
    anchors = {heading.lower().replace(".", "").replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\(#([\w-]+)\)", page)) <= anchors


def test_linked_headings_of_other_pages_exist():
    from pathlib import Path

    headings = {
        ("reference/rewards", "Every type"),
        ("howto/data", "What you can point it at"),
        ("howto/training", "Optimisers"),
        ("howto/training", "Schedules"),
    }
    for page, heading in headings:
        assert f"\n## {heading}\n" in Path("docs", f"{page}.md").read_text(encoding="utf-8")
