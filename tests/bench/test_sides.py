"""The bench: two real sides that take turns on a tiny model, and its arithmetic."""

import importlib
import json
import time
from pathlib import Path

import pytest

from bench import peers, reach, run
from bench.figures import memory
from bench.floor import Model, best, floor, machine_rates, work
from bench.growth import Growth, shallower
from bench.peers import Side, python_of
from bench.reach import Reach
from bench.rows import ROWS, Turns
from bench.worker import peak_gb

ROOT = Path(__file__).parents[2]
COMPARED = (
    *("ppo_iteration_frozen", "ppo_iteration_full", "rollout", "sft", "time_to_reward"),
    "memory",
)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch, tmp_path):
    """Sides are found from the root; what they say of errors goes elsewhere."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr("bench.growth.ENVIRONMENTS", tmp_path)


@pytest.fixture
def step(tiny_model_dir):
    return {"model": str(tiny_model_dir()), "batch": 4, "prompt": 3, "response": 5}


class Here:
    """A side in this process, which spares the start of one; the first test has two of those."""

    def __init__(self, environment, side, settings):
        self.do = importlib.import_module(f"bench.sides.{side}").prepare(settings)

    def once(self):
        began = time.perf_counter()
        return {**self.do(), "peak_gb": peak_gb(), "seconds": time.perf_counter() - began}

    def close(self):
        del self.do


def test_two_sides_take_turns(step):
    found = Turns("mht_rollout", "hf_rollout", "transformers.generate", "", step, 2).measure()
    ratio = found["ratio"]
    assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    for side in ("mht", "theirs"):
        speed, seconds = found[side]["tokens_per_s"], found[side]["seconds"]
        assert speed["max"] * seconds["min"] == pytest.approx(20, rel=0.05)  # 4 rows of 5 tokens
        assert 0.1 < found[side]["peak_gb"] < 4


def test_a_ppo_iteration_makes_all_its_updates(step):
    side = Here("", "mht_ppo", step | {"minibatch": 2, "epochs": 3, "unfrozen": 1})
    figures = side.once()
    assert figures["updates"] == 6
    assert figures["tokens"] == 20
    assert 0 < sum(figures["phases"].values()) <= figures["seconds"]


def test_a_side_that_fails_names_its_log(tmp_path):
    side = Side(python_of(""), "no_such_side", {})
    with pytest.raises(RuntimeError, match=r"no_such_side has ended: see .*no_such_side\.log"):
        side.answer()
    assert "ModuleNotFoundError" in (tmp_path / "no_such_side.log").read_text()


def test_memory_is_theirs_over_ours():
    row = {"mht": {"peak_gb": 2.0}, "theirs": {"peak_gb": 5.0}}
    found = memory({"rollout": row, "memory": {}, "time_to_reward": {"theirs": {}}})
    assert found["rows"] == {"rollout": {"ratio": 2.5, "mht_gb": 2.0, "theirs_gb": 5.0}}
    assert found["ratio"]["median"] == 2.5


class Scripted:
    """A side whose rounds are known."""

    def __init__(self, seconds, positives):
        self.rounds = iter(
            {"seconds": seconds, "kl": 1.0} | ({} if p is None else {"positive": p, "length": 9})
            for p in positives
        )

    def once(self):
        return next(self.rounds)

    def close(self):
        assert next(self.rounds, None) is None, "asked for fewer rounds than scripted"


def test_time_to_reward(monkeypatch):
    """Ours is there at its first look, after 2 x 3 s; theirs at its second, after 4 x 10 s."""
    sides = [Scripted(3.0, [None, 0.8]), Scripted(10.0, [None, 0.6, None, 0.75])]
    monkeypatch.setattr(reach, "started", lambda *asked: sides)
    found = Reach(iterations=6, prompts=4).measure()
    assert found["ratio"]["median"] == pytest.approx(40 / 6, abs=1e-3)
    assert found["theirs"]["reached"]
    [curve] = found["theirs"]["curves"]
    assert [(look["iteration"], look["seconds"]) for look in curve] == [(2, 20.0), (4, 40.0)]


def test_a_peer_that_does_not_get_there_is_said_so(monkeypatch):
    sides = [Scripted(3.0, [None, 0.8]), Scripted(10.0, [None, 0.6, None, 0.7])]
    monkeypatch.setattr(reach, "started", lambda *asked: sides)
    found = Reach(iterations=4, prompts=4).measure()
    assert not found["theirs"]["reached"]
    assert found["ratio"]["median"] == pytest.approx(40 / 6, abs=1e-3)  # at least that
    assert run._speed(found["theirs"]) == "not in 40.0 s"


def test_the_floor_counts_what_must_be_done(step):
    model = Model.of(step["model"])
    s = step | {"minibatch": 2, "epochs": 3, "unfrozen": "all"}
    full, frozen = work(model, s), work(model, s | {"unfrozen": 1})
    fed, predicted = 4 * 7, 4 * 5
    once = 2 * (fed * model.layers * model.layer + predicted * model.head)
    assert full["assess"].flop == once  # the reference is another model
    assert full["update"].flop == 3 * 3 * once  # one way forward, two gradients, three epochs
    assert frozen["sample"] == full["sample"]
    assert frozen["update"].flop < full["update"].flop
    assert frozen["assess"].flop < full["assess"].flop


def test_phases_beside_their_floors(step, monkeypatch):
    monkeypatch.setattr("bench.floor.machine_rates", lambda: (1e6, 1e9))
    settings = step | {"minibatch": 2, "epochs": 3, "unfrozen": 1}
    seconds = {"median": 8.0, "min": 7.0, "max": 9.0}
    phases = dict.fromkeys(("sample", "assess", "update"), seconds)
    found = floor({"row": {"settings": settings, "mht": {"phases": phases}}, "memory": {}})
    needed = work(Model.of(step["model"]), settings)
    for phase, of_phase in found["rows"]["row"].items():
        least = max(needed[phase].flop / 1e6, needed[phase].bytes / 1e9)
        assert of_phase["times_floor"] == pytest.approx(8 / least, abs=0.01)
    assert found["machine"] == {"gflop_per_s": 0.0, "gb_per_s": 1.0}
    assert floor({"rollout": {"mht": {}}}) == {}


def test_rates_of_this_machine(monkeypatch):
    monkeypatch.setattr("bench.floor.CUBE", 256)
    monkeypatch.setattr("bench.floor.COPY", 2**20)
    flop, moved = machine_rates()
    assert 1e8 < flop < 1e15
    assert 1e8 < moved < 1e14
    assert best(lambda: None, rounds=2) < 0.1


def test_growth_by_depth(step, monkeypatch):
    monkeypatch.setattr("bench.growth.started", lambda *sides: [Here(*side) for side in sides])
    monkeypatch.setattr("bench.growth.BATCHES", (2,))
    monkeypatch.setattr("bench.growth.RESPONSES", ())
    monkeypatch.setattr("bench.growth.DEPTHS", (1,))
    start = step | {"minibatch": 2, "epochs": 1, "unfrozen": 1}
    found = Growth(start, rounds=1, unfrozen=1).measure()["points"]
    assert set(found) == {"as compared", "batch", "layers"}
    assert Model.of(shallower(step["model"], 1)).layers == 1
    assert found["batch"]["2"]["tokens_per_s"]["median"] > 0


def test_rewards_are_measured_or_have_a_note(monkeypatch, tmp_path, tiny_model_dir):
    from bench import rewards

    monkeypatch.setattr(rewards, "PIPELINE", {"perplexity": {"model": str(tiny_model_dir())}})
    kinds = ("exact_match", "perplexity", "truth_nli", "python", "min", "reward_model")
    chosen = [cls for cls in rewards.built_in() if cls.type_name in kinds]
    monkeypatch.setattr(rewards, "built_in", lambda: chosen)
    step = {"ppo_iteration_frozen": {"mht": {"seconds": {"median": 2.0}}}}
    (tmp_path / "results.json").write_text(json.dumps(step))
    found = rewards.Rewards(tmp_path / "results.json", rounds=1, texts=4).measure()
    skipped = {name for name, figures in found["types"].items() if "skipped" in figures}
    assert skipped == {"truth_nli", "python", "reward_model"} and len(found["types"]) == 6
    assert "cross-encoder/nli-deberta-v3-small" in found["types"]["truth_nli"]["skipped"]
    measured = found["types"]["perplexity"]
    ratio = measured["together_per_s"]["median"] / measured["alone_per_s"]["median"]
    assert measured["ratio"]["median"] == pytest.approx(ratio, rel=0.01) and ratio > 0
    tree = found["tree"]
    assert 0 < tree["overhead_ms"]["median"] < 1000
    assert tree["share_of_ppo_step"] == pytest.approx(tree["overhead_ms"]["median"] / 2000)
    run.show({"rewards": found})
    assert "share_of_ppo_step" not in rewards.Rewards(tmp_path / "none", 1, 2).measure()["tree"]


def test_rewards_of_the_bench_differ_from_round_to_round():
    from bench.rewards import batch

    texts = [sample.response for number in range(3) for sample in batch(16, number)]
    assert len(set(texts)) == len(texts)


def test_an_unknown_row_is_refused(capsys):
    assert run.main(["speed"]) == 2
    assert "no row speed; there are ppo_iteration_frozen" in capsys.readouterr().err


def test_committed_results_are_of_the_rows_as_they_stand():
    if not run.RESULTS.exists():
        pytest.skip("nothing was measured yet")
    results = json.loads(run.RESULTS.read_text())
    assert set(results) <= {*ROWS, "memory", "floor", "machine"}
    for name in set(COMPARED) & set(results):
        ratio = results[name]["ratio"]
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    for name, row in ROWS.items():
        if isinstance(row, Turns) and name in results:
            assert results[name]["settings"] == json.loads(json.dumps(dict(row.settings)))
    run.show(results)
