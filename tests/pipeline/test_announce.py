"""The lines around a stage's work: its place, what it does, how long it takes."""

import json
from pathlib import Path

import pytest

from mht.config import load_config
from mht.pipeline.announce import announced, place_of
from tests.support.pipeline import STAGES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params():
    return load_config(ROOT / "params.yaml").resolved()


def test_every_stage_has_a_place_and_a_line(params):
    places = {name: place_of(name, ROOT / "dvc.yaml", params) for name in STAGES}
    assert sorted(place.number for place in places.values()) == [*range(1, len(STAGES) + 1)]
    assert {place.count for place in places.values()} == {len(STAGES)}
    assert places["ppo@hybrid"].what == "the cycles of each variant"
    assert place_of("tune", ROOT / "dvc.yaml", params) is None
    assert place_of("sft", ROOT / "none.yaml", params) is None


def test_the_next_run_knows_how_long_it_takes(params, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    clock = iter([0.0, 480.0, 1000.0, 1030.0])
    monkeypatch.setattr("mht.pipeline.announce.time.monotonic", lambda: next(clock))
    with announced("ppo@hybrid", params):
        print("work")
    assert capsys.readouterr().out.splitlines() == [
        "[8/13] ppo@hybrid: the cycles of each variant",
        "work",
        "ppo@hybrid: done in 8 min",
    ]
    assert json.loads(Path(".mht/durations.json").read_text()) == {"ppo@hybrid": 480.0}
    with announced("ppo@hybrid", params):
        pass
    assert "the cycles of each variant, about 8 min\n" in capsys.readouterr().out


def test_a_stage_that_fails_took_no_time(params, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    Path(".mht").mkdir()
    Path(".mht/durations.json").write_text("{broken")
    with pytest.raises(ZeroDivisionError), announced("sft", params):
        raise ZeroDivisionError
    assert "done" not in capsys.readouterr().out
    assert Path(".mht/durations.json").read_text() == "{broken"
    with announced("sft", params):
        pass
    assert json.loads(Path(".mht/durations.json").read_text()).keys() == {"sft"}
