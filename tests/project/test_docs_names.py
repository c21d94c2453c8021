"""The commands, options and settings that the pages name exist."""

import re
import types
import typing
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import pytest
from ruamel.yaml import YAML

from mht.config import Config
from mht.core.component import Chosen, Section, registry
from tools.config_docs import hints, members

DOCS = Path("docs")
NOW = [Path("README.md"), *(f for f in sorted(DOCS.rglob("*.md")) if f.name != "log.md")]
OF_TODAY = [page for page in NOW if page.parent.name != "reference" or page.name == "rewards.md"]
SECTION = "|".join(Config.model_fields)
PATH = re.compile(rf"`((?:{SECTION})(?:\.[\w<>]+)+)`")
NO_SETTINGS = {"evaluate.hybrid"}  # a stage as MLflow names it
REFUSED = {"ppo.min_p", "ppo.top_k", "ppo.top_p"}  # and the page says so


def blocks(page: Path, language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


# -- settings ---------------------------------------------------------------------------------


def is_setting(path: str) -> bool:
    """Whether a dotted path leads to something that params.yaml may hold."""
    found: list[Any] = [Config]
    for key in path.split("."):
        found = [inner for hint in found for inner in below(hint, key)]
    return bool(found)


def below(hint: Any, key: str) -> list[Any]:
    """The types that a key may have in a value of this type; none where there is no such key."""
    kinds = [extra.kind for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Chosen)]
    if kinds:
        classes = registry(kinds[0]).built_in().values()
        return [Any] * any(key in ("type", *cls.model_fields) for cls in classes)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return below(inner[0], key)
    if origin in (typing.Union, types.UnionType):
        return [found for each in inner for found in below(each, key)]
    if origin is dict:
        return [inner[1]]
    if isinstance(hint, type) and issubclass(hint, Section):
        known = hints(hint) | members(hint)
        return [known[key]] if key in known else []
    return [Any] if hint is Any else []


@pytest.mark.parametrize("page", NOW, ids=str)
def test_settings_in_code_quotes_exist(page):
    named = set(PATH.findall(page.read_text(encoding="utf-8"))) - NO_SETTINGS - REFUSED
    assert not [path for path in sorted(named) if not is_setting(path)]


@pytest.mark.parametrize("page", OF_TODAY, ids=str)
def test_settings_in_blocks_exist(page):
    reader = YAML(typ="safe")
    reader.allow_duplicate_keys = True
    for block in blocks(page, "yaml"):
        data = reader.load(block)
        if isinstance(data, dict) and data.keys() <= Config.model_fields.keys():
            assert not [path for path in keys(data) if not is_setting(path)], block


def keys(data: Any, above: str = "") -> list[str]:
    """The paths of a mapping's keys, down to what has a type: its options are the type's own."""
    if not isinstance(data, dict) or (above and "type" in data) or any("." in key for key in data):
        return [above]
    below = {f"{above}.{key}".lstrip("."): value for key, value in data.items()}
    return [path for key, value in below.items() for path in keys(value, key)]


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("ppo.kl_coef", True),
        ("ppo.kl_coeff", False),
        ("ppo.kl_coef.init", False),
        ("ppo.reward.components", True),
        ("ppo.memory.markov.signal", True),
        ("ppo.memory.markov.signals", False),
        ("baselines.anything.minibatch_size", True),
        ("model.lora.r", True),
        ("model.lora.rank", False),
    ],
)
def test_a_path_that_leads_nowhere_is_found(path, known):
    assert is_setting(path) == known


# -- commands ---------------------------------------------------------------------------------


def code_of(page: Path) -> str:
    """What a page shows as code: its blocks of shell, and what stands in quotes."""
    text = page.read_text(encoding="utf-8")
    quoted = re.findall(
        r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    )
    shell = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return "\n".join([*quoted, shell])


@pytest.mark.parametrize("page", NOW, ids=str)
def test_commands_exist_and_take_the_options(page):
    import typer

    from mht.cli.main import commands

    known = typer.main.get_command(commands).commands
    for name, rest in re.findall(r"(?:^|&& )mht ([a-z]+)([^\n#&|]*)", code_of(page), re.MULTILINE):
        assert name in known, f"mht {name}"
        taken = {option for parameter in known[name].params for option in parameter.opts}
        unknown = set(re.findall(r"(?<= )--[a-z-]+", rest)) - taken - {"--help"}
        assert not unknown, f"mht {name}{rest}"


TARGETS = set(re.findall(r"^([a-z]+):", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", NOW, ids=str)
def test_targets_of_make_exist(page):
    lines = re.findall(r"(?:^|&& )make((?: [A-Z]+=\S+)*(?: [a-z]+)+)", code_of(page), re.MULTILINE)
    named = {word for line in lines for word in line.split() if "=" not in word}
    assert named <= TARGETS


@pytest.mark.parametrize("page", NOW, ids=str)
def test_modules_that_the_pages_start_exist(page):
    for module in re.findall(r"python -m ([a-z_.]+)", code_of(page)):
        assert find_spec(module.rstrip(".")), module


# -- headings ---------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", NOW, ids=str)
def test_links_to_headings_lead_to_one(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([\w./]*)#([\w-]+)\)", text):
        to = (page.parent / target) if target else page
        assert not to.is_file() or anchor in anchors(to), f"{target}#{anchor}"
