"""Broken settings and reward specs: a config or one error of the user's, in bounds, and soon.

Each mutation starts from the repository's own params.yaml or from a type's example. Few examples
run by default, always the same; `make slow` runs ten thousand, and others each time.
"""

import copy
import json
import string
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mht.checks.preflight import problems
from mht.config import Config, load_config
from mht.core.errors import UserError
from mht.core.plain import parse_json, parse_yaml, read_yaml
from mht.rewards import Reward, make_reward
from mht.rewards.spec import read_reward
from tests.support.reward_specs import plain_types, spec_of

TEXT = Path("params.yaml").read_text(encoding="utf-8")
PARAMS = read_yaml("params.yaml")
LONGEST = 30 * 3000  # of a message: thirty problems, the longest lists what is available
SPECS = [spec_of(cls) for cls in plain_types()] + [PARAMS["ppo"]["reward"]]

few = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
many = settings(few, max_examples=10_000, derandomize=False)


def nested(inner, depth, key=None):
    """``inner`` in so many lists, or mappings under a key."""
    for _ in range(depth):
        inner = [inner] if key is None else {key: inner}
    return inner


ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 10**400,
    0.0, -0.5, 0.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"),
    "", " ", ".", "..", "../x", "/abs", "a/b", "a\0b", "a\nb", "x" * 300, "x" * 100_000, "\ud83d",
    "null", "1e-4", "cpu", "cuda:7", "all", "none", "scratch", "नमस्ते", "\ufeff", "{}", "\\",
    "%s {}", [], [None], [[]], {}, {"": ""}, {"type": None}, {"type": "min"}, {"type": []},
    {"type": "x" * 999}, {1: 2}, {None: 1}, {2**70: 1}, {(1, 2): 3}, {True: False}, {"x" * 999: 1},
    list(range(1000)), {str(i): i for i in range(1000)},
    nested(1, 90), nested(1, 200), nested({}, 60, "a"),
    {"type": "min", "components": nested({"type": "bleu"}, 40)},
    (1, 2), {1, 2}, b"bytes", object(), complex(1, 2),
]  # fmt: skip
odd = st.sampled_from(ODD).map(copy.deepcopy) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def places(data, path=()):
    """Where the containers of plain data are, the data itself first."""
    yield path
    pairs = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in pairs:
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


@st.composite
def mutated(draw, start):
    """Plain data with one to three places deleted, replaced, inserted, renamed or exchanged."""
    data = copy.deepcopy(draw(start) if isinstance(start, st.SearchStrategy) else start)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(data))))
        inside = data
        for key in path:
            inside = inside[key]
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        way = draw(st.sampled_from(["delete", "replace", "insert", "rename", "exchange"]))
        if way == "insert" or not keys:
            insert(inside, draw(st.text(string.ascii_lowercase, max_size=8)), draw(odd))
            continue
        key = draw(st.sampled_from(keys))
        if way == "replace":
            inside[key] = draw(odd)
        elif way == "exchange":
            other = draw(st.sampled_from(keys))
            inside[key], inside[other] = inside[other], inside[key]
        else:
            value = inside.pop(key)
            if way == "rename":
                insert(inside, f"{key}{draw(st.sampled_from('_s./'))}", value)
    return data


def insert(container, key, value):
    """Add a value to a mapping or a list."""
    if isinstance(container, dict):
        container[key] = value
    else:
        container.append(value)


LINES = [
    "\t", "  ", "\0", "\ufeff", "- ", ": ", "? ", "[", "{", "}", "]", "'", '"', "|", ">", "&a ",
    "*a", "!!int ", "!!python/object:os.system ", "<<: ", "<<: *a", "# ", "%YAML 1.1\n", "---\n",
    "...\n", "\r", "\u2028", "2024-13-45", "0x", "-_", "1:30", "9" * 5000, "1e400", ".inf",
    "[" * 500, "{a: " * 500, "&a [*a]", "~", "\x0c", "\ud800", "😀", "a: &a {b: *a}\n", "x: 1\n",
    "seed: 0\n", "=", "010", "yes",
]  # fmt: skip


@st.composite
def mangled(draw):
    """The text of params.yaml with pieces cut out, put in and doubled."""
    text = TEXT
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        piece = draw(st.sampled_from(LINES) | st.text(max_size=6))
        end = min(len(text), at + draw(st.integers(0, 40)))
        way = draw(st.sampled_from(["cut", "insert", "replace", "double"]))
        inner = {"cut": "", "insert": piece + text[at:end], "replace": piece}
        text = text[:at] + inner.get(way, text[at:end] * 2) + text[end:]
    return text


def answered(make):
    """What ``make`` gives, or its message; anything but a `UserError` goes through."""
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = make()
    except UserError as error:
        found = str(error)
        assert 0 < len(found) <= LONGEST, len(found)
        assert len(found.splitlines()) <= 32
    assert time.monotonic() - began < 10
    return found


def checked(config: Config):
    """What `mht check` looks at; the machine and the models are those that there are."""
    list(problems(config))
    return config


def load(data):
    from mht.core.component import build

    return checked(build(Config, data, source="params.yaml"))


def settings_hold(data):
    found = answered(lambda: load(data))
    assert isinstance(found, Config | str)


def text_holds(text, folder):
    file = folder / "params.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert isinstance(answered(lambda: checked(load_config(file))), Config | str)


def spec_holds(spec):
    found = answered(lambda: make_reward(spec))
    assert isinstance(found, Reward | str)
    if isinstance(found, Reward):
        found.models(), found.outcome(), found.children(), found.model_dump(mode="json")


def written_holds(text):
    assert isinstance(answered(lambda: read_reward(text)), Reward | str)
    for parse in (parse_yaml, parse_json):
        answered(lambda parse=parse: parse(text, "the text"))


@few
@given(mutated(PARAMS))
def test_settings(data):
    settings_hold(data)


@few
@given(text=mangled())
def test_texts_of_settings(tmp_path_factory, text):
    text_holds(text, tmp_path_factory.getbasetemp())


@few
@given(mutated(st.sampled_from(SPECS)))
def test_specs(spec):
    spec_holds(spec)


@few
@given(mutated(st.sampled_from(SPECS)), st.text(max_size=4), st.integers(0, 200))
def test_written_specs(spec, piece, at):
    text = json.dumps(spec, default=str, skipkeys=True)
    written_holds(text[:at] + piece + text[at:])


@pytest.mark.slow
@many
@given(mutated(PARAMS))
def test_many_settings(data):
    settings_hold(data)


@pytest.mark.slow
@many
@given(text=mangled())
def test_many_texts_of_settings(tmp_path_factory, text):
    text_holds(text, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@many
@given(mutated(st.sampled_from(SPECS)))
def test_many_specs(spec):
    spec_holds(spec)


@pytest.mark.slow
@many
@given(mutated(st.sampled_from(SPECS)), st.text(max_size=4), st.integers(0, 200))
def test_many_written_specs(spec, piece, at):
    text = json.dumps(spec, default=str, skipkeys=True)
    written_holds(text[:at] + piece + text[at:])
