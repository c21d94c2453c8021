"""The Python of README.md and docs/howto/library.md runs as it stands, with a tiny model."""

import json
import shutil

import pytest

from tests.support.pages import ROOT, run


@pytest.fixture
def prepared(tmp_path, monkeypatch, tiny_model_dir, tiny_tokenizer):
    """A folder with what `dvc repro prepare` makes, the model a tiny one."""
    import pyarrow
    from pyarrow import parquet

    from tests.support.models import SENTENCES

    shutil.copytree(tiny_model_dir(), tmp_path / "models/base")
    rows = [
        {
            "id": f"{i:016x}",
            "prompt": text[:10],
            "target": text[10:],
            "prompt_ids": tiny_tokenizer(text[:10])["input_ids"],
            "target_ids": [*tiny_tokenizer(text[10:])["input_ids"], tiny_tokenizer.eos_token_id],
            "item": json.dumps({}),
        }
        for i, text in enumerate(SENTENCES * 4)
    ]
    (tmp_path / "data/prepared").mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data/prepared/train.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_library_page_runs(prepared, capsys):
    names = run(ROOT / "docs/howto/library.md")
    assert [step for step, _ in names["history"]] == [1, 2, 3, 4, 5]
    keys = {key for _, figures in names["history"] for key in figures}
    assert {"sft/loss", "ppo/score/mean", "ppo/kl/k1_nats"} <= keys  # as the page says
    assert names["both"]("a warm film", "a cold film") == pytest.approx(
        2 / 9
    )  # (2 * 1/3 + 1 * 0) / 3
    assert capsys.readouterr().out.count("KL") == 2  # a batch of two and one of one
    assert (prepared / "my_policy/value_head.safetensors").is_file()


def test_readme_runs(prepared):
    names = run(ROOT / "README.md")
    assert names["trainer"].step > 0
    assert list(prepared.glob("my_policy/*.safetensors"))
