"""What holds for every registered type and for random trees of them."""

import math
import random

import pytest

from mht.cli.reward_types import FAMILIES, built_in, options
from mht.core.errors import ConfigError, UserError
from mht.data.text.sample import Sample
from mht.rewards import Reward, make_reward
from mht.rewards.composed.composition import Composite
from tests.support.reward_specs import (
    BATCH,
    broken,
    example_of,
    leaves,
    nodes,
    plain_types,
    quietly,
    spec_of,
    tree,
)

TYPES = built_in()
SIMPLE = [cls for cls in plain_types() if not issubclass(cls, Composite)]


def inside(value, ends):
    low, high = ends
    slack = 1e-9 * max(1.0, *(abs(end) for end in ends if math.isfinite(end)), 0.0)
    return math.isfinite(value) and low - slack <= value <= high + slack


def check(reward, found, name="reward"):
    """Every node's numbers are finite and inside what it says of itself."""
    failed = found.get(f"{name}.failed", [0.0] * len(found[name]))
    for value, bad in zip(found[name], failed, strict=True):
        assert inside(value, reward.bounds()) or (bad and value == reward.on_error), (name, value)
    for value in found.get(f"{name}.post", found[name]):
        assert inside(value, reward.outcome()), (name, value, reward.outcome())
    for child_name, child in reward.children().items():
        check(child, found, f"{name}.{child_name}")


@pytest.fixture(scope="module")
def kinds():
    found = leaves()
    assert len(found) >= 9, "fewer types score here than this project has had from the start"
    return found


@pytest.mark.parametrize("block", range(10))
def test_random_trees_score_inside_their_bounds(kinds, block):
    """30 each; options that don't go together, or ask for what is not here, are refused, few."""
    refused = 0
    for seed in range(30):
        spec = tree(random.Random(f"valid {block} {seed}"), kinds)
        try:
            reward = make_reward(spec)
        except ConfigError as error:
            assert all(line.startswith("reward") for line in error.problems)
            refused += 1
            continue
        try:
            first = quietly(reward, BATCH, update=seed % 2 == 0)
        except UserError as error:
            assert str(error).startswith("reward") and "\n" not in str(error)
            refused += 1
            continue
        check(reward, first.components)
        second = quietly(make_reward(spec), BATCH, update=seed % 2 == 0)
        assert second == first
    assert refused <= 15


@pytest.mark.parametrize("block", range(10))
def test_every_mistake_of_a_broken_tree_has_its_path(kinds, block):
    """20 each, with up to 5 mistakes."""
    for seed in range(20):
        rng = random.Random(f"broken {block} {seed}")
        spec = tree(rng, kinds)
        try:
            make_reward(spec)
        except ConfigError:
            continue  # the other test's
        there = [(p, n) for p, n in nodes(spec) if not {"components", "when"} & set(n)]
        chosen = rng.sample(there, min(len(there), rng.randint(1, 5)))
        expected = [broken(rng, path, node) for path, node in chosen]
        with pytest.raises(ConfigError) as caught:
            make_reward(spec)
        lines = caught.value.problems
        for start in expected:
            assert sum(line.startswith(start) for line in lines) == 1, (start, lines)
        assert len(lines) == len(expected) and all("\n" not in line for line in lines)
        assert "Traceback" not in str(caught.value)


ODD = {
    "empty": "",
    "blank": " \n\t ",
    "long": ("ab cd, " * 15_000)[:100_000],
    "one long word": "x" * 100_000,
    "scripts": "漢字 かな 한국어 עברית العربية हिन्दी ไทย ελληνικά русский 👩‍👩‍👧 é",
    "control": "".join(map(chr, range(32))) + "\x7f\x85\u2028\u202e\ufeff",
    "lone surrogate": "\ud800 a \udfff",
    "NUL": "a\x00b\x00",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
@pytest.mark.parametrize("cls", SIMPLE, ids=lambda cls: cls.type_name)
def test_odd_texts_are_scored_inside_the_bounds_or_refused_in_a_line(cls, text):
    ordinary = BATCH[0]
    for sample in (
        Sample("the film: ", text, ordinary.target, ordinary.item),
        Sample(text, ordinary.response, text, ordinary.item),
    ):
        reward = make_reward(spec_of(cls))
        alone = [] if len(text) > 1000 else [[sample]]  # long ones take their time
        for batch in (*alone, [ordinary, sample]):
            try:
                found = quietly(reward, batch, update=False)
            except UserError as error:
                assert str(error).startswith("reward") and "\n" not in str(error)
            else:
                check(reward, found.components)


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.type_name)
def test_every_type_says_what_it_is(cls):
    """For `mht rewards` and the documentation."""
    assert cls.family in FAMILIES, f"give {cls.family!r} a title in mht/cli/reward_types.py"
    assert cls.better in ("high", "low", "either") and cls.score_range[0] < cls.score_range[1]
    for option in options(cls, cls.own_options()):
        assert option.meaning or option.name in ("components", "reward", "when"), option.name


@pytest.mark.parametrize("cls", SIMPLE, ids=lambda cls: cls.type_name)
def test_what_decides_a_score_alone_decides_it(cls):
    """Where a type says what it reads, neither the batch nor its order changes a score."""
    reward = make_reward(spec_of(cls))
    if reward.reads(BATCH[0]) is None:
        pytest.skip("the batch, the item or a state has a say")
    try:
        whole = quietly(reward, BATCH, update=False).score
    except UserError as error:
        pytest.skip(str(error))
    alone = [quietly(reward, [sample], update=False).score[0] for sample in BATCH]
    assert alone == pytest.approx(whole)
    assert quietly(reward, BATCH[::-1], update=False).score == pytest.approx(whole[::-1])


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.type_name)
def test_every_type_has_an_example_that_loads(cls):
    """It takes part in these tests by it; a type that a file or a model makes may have none."""
    if cls.example is None:
        assert cls.needs, "say in `needs` what keeps it from having one"
    elif cls.models is Reward.models:
        assert example_of(cls), "give it an `example` (or None, where it takes a file)"
