"""What no setting may be: endless, too deep, too large, a path where a name belongs."""

import copy
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mht.cli.main
from mht.config import Config, load_config, read_yaml
from mht.core.bounds import name_problem
from mht.core.component import build
from mht.core.errors import LISTED, SHOWN, ConfigError, UserError, shown
from mht.core.plain import MOST_KEYS, parse_json, parse_yaml, read_text
from mht.rewards import make_reward
from mht.rewards.spec import read_reward
from mht.training.schedule import as_plan, schedule

PARAMS = read_yaml("params.yaml")


@pytest.fixture(autouse=True)
def soon():
    """Each answer comes at once; on a busy machine too."""
    began = time.process_time()
    yield
    assert time.process_time() - began < 10


def with_values(values):
    """The repository's settings with other values, each at its dotted path."""
    data = copy.deepcopy(PARAMS)
    for path, value in values.items():
        *above, key = path.split(".")
        inner = data
        for name in above:
            inner = inner.setdefault(name, {})
        inner[key] = value
    return build(Config, data, source="params.yaml")


def problem(values):
    """The only problem that the settings have with these values."""
    with pytest.raises(ConfigError) as error:
        with_values(values)
    (found,) = error.value.problems
    assert "\n" not in found and len(found) < 1000
    return found


def yaml_problem(text):
    with pytest.raises(ConfigError) as error:
        parse_yaml(text, "the text")
    (found,) = error.value.problems
    assert "\n" not in found and len(found) < 500
    return found


# -- YAML and JSON -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a [*a]", "line 1, column 8: the alias 'a' stands for nothing before it"),
        ("a: &a {b: *a}", "the alias 'a' stands for nothing before it"),
        ("a: &a {<<: *a}", "the alias 'a' stands for nothing before it"),
        ("a: *b", "the alias 'b' stands for nothing before it"),
        ("a: " + "[" * 20_000 + "]" * 20_000, "is nested more than 100 levels deep"),
        ("\n".join(" " * i + "a:" for i in range(300)), "line 101"),
        ("a: " + "9" * 5000, "'999"),
        ("a: 0x" + "f" * 5000, "is beyond 2**63"),
        ("a: 9223372036854775808", "'9223372036854775808' is beyond 2**63: write a float"),
        ("a: 1e400", "'1e400' is too large for a float"),
        ("a: -_", "'-_' is no whole number"),
        ("a: 2024-13-45", "'2024-13-45' is no date: put it in quotes"),
        ("x: 1\na: !!int abc", "line 2, column 4: leave out the tag"),
        ("a: !!python/object:os.system x", "leave out the tag"),
        ("a: !!set {x}", "leave out the tag"),
        ("a: 1\nb: 2\na: 3", 'line 3, column 1: found duplicate key "a"'),
        ("x: 1\na: \0", "line 2: unacceptable character #x0000"),
        ("a: 1\n---\nb: 2", "but found another document"),
        ("a: [1", "did not find expected"),
        ("a:\n\tb: 1", "line 2, column 1: a tab, where YAML takes blanks alone"),
        ("a: '\ud83d'", "line 1: half a character"),
    ],
)
def test_yaml_that_is_refused(text, says):
    assert says in yaml_problem(text)


@pytest.mark.parametrize("inner", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_count_as_what_they_stand_for(inner):
    """Nine of nine of nine...: a billion from ten lines."""
    lines = [f"a0: &a0 {'{x: 1}' if '<<' in inner else '[x]'}"]
    for i in range(1, 10):
        lines.append(f"a{i}: &a{i} {inner.format(', '.join([f'*a{i - 1}'] * 9))}")
    assert "holds more than 50,000 values, those of aliases included" in yaml_problem(
        "\n".join(lines)
    )


def test_yaml_that_is_read():
    text = "a: &a {x: 1, y: yes}\nb: {<<: *a, x: 010}\nc: [*a, 0o10, 1_000, ~, !!str 12, =]\n"
    a = {"x": 1, "y": "yes"}
    assert parse_yaml(text, "") == {
        "a": a,
        "b": {"x": 10, "y": "yes"},
        "c": [a, 8, 1000, None, "12", "="],
    }


def test_a_byte_order_mark_is_no_text(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(Path("params.yaml").read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert load_config(file) == load_config("params.yaml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file must hold a mapping of sections"),
        (b"# nothing\n", "the file must hold a mapping of sections"),
        (b"[1, 2]", "the file must hold a mapping of sections"),
        (b"word", "the file must hold a mapping of sections"),
        ("model: {name: é}".encode("latin-1"), "byte 14 is not UTF-8: save it as UTF-8"),
        ("model: {name: a}".encode("utf-16"), "byte 0 is not UTF-8"),
        (b"#" * 2**22 + b"\n", "is larger than 4 MiB"),
        (b"{1: 2, null: 3}", "is required and missing"),
    ],
)
def test_files_that_are_no_settings(tmp_path, content, says):
    file = tmp_path / "params.yaml"
    file.write_bytes(content)
    done = CliRunner().invoke(mht.cli.main.commands, ["check", str(file)])
    assert done.exit_code == 2
    assert says in done.stderr and len(done.stderr) < 5000


def test_a_folder_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "absent", f"{tmp_path}/a\0b", tmp_path / ("x" * 5000)):
        with pytest.raises(ConfigError) as error:
            read_text(path)
        assert len(str(error.value)) < 800 and error.value.problems


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        ("[" * 100_000, "is nested more than 100 levels deep"),
        ("9" * 5000, "4300"),
        ('{"a": }', "line 1, column 7"),
    ],
)
def test_json_that_is_refused(text, says):
    with pytest.raises(ConfigError, match=says):
        parse_json(text, "the text")


# -- rewards -----------------------------------------------------------------------------------


def composites(depth):
    spec = {"type": "exact_match"}
    for _ in range(depth):
        spec = {"type": "min", "components": {"part": spec}}
    return spec


def test_composites_as_deep_as_can_be():
    assert make_reward(composites(45))("a", "a") == 1.0
    with pytest.raises(ConfigError, match="is nested more than 100 levels deep"):
        make_reward(composites(10_000))


def test_specs_that_hold_themselves():
    spec = {"type": "min"}
    spec["components"] = {"again": spec}
    own = []
    own.append(own)
    for cyclic in (spec, own, {"type": "min", "components": own}):
        with pytest.raises(ConfigError, match="is nested more than 100 levels deep"):
            make_reward(cyclic)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "keyword_count", "keywords": ["x"] * 100_000},
        {"type": "keyword_count", "keywords": [{str(i): i} for i in range(MOST_KEYS + 1)]},
        {"type": "bleu", "weight": 10**5000},
        {"type": "bleu", 10**5000: 1},
        {"type": "bleu", "weight": "x" * 10**6},
        {"type": "x" * 10**6},
        {"x" * 10**6: 1},
        {"type": "regex_presence", "pattern": "(" * 5000},
        {"type": "min", "components": {"x" * 300: {"type": "bleu"}}},
        {"type": "min", "components": {"../x": {"type": "bleu"}}},
        {"type": "min", "components": {"": {"type": "bleu"}}},
        {"type": "min", "components": {"a\0": {"type": "bleu"}}},
    ],
)
def test_specs_that_are_too_much(spec):
    with pytest.raises(ConfigError) as error:
        make_reward(spec)
    assert len(str(error.value)) < 3000 and len(error.value.problems) == 1


def test_written_specs(tmp_path):
    file = tmp_path / "reward.json"
    for text in ("[" * 100_000, '{"type": "bleu", "type": "chrf"}'):
        file.write_text(text)
        with pytest.raises(UserError, match=r"reward\.json: not JSON: "):
            read_reward(file)
    with pytest.raises(UserError, match="--reward: not YAML: .*levels deep"):
        read_reward('{"type": "min", "components": [' * 10_000)


# -- messages ----------------------------------------------------------------------------------


def test_values_are_shown_in_part():
    assert shown("x" * SHOWN) == repr("x" * SHOWN)
    assert shown("x" * 10**6) == f"'{'x' * (SHOWN - 1)}..."
    assert problem({"model.dtype": "x" * 10**6}).endswith("x...")
    assert len(problem({"evaluate.split": "é" * 500})) < 300


def test_thirty_problems_are_shown_and_the_others_counted():
    parts = {f"part{i}": {"type": "bleu", "weight": "heavy"} for i in range(LISTED + 17)}
    with pytest.raises(ConfigError) as error:
        make_reward({"type": "min", "components": parts})
    head, *lines, last = str(error.value).splitlines()
    assert head == "47 problems in the reward" and len(lines) == 30
    assert last == "  and 17 more"
    assert len(error.value.problems) == 47


def test_a_text_that_yaml_reads_as_a_number_is_to_be_quoted():
    assert problem({"model.revision": 123}).endswith("valid string: put it in quotes, got 123")
    found = problem({"model.revision": parse_yaml("2026-11-22", "")})
    assert found == "model.revision: is read as a date: put it in quotes, got 2026-11-22"


# -- numbers -----------------------------------------------------------------------------------


def test_seeds_are_below_two_to_the_63():
    assert with_values({"base.seed": 2**63 - 1}).base.seed == 2**63 - 1
    for path in ("base.seed", "tune.seed"):
        assert problem({path: 2**63}).startswith(f"{path}: ")
        assert problem({path: -1}).startswith(f"{path}: ")


def test_so_are_the_seeds_that_follow():
    told = problem({"base.seed": 2**63 - 2, "base.seeds": 3})
    assert told.startswith("base.seed: 3 seeds from it on are not all below")
    last = with_values({"base.seed": 2**63 - 2, "base.seeds": 2})
    assert list(last.seeds) == [2**63 - 2, 2**63 - 1]
    fresh = {"model.name": {"type": "scratch", "seed": 2**63 - 1}, "base.seeds": 2}
    assert problem(fresh).startswith("model.name.seed: 2 seeds from it on")


def test_a_seed_moves_the_weights_of_a_fresh_model_too():
    config = with_values({"model.name": {"type": "scratch", "seed": 5}, "base.seeds": 3})
    own = config.of_seed(2)
    assert (own.base.seed, own.base.seeds, own.model.name.seed) == (2, 1, 7)
    assert config.model.name.seed == 5 and list(own.seeds) == [2]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ppo.cycles", 10**9),
        ("baselines.sft_only.cycles", 10**18),
        ("ppo.sft_steps_per_cycle", 10**9),
        ("ppo.ppo_steps_per_cycle", 2**62),
        ("ppo.mix", {"type": "linear", "first": {"sft": 10**12, "ppo": 1}}),
        ("sft.steps", 10**12),
        ("evaluate.resamples", 10**12),
        ("base.seeds", 10**9),
        ("benchmark.resamples", 10**9),
        ("model.name", {"type": "scratch", "layers": 10**9}),
    ],
)
def test_numbers_that_would_fill_the_memory(path, value):
    assert problem({path: value}).startswith(path.rpartition(".")[0])


def test_a_long_curriculum_is_checked_at_once():
    many = {"ppo.cycles": 100_000, "ppo.mix": {"type": "cosine", "first": {"sft": 3}}}
    assert len(with_values(many).ppo.plan) == 100_000


def test_steps_of_a_cycle_are_one_entry_each():
    assert schedule(as_plan([(2, 0), (0, 1)])) == [
        (0, None), (1, "sft"), (1, "sft"), (1, None), (2, "ppo"), (2, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "space",
    [
        {"ppo.lr": {"type": "float", "low": 0.0, "high": 1e300, "step": 1e-300}},
        {"ppo.lr": {"type": "float", "low": 0.0, "high": 1.0, "step": 1e-9}},
        {f"ppo.x{i}": {"type": "int", "low": 0, "high": 9} for i in range(20)},
    ],
)
def test_grids_without_end(space):
    assert "more than 100,000" in problem({"tune": {"sampler": "grid", "space": space}})


def test_prompts_that_do_not_come_out_even():
    values = {"ppo.responses_per_prompt": 512, "ppo.memory": {"type": "adaptive"}}
    assert problem(values).startswith("ppo.responses_per_prompt: 512 does not divide")


# -- names -------------------------------------------------------------------------------------

PATHS = ["", ".", "..", "../x", "/abs", "a/b", "a\\b", "C:x", "~", "a\0b", "a\nb", "x" * 300, "-x"]


@pytest.mark.parametrize("name", [*PATHS, " a", "a ", "a..b", "a.lock", "a."])
def test_names_that_are_paths(name):
    assert problem({"base.experiment": name}).startswith("base.experiment: a name ")
    assert "a name " in problem({"baselines": {name: {"start": "sft", "like": "ppo"}}})
    judge = {name: {"type": "bleu"}}
    assert problem({"evaluate.judges": judge}).startswith("evaluate.judges")


@pytest.mark.parametrize("name", ["mht", "no_clip-0.1", "a+b", "प्रयोग", "実験_2", "x" * 100])
def test_names_that_are_names(name):
    assert name_problem(name) is None
    config = with_values({"base.experiment": name, "evaluate.judges": {name: {"type": "bleu"}}})
    assert config.base.experiment == name
