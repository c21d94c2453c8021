"""What `mht check` sees before `dvc repro` removes anything: names, devices, labels, sizes."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import mht.cli.main
from mht.checks.preflight import notes
from mht.config import load_config
from tests.support.pipeline import ROOT, change_yaml


@pytest.fixture
def check(tmp_path, monkeypatch):
    """A function: the lines of `mht check` on the repository's settings with changes."""
    monkeypatch.chdir(tmp_path)

    def lines(changes):
        change_yaml(ROOT / "params.yaml", Path("params.yaml"), changes)
        done = CliRunner().invoke(mht.cli.main.commands, ["check"])
        assert done.exit_code in (0, 2) and (done.exception is None or done.exit_code == 2)
        found = [line.strip() for line in done.stderr.splitlines()]
        return found[1:] if found and " problem" in found[0] else found

    return lines


@pytest.mark.parametrize("path", ["model.name", "reward_model.encoder"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./models/none", "there is no folder './models/none'"),
        ("/no/such/folder", "there is no folder '/no/such/folder'"),
        ("a/b/c", "there is no folder 'a/b/c'"),
        ("", "is neither a folder here nor a name"),
        ("two words", "is neither a folder here nor a name"),
        ("x" * 300, "is neither a folder here nor a name"),
        ("a\0b", "is neither a folder here nor a name"),
        ("empty", "the folder 'empty' is no model: it has no config.json"),
    ],
)
def test_models_that_are_none(check, path, name, says):
    Path("empty").mkdir()
    found = check({path: name})
    assert len(found) == 1 and found[0].startswith(f"{path}: ") and says in found[0]


def test_what_needs_an_encoder_is_named_where_there_is_none(check):
    found = check({"reward_model.encoder": None})
    assert [line.partition(": ")[0] for line in found] == [
        "reward_model.encoder",
        "evaluate.bertscore_model",
    ]
    assert "set data.labels=null" in found[0] and "'data/raw/encoder'" in found[1]
    sft_only = {"start": "sft", "cycles": 1, "sft_steps_per_cycle": 1, "ppo_steps_per_cycle": 0}
    rows = {"sft_only": sft_only, "hybrid": {"start": "sft", "like": "ppo"}}
    meaning = {"type": "cosine_sts", "model": "data/raw/encoder"}
    alone = {"reward_model.encoder": None, "data.labels": None, "evaluate.bertscore_model": None}
    found = check(alone | {"ppo.reward": meaning, "evaluate.judge": meaning, "baselines": rows})
    assert [line.partition(": ")[0] for line in found] == ["ppo.reward", "evaluate.judge"]
    assert (
        check(
            alone
            | {"ppo.reward": {"type": "rouge_l"}}
            | {
                "evaluate.judge": {"type": "rouge_l"},
                "baselines": rows,
            }
        )
        == []
    )


def test_models_that_may_be(check, tiny_model_dir):
    for name in ("gpt2", "someone/model-1.5", str(tiny_model_dir(layers=6))):
        assert check({"model.name": name, "model.num_layers_unfrozen": 6}) == []


def test_a_name_that_is_nearly_a_bundled_one_is_noted(check):
    assert check({"model.name": "smollm2-135m-instuct"}) == []
    (note,) = notes(load_config())
    assert note.startswith("model.name: 'smollm2-135m-instuct' is looked for on the hub; 'smollm2-")


@pytest.mark.parametrize("name", ["cuda:7", "cuda:-1", "gpu", "meta", "", "cuda:9999999999999999"])
def test_devices_that_are_not_here(check, name):
    if torch.cuda.device_count() > 7:
        pytest.skip("this machine has that many")
    (found,) = check({"base.device": name})
    assert found.startswith(f"base.device: {name!r} ") and found.endswith("try 'auto'")


def test_a_missing_device_with_a_dtype_is_one_line(check):
    (found,) = check({"base.device": "cuda:99", "model.dtype": "float16"})
    assert found.startswith("base.device: 'cuda:99'")


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"benchmark.metrics": ["p_positve"]},
         "benchmark.metrics[0]: no such metric 'p_positve' (did you mean 'p_positive'?). Avail"),
        ({"benchmark.metrics": []}, "benchmark.metrics: is empty"),
        ({"benchmark.metrics": ["reward/nothing"]}, "benchmark.metrics[0]: no such metric"),
        ({"benchmark.metrics": ["judge/nobody"]}, "benchmark.metrics[0]: no such metric"),
        ({"benchmark.metrics": ["x" * 10_000]}, "benchmark.metrics[0]: no such metric 'xxx"),
        ({"benchmark.guard": {"judges": ["vadr"]}},
         "benchmark.guard.judges[0]: no such metric 'vadr' (did you mean 'vader'?)"),
        ({"evaluate.kl_to": None, "benchmark.metrics": ["kl_to_sft_nats"]},
         "benchmark.metrics[0]: no such metric 'kl_to_sft_nats'"),
    ],
)  # fmt: skip
def test_metrics_that_nobody_measures(check, changes, start):
    (found,) = check(changes)
    assert found.startswith(start) and len(found) < 1500


def test_metrics_that_are_measured(check):
    metrics = ["reward", "reward/positive", "reward/varied/post", "judge/other", "bertscore",
               "kl_to_sft_nats", "perplexity_human", "distinct_3", "rouge_l"]  # fmt: skip
    judges = {"other": {"type": "bleu"}}
    assert check({"benchmark.metrics": metrics, "evaluate.judges": judges}) == []
    parts = {"a": {"type": "bleu"}, "b": {"type": "chrf"}}
    mixture = {"ppo.reward": {"type": "mixture", "components": parts}}
    assert check({"benchmark.metrics": ["reward/weight_a"], **mixture}) == []


def test_labels_that_the_reward_model_lacks(check, tmp_path):
    wrong = {"type": "sentiment", "model": "models/reward_model", "target": "joyful"}
    parts = {"type": "min", "components": {"a": {"type": "bleu"}, "b": wrong}}
    (found,) = check({"ppo.reward": parts})
    assert found == (
        "ppo.reward.components.b.target: 'models/reward_model' has no label 'joyful': set one of "
        "negative, positive"
    )
    (tmp_path / "own").mkdir()
    labels = {"id2label": {"0": "sad", "1": "glad"}}
    (tmp_path / "own/config.json").write_text(json.dumps(labels))
    judge = {"type": "classifier", "model": "own", "target": ["GLAD", "mad"]}
    (found,) = check({"evaluate.judge": judge})
    assert found.startswith("evaluate.judge.target: 'own' has no label 'mad': set one of sad, glad")
    assert check({"evaluate.judge": judge | {"target": "Glad"}}) == []


def test_models_of_rewards_that_are_not_there(check):
    def parts(model):
        inner = {"type": "classifier", "model": model, "target": "a"}
        return {"ppo.reward": {"type": "min", "components": [inner, {"type": "bleu"}]}}

    for name in ("./none", "/no/such/folder", "a/b/c"):
        (found,) = check(parts(name))
        assert found == f"ppo.reward.components[0]: there is no folder {name!r}"
    for name in ("models/reward_model/judge", "someone/model@refs/pr/1", "someone/model"):
        assert check(parts(name)) == []


def test_sizes_beyond_the_rows_are_noted(check):
    import pandas as pd

    assert check({}) == []
    Path("data/prepared").mkdir(parents=True)
    assert list(notes(load_config())) == []
    for split, count in {"train": 100, "validation": 40, "test": 150}.items():
        pd.DataFrame({"id": range(count)}).to_parquet(f"data/prepared/{split}.parquet")
    found = dict(line.split(": ", 1) for line in notes(load_config()))
    assert found == {
        "ppo.batch_size": "256 is more than the 100 training rows: some come twice",
        "baselines.ppo_only.batch_size": "256 is more than the 100 training rows: some come twice",
        "evaluate.prompts": "192 is more than the 150 test rows: all are taken",
        "sft.eval_examples": "64 is more than the 40 validation rows: all are taken",
    }
    Path("data/local").mkdir()
    Path("data/local/few.txt").write_text("a text of some words\n" * 100)
    local = {"data.source": {"type": "text", "path": "data/local/few.txt"}}
    assert check(local) == []
    said = CliRunner().invoke(mht.cli.main.commands, ["check"]).stdout
    assert "ppo_only.batch_size: 256 is more than the about 80 training rows: some come" in said
    assert "evaluate.prompts: 192 is more than the about 15 test rows: all are taken" in said
    Path("data/prepared/train.parquet").write_bytes(b"PAR1")
    assert "ppo.batch_size" not in "".join(notes(load_config()))
