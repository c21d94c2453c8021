"""Accelerate's files and launched stages for the tests of several processes."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.pipeline import make_clone
from tests.support.training import examples


def same_figures(these, those):
    """Assert that two runs have the same figures, but for the seconds, as far as rounding goes."""
    for a, b in zip(these, those, strict=True):
        assert a.keys() == b.keys()
        known = [key for key in a if "/time/" not in key]
        torch.testing.assert_close(
            torch.tensor([a[k] for k in known]), torch.tensor([b[k] for k in known]),
            atol=2e-4, rtol=2e-3,
        )  # fmt: skip


@pytest.fixture
def accelerate_files(tmp_path, monkeypatch):
    """A folder with the repository's configurations; ``write(name, **changes)`` adds one."""
    folder = tmp_path / "configs" / "accelerate"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def write(name="own.yaml", **changes):
        settings = {"distributed_type": "MULTI_GPU", "num_processes": 2} | changes
        (folder / name).write_text(json.dumps(settings))
        return str(Path("configs/accelerate", name))

    return write


def stage_clone(tmp_path, tiny_model_dir):
    """A clone of the repository in which the stage ppo can start."""
    from mht.data.prepare.prepare import write_examples
    from mht.models.loading import load_tokenizer

    model = tiny_model_dir()
    clone = make_clone(tmp_path / "mht", model)
    shutil.copytree(model, clone.path / "models" / "sft")
    rows = examples(load_tokenizer(model), 12)
    for split in ("train", "validation"):
        write_examples(clone.path / "data" / "prepared" / f"{split}.parquet", rows)
    clone.set_params({"ppo.reward": {"type": "length_window", "min": 1, "max": 4}})
    return clone


def train_stage(clone, file):
    """The weights that the stage ppo makes in the processes of an accelerate file."""
    clone.set_params({"base.accelerate": file, "base.device": "cpu"})
    said = clone.run(sys.executable, "-m", "stages.ppo", "hybrid").stderr
    assert said.count("training 4/4") == 1
    return load_file(clone.path / "models/hybrid/model.safetensors")
