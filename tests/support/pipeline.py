"""A clone of this repository whose whole pipeline has run, on tiny random models and a few texts.

``finished`` is the clone after two `dvc repro`, once for all tests and all test processes: only to
look at. ``clone`` is a copy of it for one test to work in.
"""

from __future__ import annotations

import copy
import csv
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
STAGES = {
    "variants", "fetch", "prepare", "reward_model", "sft", "ppo@hybrid", "ppo@sft_only",
    "ppo@ppo_only", "evaluate@hybrid", "evaluate@sft_only", "evaluate@ppo_only",
    "evaluate_untrained@base", "benchmark",
}  # fmt: skip
# What the repository's own params.yaml is changed by, so that it all takes a minute. The budgets
# stay equal: 4 + 2 * (1 + 2) = 4 + 2 * 3 = 5 * 2 optimiser steps.
TINY = {
    "model.name": "data/local/model",
    "model.num_layers_unfrozen": 1,
    "data.source": {"type": "jsonl", "path": "data/local/reviews.jsonl"},
    "data.labels": {
        "type": "csv",
        "path": "data/local/stars.csv",
        "columns": {"text": "comment", "rating": "stars"},
        "rating_range": [1, 5],
    },
    "data.max_target_tokens": 32,
    "reward_model.encoder": "data/local/encoder",
    "reward_model.epochs": 1,
    "reward_model.batch_size": 16,
    "reward_model.num_layers_unfrozen": 1,
    "sft.steps": 4,
    "sft.batch_size": 4,
    "sft.scheduler.warmup_steps": 2,
    "ppo.cycles": 2,
    "ppo.sft_steps_per_cycle": 1,
    "ppo.ppo_steps_per_cycle": 1,
    "ppo.scheduler.warmup_steps": 2,
    "baselines.sft_only.scheduler.warmup_steps": 2,
    "baselines.sft_only.cycles": 2,
    "baselines.sft_only.sft_steps_per_cycle": 3,
    "baselines.ppo_only.cycles": 5,
    "baselines.ppo_only.ppo_steps_per_cycle": 1,
    "evaluate.prompts": 12,
    "evaluate.decoding.response_tokens": 6,
    "evaluate.bertscore_layer": 1,
    "evaluate.resamples": 50,
    "benchmark.samples": 4,
    "benchmark.resamples": 50,
}
TINY |= {
    f"{variant}.{key}": value
    for variant in ("ppo", "baselines.ppo_only")
    for key, value in {
        "batch_size": 8, "minibatch_size": 4, "epochs": 1, "response_tokens": 6,
    }.items()
}  # fmt: skip

SUBJECTS = ["film", "plot", "cast", "story", "music", "scene", "ending", "script"]
GOODNESS = {"good": 3, "warm": 2, "funny": 2, "calm": 1, "bad": -3, "dull": -2, "slow": -1}
ENDS = ["so we saw it again", "and the end of it too", "as we had thought before"]


@dataclass(frozen=True)
class Clone:
    """A working copy of the repository, away from it.

    Attributes:
        path: its root.
    """

    path: Path

    def run(self, *command: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess:
        """The finished process of a command there; ``code`` is what it must end with."""
        done = subprocess.run(
            command, cwd=self.path, env={**environment(self.path), **env}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert code is None or done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def dvc(self, *words: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess:
        """The same for a `dvc` command."""
        return self.run("dvc", *words, code=code, **env)

    def commit(self, message: str = "state") -> None:
        """All that git does not ignore, into a commit."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

    def set_params(self, changes: Mapping[str, Any]) -> None:
        """Change keys of params.yaml, each a dotted path."""
        file = self.path / "params.yaml"
        change_yaml(file, file, changes)

    def json(self, path: str) -> Any:
        """The data of a JSON file."""
        return json.loads((self.path / path).read_text(encoding="utf-8"))

    def curve(self, variant: str, phase: str) -> list[dict[str, float]]:
        """The figures of the steps of a phase, from plots/."""
        with open(self.path / "plots" / variant / f"{phase}.csv", encoding="utf-8") as file:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]

    def lock(self) -> dict[str, Any]:
        """The stages of dvc.lock."""
        return YAML(typ="safe").load(self.path / "dvc.lock")["stages"]


def environment(root: Path) -> dict[str, str]:
    """Of a person's shell in a clone: this Python first, a name for git, and no way out."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_", "MLFLOW_"))}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    for who in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{who}_NAME": "someone", f"GIT_{who}_EMAIL": "someone@example.com"}
    nowhere = "http://127.0.0.1:9"
    env |= {"http_proxy": nowhere, "https_proxy": nowhere, "HF_HUB_OFFLINE": "1"}
    return env | {"DVC_SITE_CACHE_DIR": str(root.parent / "site"), "PYTHONPATH": quick_start()}


@functools.cache
def quick_start() -> str:
    """A folder for PYTHONPATH: without garbage collection imports take a fifth less time."""
    folder = Path(tempfile.mkdtemp())
    (folder / "sitecustomize.py").write_text("import gc\n\ngc.disable()\n")
    return str(folder)


def change_yaml(source: Path, target: Path, changes: Mapping[str, Any]) -> None:
    """Write a YAML file with some keys changed; the parents of each must be there."""
    yaml = YAML()
    data = yaml.load(source)
    for path, value in changes.items():
        *parents, key = path.split(".")
        node = data
        for parent in parents:
            node = node[parent]
        node[key] = copy.deepcopy(value)
    yaml.dump(data, target)


def copy_repository(target: Path) -> None:
    """The files that git tracks or would track, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def write_texts(folder: Path) -> None:
    """Reviews to write on, as JSON Lines, and other ones with one to five stars, as CSV."""
    made = list(itertools.product(SUBJECTS, GOODNESS, ENDS))
    texts = [
        (f"I think that the {subject} was {word} , {end} .", 3 + GOODNESS[word] / 2)
        for subject, word, end in made
    ]
    rows = [json.dumps({"text": text, "place": n}) for n, (text, _) in enumerate(texts[::2])]
    (folder / "reviews.jsonl").write_text("\n".join(rows) + "\n")
    lines = [f'"{text}",{stars}' for text, stars in texts[1::2]]
    (folder / "stars.csv").write_text("\n".join(["comment,stars", *lines]) + "\n")


def save_encoder(folder: Path) -> None:
    """A random BERT of two layers with a word tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *SUBJECTS, *GOODNESS, "the", "was", "a", "it", ","]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    shape = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(words), num_hidden_layers=2, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    named = {f"{k}_token": f"[{k.upper()}]" for k in ("pad", "unk", "cls", "sep")}
    PreTrainedTokenizerFast(tokenizer_object=core, **named).save_pretrained(folder)


def make_clone(root: Path, model: Path) -> Clone:
    """A committed clone with tiny models, texts and settings; nothing has run in it."""
    copy_repository(root)
    local = root / "data" / "local"
    shutil.copytree(model, local / "model")
    save_encoder(local / "encoder")
    write_texts(local)
    made = Clone(root)
    made.set_params(TINY)
    made.run("git", "init", "-q", ".")
    made.run("git", "add", "-f", "data/local")  # git ignores it: for `dvc exp run --temp`
    made.commit("tiny")
    return made


@dataclass(frozen=True)
class Finished(Clone):
    """The clone after its pipeline ran, was committed, and was asked to run again.

    Attributes:
        first: output of the first `dvc repro`.
        second: of the second.
        second_s: seconds the second took.
        added: what the second one added to the tracking store, as text; empty if nothing.
        left: what git saw as changed after the second.
    """

    first: str
    second: str
    second_s: float
    added: str
    left: str


def run_twice(made: Clone) -> dict[str, Any]:
    """Run the pipeline, commit, run it again; what `Finished` says of both."""
    first = made.dvc("repro")
    made.commit("repro")
    before = (made.path / "mlflow.db").read_bytes()
    began = time.monotonic()
    second = made.dvc("repro")
    second_s = time.monotonic() - began
    after = (made.path / "mlflow.db").read_bytes()
    left = made.run("git", "status", "--porcelain").stdout
    return {
        "first": first.stdout + first.stderr, "second": second.stdout + second.stderr,
        "second_s": second_s, "added": "" if before == after else "the database changed",
        "left": left,
    }  # fmt: skip


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], dict[str, Any]]
) -> tuple[Path, dict[str, Any]]:
    """A folder for all test processes, and what the one that made it says of it.

    Args:
        factory: of the process's temporary folders.
        name: of the folder.
        make: called by the process that comes first, with the path of a clone to make there.
    """
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root, seen = base / name / "mht", base / f"{name}.json"
    with FileLock(base / f"{name}.lock"):
        if not seen.exists():
            shutil.rmtree(root, ignore_errors=True)
            seen.write_text(json.dumps(make(root)), encoding="utf-8")
    return root, json.loads(seen.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_model_dir) -> Finished:
    """The finished clone, made by whichever test process comes first."""

    def make(root: Path) -> dict[str, Any]:
        return run_twice(make_clone(root, tiny_model_dir()))

    root, seen = made_once(tmp_path_factory, "finished", make)
    return Finished(root, **seen)


def copy_of(made: Clone, root: Path) -> Clone:
    """A copy of a clone with all that its pipeline made."""
    shutil.copytree(made.path, root, symlinks=True)
    return Clone(root)


@pytest.fixture
def clone(finished, tmp_path) -> Clone:
    """A copy of the finished clone."""
    return copy_of(finished, tmp_path / "mht")
