"""The bench: two real sides that take turns on a tiny model, and its arithmetic."""

import json
from pathlib import Path

import pytest

from bench import run
from bench.run import Row, Side, compare, memory, python_of, spread

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch, tmp_path):
    """Sides are found from the root; what they say of errors goes elsewhere."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(run, "ENVIRONMENTS", tmp_path)


def test_two_sides_take_turns(tiny_model_dir):
    settings = {"model": str(tiny_model_dir()), "batch": 4, "prompt": 3, "response": 5}
    found = compare(Row("mht_rollout", "hf_rollout", "transformers.generate", "", settings, 2))
    ratio = found["ratio"]
    assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    for side in ("mht", "theirs"):
        speed, seconds = found[side]["tokens_per_s"], found[side]["seconds"]
        assert speed["max"] * seconds["min"] == pytest.approx(20, rel=0.05)  # 4 rows of 5 tokens
        assert 0.1 < found[side]["peak_gb"] < 4


def test_a_ppo_iteration_makes_all_its_updates(tiny_model_dir):
    settings = {"model": str(tiny_model_dir()), "batch": 4, "prompt": 3, "response": 5}
    side = Side(python_of(""), "mht_ppo", settings | {"minibatch": 2, "epochs": 3, "unfrozen": 1})
    assert side.answer() == {"ready": True}
    figures = side.once()
    side.close()
    assert figures["updates"] == 6
    assert figures["tokens"] == 20


def test_a_side_that_fails_names_its_log(tmp_path):
    side = Side(python_of(""), "no_such_side", {})
    with pytest.raises(RuntimeError, match=r"no_such_side has ended: see .*no_such_side\.log"):
        side.answer()
    assert "ModuleNotFoundError" in (tmp_path / "no_such_side.log").read_text()


def test_spread_and_memory():
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
    row = {"mht": {"peak_gb": 2.0}, "theirs": {"peak_gb": 5.0}}
    found = memory({"rollout": row, "memory": {}, "machine": {}})
    assert found["rows"]["rollout"] == {"ratio": 2.5, "mht_gb": 2.0, "theirs_gb": 5.0}
    assert found["ratio"]["median"] == 2.5


def test_an_unknown_row_is_refused(capsys):
    assert run.main(["speed"]) == 2
    assert "no row speed; there are ppo_iteration_frozen" in capsys.readouterr().err


def test_committed_results_are_of_known_rows():
    if not run.RESULTS.exists():
        pytest.skip("nothing was measured yet")
    results = json.loads(run.RESULTS.read_text())
    assert set(results) <= {*run.ROWS, "memory", "machine"}
    for name in set(results) & set(run.ROWS):
        assert results[name]["settings"] == json.loads(json.dumps(run.ROWS[name].settings))
