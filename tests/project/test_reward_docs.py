"""The rewards page has every type as the code has it, and its examples work as they stand."""

import re
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mht.cli.reward_types import aliases, built_in
from mht.data.text.sample import Sample
from mht.rewards import Reward, make_reward
from tests.support.plugins import install
from tools import reward_docs

PAGE = Path(__file__).parents[2] / "docs/reference/rewards.md"


def blocks(kind):
    """The page's code blocks of a kind; ``# name`` in the first line names a file."""
    found = re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert found
    return found


def block(kind, start):
    (found,) = [text for text in blocks(kind) if text.startswith(start)]
    return found


def in_yaml(containing):
    (found,) = [text for text in blocks("yaml") if containing in text]
    return YAML(typ="safe").load(found)["reward"]


def test_page_is_up_to_date():
    assert reward_docs.main(["--check"]) == 0, "run python -m tools.reward_docs"


def test_a_stale_page_is_noticed_and_mended(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    text = PAGE.read_text(encoding="utf-8")
    page.write_text(text.replace("`use_stemmer`=true", "`use_stemmer`=false"), encoding="utf-8")
    monkeypatch.setattr(reward_docs, "PAGE", page)
    assert reward_docs.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert reward_docs.main([]) == 0
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("cls", built_in(), ids=lambda cls: cls.type_name)
def test_every_type_has_one_row_with_its_names_and_options(cls):
    rows = [line.split(" | ") for line in reward_docs.types().splitlines()]
    (row,) = [row for row in rows if row[0].startswith(f"| `{cls.type_name}`")]
    assert all(f"`{name}`" in row[0] for name in aliases(cls))
    assert all(f"`{name}`" in row[1] for name in cls.own_options())
    assert not any(f"`{name}`=" in row[1] for name in ("weight", "on_error", "postprocess"))


def test_a_file_of_your_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rewards").mkdir()
    Path("rewards/mine.py").write_text(block("python", "# rewards/mine.py"))
    reward = make_reward(in_yaml("options: {word: superb}"))
    assert reward(["a superb film", "a wonderful film"]) == [1.0, 0.0]


def test_a_package_of_your_own(tmp_path, monkeypatch):
    entry = block("toml", "# its pyproject.toml")
    kind, name, target = re.findall(r'"mht\.(\w+)"\]\n(\w+) = "(.+)"', entry)[0]
    code = block("python", "# acme_rewards.py")
    install(tmp_path, "acme_rewards", code, {kind: {name: target}})
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = in_yaml("type: shout")
    assert "shout" in Reward.registry.names() and "acme_rewards" not in sys.modules
    try:
        assert make_reward(spec)(["what??", "oh!"]) == [2.0, 0.0]
        names = {"make_reward": make_reward, "Shout": sys.modules["acme_rewards"].Shout}
        (inline,) = re.findall(r"`(make_reward\(\{.*Shout\(\).*\}\))`", PAGE.read_text())
        assert eval(inline, names)("oh!", "oh!") == 1.0
    finally:
        sys.modules.pop("acme_rewards", None)


def test_a_function_of_trl_s_kind(tmp_path, monkeypatch):
    """TRL itself takes seconds to import, so a module stands in its place here."""
    monkeypatch.chdir(tmp_path)
    Path("rewards").mkdir()
    Path("rewards/theirs.py").write_text(block("python", "# rewards/theirs.py"))
    Path("trl").mkdir()
    Path("trl/__init__.py").touch()
    Path("trl/rewards.py").write_text(
        "def think_format_reward(completions, **kwargs):\n"
        "    return [float('<think>' in c[0]['content']) for c in completions]\n"
    )
    for name in ("trl", "trl.rewards"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    reward = make_reward(in_yaml("rewards/theirs.py"))
    batch = [Sample("p", "<think>x</think>", item={"k": 1}), Sample("p", "x")]
    assert reward.evaluate(batch).score == [1.0, 0.0]
    for name in ("trl", "trl.rewards"):
        sys.modules.pop(name)  # delitem would put the stand-in back in the end


def test_the_specs_of_the_page_load(tmp_path, monkeypatch):
    """Those without files: each as it stands."""
    loaded = 0
    for text in blocks("yaml"):
        spec = YAML(typ="safe").load(text)
        if "reward" in spec and "file:" not in text and "shout" not in text:
            make_reward(spec["reward"])
            loaded += 1
    assert loaded >= 2
    (page,) = [text for text in blocks("yaml") if "reward_mode: raw" in text]
    assert make_reward(YAML(typ="safe").load(page)["reward"]).outcome() == (0, 1)
