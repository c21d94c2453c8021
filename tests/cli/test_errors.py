"""Mistakes of a user's end a stage with exit code 2, one clear message, and nothing lost."""

import hashlib
import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest

import mht.pipeline.stage
from tests.support.pipeline import ROOT, TINY, Clone, change_yaml, save_encoder, write_texts

pytest_plugins = ["tests.support.pipeline", "tests.support.tracking"]

REVIEWS = "data/local/reviews.jsonl"


def snapshot() -> dict[str, str]:
    """Content of every file in the current folder, the tracking store's and locks left out."""
    files = [p for p in Path().rglob("*") if p.is_file() and not p.name.startswith("mlflow.db")]
    files = [p for p in files if ".mht/locks" not in str(p)]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture
def project(store_file, tiny_model_dir):
    """A project's files before its first run, in the current folder."""
    local = Path("data/local")
    local.mkdir(parents=True)
    shutil.copytree(tiny_model_dir(), local / "model")
    write_texts(local)
    change_yaml(ROOT / "params.yaml", Path("params.yaml"), TINY)


@pytest.fixture
def refused(monkeypatch, capsys):
    """A function: what a stage says on stderr when it ends with code 2, less its own name."""
    monkeypatch.setattr(mht.pipeline.stage, "prepare_process", lambda name: None)

    def run(name: str, *arguments: str) -> str:
        module = importlib.import_module(f"stages.{name}")
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.setattr(mht.pipeline.stage, "stage_name", lambda: name)
        with pytest.raises(SystemExit) as left:
            mht.pipeline.stage.run_stage(module.main)
        assert left.value.code == 2
        err = capsys.readouterr().err
        _, found, message = err.partition(f"{name}: ")
        assert found and "Traceback" not in err and "warning" not in err
        return message.removesuffix("\n")

    return run


def edit(**changes) -> None:
    """Change keys of params.yaml; ``__`` for the dots."""
    file = Path("params.yaml")
    change_yaml(file, file, {key.replace("__", "."): value for key, value in changes.items()})


# Settings.

SETTINGS = {
    "unknown at the top": ({"rewards": {}}, "rewards: no such option 'rewards'"),
    "unknown in a section": ({"ppo.kl_coeff": 1.0}, "(did you mean 'kl_coef'?)"),
    "unknown two levels down": ({"ppo.kl_control.targt": 3.0}, "(did you mean 'target'?)"),
    "unknown in a baseline": ({"baselines.ppo_only.kl_control.x": 3.0}, "kl_control.x: no such"),
    "unknown in a component": (
        {"ppo.reward.components.length.mni": 3},
        "ppo.reward.components.length.mni: no such option 'mni' (did you mean 'min'?)",
    ),
    "unknown in a source": (
        {"data.source": {"type": "jsonl", "path": "x.jsonl", "colums": {"text": "body"}}},
        "data.source.colums: no such option 'colums' (did you mean 'columns'?)",
    ),
    "wrong type": ({"sft.steps": "many"}, "sft.steps: should be a valid integer"),
    "a fraction of a step": ({"sft.steps": 1.5}, "sft.steps: "),
    "text for a rate": ({"ppo.lr": "1e-4"}, "ppo.lr: should be a valid number, got '1e-4'"),
    "a list for a section": ({"ppo": []}, "ppo: should be a valid"),
    "out of range": ({"ppo.gamma": 1.5}, "ppo.gamma: should be less than or equal to 1, got 1.5"),
    "negative": ({"reward_model.lr": -1.0}, "reward_model.lr: should be greater than 0, got -1.0"),
    "neither of two kinds": (
        {"model.num_layers_unfrozen": 0},
        "model.num_layers_unfrozen: should be greater than 0, or should be 'all', got 0",
    ),
    "not finite": ({"sft.lr": float("nan")}, "sft.lr: "),
    "no choice": ({"ppo.optimizer": {"type": "adamx"}}, "ppo.optimizer.type: should be 'adamw'"),
    "together impossible": (
        {"ppo.minibatch_size": 3},
        "ppo.minibatch_size: 3 does not divide batch_size 256",
    ),
    "an option of another optimiser": (
        {"ppo.optimizer": {"type": "adamw", "momentum": 0.9}},
        "ppo.optimizer.momentum: adamw has no option 'momentum'; it has amsgrad, betas, decay_",
    ),
    "no option of any optimiser": (
        {"sft.optimizer": {"type": "lion", "beta": 0.9}},
        "sft.optimizer.beta: no such option 'beta' (did you mean 'betas'?). Available: betas, dec",
    ),
    "an option of another schedule": (
        {"ppo.scheduler": {"type": "linear", "num_cycles": 2}},
        "ppo.scheduler.num_cycles: linear has no option 'num_cycles'; it has warmup_ratio, warmup_",
    ),
    "a warm-up of what does not change": (
        {"ppo.scheduler": {"type": "constant", "warmup_steps": 2}},
        "ppo.scheduler.warmup_steps: constant has no option 'warmup_steps'; it has none",
    ),
    "a warm-up that never ends": (
        {"ppo.scheduler.warmup_steps": 500},
        "ppo.scheduler.warmup_steps: 500 are more than all 112 optimiser steps: lower it",
    ),
    "a decay that does not fit": (
        {"sft.scheduler": {"type": "warmup_stable_decay", "warmup_steps": 120, "decay_steps": 60}},
        "sft.scheduler.decay_steps: 60 steps and the warm-up's 120 are more than all 160 optimiser",
    ),
    "a warm-up in two ways": (
        {"ppo.scheduler": {"type": "linear", "warmup_steps": 2, "warmup_ratio": 0.1}},
        "ppo.scheduler.warmup_ratio: has the same meaning as warmup_steps: set one of them to null",
    ),
    "a rate that ends above its start": (
        {"ppo.scheduler": {"type": "polynomial", "lr_end": 0.1}},
        "ppo.scheduler.lr_end: should be below the learning rate 0.001, got 0.1",
    ),
    "a cosine without its floor": (
        {"ppo.scheduler": {"type": "cosine_with_min_lr"}},
        "ppo.scheduler.min_lr: cosine_with_min_lr needs it, or min_lr_rate",
    ),
    "half a restart": (
        {"ppo.scheduler": {"type": "cosine_with_restarts", "num_cycles": 1.5}},
        "ppo.scheduler.num_cycles: should be a whole number, got 1.5",
    ),
    "nesterov without momentum": (
        {"ppo.optimizer": {"type": "sgd", "nesterov": True}},
        "ppo.optimizer.nesterov: needs a momentum above 0 and no dampening",
    ),
    "truncated sampling in PPO": (
        {"ppo.top_k": 50},
        "ppo.top_k: PPO samples from the distribution that it scores, the whole one; truncated",
    ),
    "the same in a baseline": (
        {"baselines.ppo_only.min_p": 0.1},
        "Set ppo.temperature instead, or truncate where nothing trains: in evaluate.decoding",
    ),
    "a microbatch above SFT's batch": (
        {"sft.microbatch_size": 32},
        "sft.microbatch_size: 32 is more than batch_size 16: lower it, or set null",
    ),
    "a microbatch above both batches": (
        {"ppo.microbatch_size": 192},
        "ppo.microbatch_size: 192 is more than minibatch_size 128 and sft_batch_size 16: lower it",
    ),
    "cycles of nothing": (
        {"baselines.ppo_only.ppo_steps_per_cycle": 0},
        "baselines.ppo_only.cycles: 17 cycles have no step: set sft_steps_per_cycle or ppo_steps",
    ),
    "more layers than the bundled model has": (
        {"model.num_layers_unfrozen": 31},
        "model.num_layers_unfrozen: 31 does not fit the 30 layers of 'smollm2-135m-instruct'; set",
    ),
    "more layers than the bundled encoder has": (
        {"reward_model.num_layers_unfrozen": 7},
        "reward_model.num_layers_unfrozen: 7 does not fit the 6 layers of 'all-MiniLM-L6-v2'",
    ),
    "a response as long as the context": (
        {"ppo.response_tokens": 8192},
        "ppo.response_tokens: 8192 leaves no room for a prompt in the 8192 of 'smollm2-135m",
    ),
    "nothing left to train on": ({"data.splits.test": 0.9}, "data.splits: the shares leave"),
    "unknown reward": (
        {"ppo.reward.components.positive.type": "sentimnt"},
        "ppo.reward.components.positive.type: unknown reward 'sentimnt' (did you",
    ),
    "unknown source": ({"data.source.type": "jsonn"}, "unknown source 'jsonn' (did you mean 'json"),
    "reward without a type": ({"evaluate.judge": {"model": "x"}}, "evaluate.judge.type: "),
    "missing": ({"sft": {}}, "sft.steps: is required and missing"),
}


@pytest.mark.parametrize(("changes", "says"), SETTINGS.values(), ids=SETTINGS.keys())
def test_a_wrong_setting_is_named(refused, tmp_path, monkeypatch, changes, says):
    monkeypatch.chdir(tmp_path)
    change_yaml(ROOT / "params.yaml", Path("params.yaml"), changes)
    message = refused("prepare")
    lines = ["", *message.splitlines()][-2:]
    assert lines[0] in ("", "1 problem in params.yaml")
    assert says in lines[1]
    assert lines[1].strip().startswith(next(iter(changes)).split(".")[0])
    assert list(snapshot()) == ["params.yaml"]


def test_all_mistakes_are_shown_at_once(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mistakes = {
        "base.sed": 1,
        "model.num_layers_unfrozen": 0,
        "data.source.type": "jsonn",
        "ppo.reward.components.length.mni": 3,
        "ppo.reward.components.positive.type": "sentimnt",
        "baselines.ppo_only.clip_range": "wide",
        "benchmark.samples": -1,
    }
    change_yaml(ROOT / "params.yaml", Path("params.yaml"), mistakes)
    message = refused("prepare")
    assert message.startswith("7 problems in params.yaml")
    assert all(f"  {path}" in message for path in mistakes), message
    assert len(message.splitlines()) == 8


# Data.

GOOD = '{"text": "I think that the film was good and we saw it again ."}\n'
BAD_FILES = {
    "empty": (b"", f"{REVIEWS}: the file is empty"),
    "broken line": (f'{GOOD}{GOOD}{{"text": "no end\n'.encode(), f"{REVIEWS}:3: column"),
    "not UTF-8": (
        GOOD.encode() + '{"text": "caf\u00e9"}\n'.encode("latin-1"),
        f"{REVIEWS}:2: byte",
    ),
    "not an object": (GOOD.encode() + b"[1, 2]\n", f"{REVIEWS}:2: should be an object"),
    "a number for a text": (b'{"text": 3}\n', f"{REVIEWS}:1: column 'text' should be a string"),
    "another column": (b'{"txt": "a"}\n', "data.source.columns"),
}


@pytest.mark.parametrize(("content", "says"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_wrong_data_file_is_named_with_its_line(project, refused, content, says):
    Path(REVIEWS).write_bytes(content)
    before = snapshot()
    message = refused("fetch")
    assert message.startswith(says) and "\n" not in message
    assert snapshot() == before


def test_a_misnamed_column_and_file_are_guessed(project, refused):
    edit(data__labels__columns={"text": "coment", "rating": "stars"})
    message = refused("fetch")
    assert message.startswith("data.labels.columns.text: data/local/stars.csv has no column")
    assert "did you mean 'comment'?" in message and "comment, stars" in message
    edit(data__source={"type": "jsonl", "path": "data/local/review.jsonl"})
    message = refused("fetch")
    assert message.startswith("data.source.path: no such file 'data/local/review.jsonl'")
    assert "did you mean 'reviews.jsonl'?" in message and "\n" not in message


def test_labels_without_ratings_are_refused(project, refused):
    edit(data__labels={"type": "jsonl", "path": REVIEWS})
    message = refused("fetch")
    assert message.startswith("data.labels: row 1") and "data.labels.columns.rating" in message


def test_a_prompt_longer_than_the_context_is_named_with_its_row(project, refused):
    rows = [json.loads(GOOD), {"text": " ".join(["film"] * 400)}]
    Path("data/raw").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    Path("data/raw/examples.jsonl").write_text(text, encoding="utf-8")
    Path("data/raw/labels.jsonl").write_text("", encoding="utf-8")
    shutil.copytree("data/local/model", "models/base")
    edit(data__prompt_words=300)
    before = snapshot()
    message = refused("prepare")
    assert message.startswith("row 2 of data.source: its prompt has ")
    assert "the model's context 256" in message and "data.long_prompts" in message
    assert "\n" not in message
    assert snapshot() == before


# Models.


@pytest.fixture
def encoder(project):
    save_encoder(Path("data/local/encoder"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("data/local", "model.name: 'data/local' is no model folder: it has no config.json"),
        ("./models/none", "model.name: there is no folder './models/none'"),
        ("data/local/encoder", "model.name: 'data/local/encoder' is a BertModel, not a causal"),
        ("smolm2-135m-instruct", "did you mean 'smollm2-135m-instruct'?"),
        ("someone/some-model", "model.name: 'someone/some-model' is no folder here and not"),
    ],
)
def test_a_model_that_is_none_is_named(encoder, refused, monkeypatch, name, says):
    monkeypatch.setenv("HF_HUB_CACHE", str(Path("hub").absolute()))
    Path("models/sft").mkdir(parents=True)
    Path("models/sft/model.safetensors").write_bytes(b"of an earlier run")
    before = snapshot()
    edit(model__name=name)
    message = refused("fetch")
    assert says in message and "\n" not in message
    kept = {k: v for k, v in snapshot().items() if k in before and k != "params.yaml"}
    assert kept == {k: v for k, v in before.items() if k != "params.yaml"}


def test_more_layers_than_the_model_has(clone, refused, monkeypatch):
    monkeypatch.chdir(clone.path)
    clone.set_params({"model.num_layers_unfrozen": 9})
    before = snapshot()
    message = refused("sft")
    assert message.startswith("model.num_layers_unfrozen: 9 ") and "2 layers" in message
    assert "\n" not in message
    assert snapshot() == before


@pytest.mark.parametrize("name", ["ppo", "evaluate"])
def test_an_unknown_variant_is_named(project, refused, name):
    message = refused(name, "sft-only")
    assert "sft_only, ppo_only" in message and "got 'sft-only'" in message


def test_an_unknown_benchmark_metric_is_guessed(clone, refused, monkeypatch):
    monkeypatch.chdir(clone.path)
    clone.set_params({"benchmark.metrics": ["vadar"]})
    message = refused("benchmark")
    assert "benchmark.metrics" in message and "did you mean 'vader'?" in message


# The same as processes.


def test_processes_end_with_code_2_and_no_traceback(project):
    Path(REVIEWS).write_text(f'{GOOD}{{"text": no}}\n', encoding="utf-8")
    here = Clone(Path.cwd())
    params = Path("params.yaml").read_text(encoding="utf-8")

    done = here.run(sys.executable, "-m", "stages.fetch", code=2, PYTHONPATH=str(ROOT))
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"fetch: {REVIEWS}:2: column") and done.stdout == ""

    edit(ppo__kl_coef=-1.0, sft__stepz=3)
    for words in (["-m", "stages.prepare"], ["-m", "mht", "check"]):
        done = here.run(sys.executable, *words, code=2, PYTHONPATH=str(ROOT))
        first, *rest = done.stderr.splitlines()
        assert first.endswith("2 problems in params.yaml")
        assert [line.split(":")[0].strip() for line in sorted(rest)] == ["ppo.kl_coef", "sft.stepz"]

    Path("params.yaml").write_text(params.replace("sft:", "sft: [", 1), encoding="utf-8")
    done = here.run(sys.executable, "-m", "mht", "check", code=2, PYTHONPATH=str(ROOT))
    assert "Traceback" not in done.stderr and "params.yaml" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_the_repositorys_settings_are_right():
    from typer.testing import CliRunner

    import mht.cli.main

    done = CliRunner().invoke(mht.cli.main.commands, ["check", str(ROOT / "params.yaml")])
    assert done.exit_code == 0 and "note:" not in done.stdout, done.output


# A tracking store that can't be used.


def broken_stores(folder: Path) -> dict[str, str]:
    (folder / "file").write_text("")
    (folder / "garbage.db").write_text("this is no database\n" * 100)
    readonly = f"file:{folder / 'mlflow.db'}?mode=ro&uri=true"
    return {
        "no folder for it": f"sqlite:///{folder / 'file' / 'mlflow.db'}",
        "no database": f"sqlite:///{folder / 'garbage.db'}",
        "read-only": f"sqlite:///{readonly}",
    }


@pytest.mark.parametrize("kind", ["no folder for it", "no database", "read-only"])
def test_without_a_store_a_stage_goes_on(clone, monkeypatch, capsys, tmp_path, kind):
    from stages import prepare

    shutil.copy(clone.path / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", broken_stores(tmp_path)[kind])
    monkeypatch.setattr(mht.pipeline.stage, "prepare_process", lambda name: None)
    monkeypatch.chdir(clone.path)
    before = snapshot()
    outputs = [name for name in before if name.startswith(("data/prepared/", "metrics/prepare"))]
    for name in outputs:
        Path(name).unlink()
    mht.pipeline.stage.run_stage(prepare.main)
    warnings = [x for x in capsys.readouterr().err.splitlines() if x.startswith("warning:")]
    assert len(warnings) == 1 and "tracking could not" in warnings[0]
    assert outputs and {k: v for k, v in snapshot().items() if k in outputs} == {
        k: before[k] for k in outputs
    }
