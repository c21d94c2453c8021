"""The comparison of decoding strategies, on a tiny model."""

import csv
import math

import pyarrow
import pytest
import torch
from pyarrow import parquet

from bench.decoding import COLUMNS, main, tilted_kl
from mht.generation.decoding.best_of import kl_bound
from mht.models.policy import Policy
from tests.support.training import examples, model_of


def test_a_row_for_each_strategy(tmp_path, tiny_model_dir, tiny_tokenizer, capsys):
    policy = Policy(model_of(tiny_model_dir()))
    torch.nn.init.normal_(policy.value_head.weight)
    policy.save(tmp_path / "model", tiny_tokenizer)
    rows = [
        {k: getattr(e, k) for k in ("id", "prompt", "target", "prompt_ids", "target_ids")}
        | {"item": "{}"}
        for e in examples(tiny_tokenizer, 3)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "texts.parquet")
    arguments = ["--model", tmp_path / "model", "--reward", "{type: length_window, min: 4, max: 5}"]
    arguments += ["--judge", "response_words"]
    arguments += ["--prompts", tmp_path / "texts.parquet", "--texts", tmp_path / "texts.parquet"]
    arguments += [
        "--out",
        tmp_path / "out",
        "--response-tokens",
        "5",
        "--samples",
        "2",
        "--count",
        "2",
    ]
    assert main([str(a) for a in arguments]) == 0
    with (tmp_path / "out/decoding.csv").open() as file:
        found = list(csv.DictReader(file))
    assert tuple(found[0]) == COLUMNS
    names = [row["strategy"] for row in found]
    assert set(names) == {"sample", "best_of_n", "mcmc", "value", "ngram"}
    by_n = [row for row in found if row["strategy"] == "best_of_n"]
    assert [float(r["kl_nats"]) for r in by_n] == pytest.approx(
        [kl_bound(n) for n in (2, 4, 8, 16)], abs=1e-4
    )
    scores = [float(found[0]["score"])] + [float(r["score"]) for r in by_n]
    assert scores == sorted(scores) and scores[-1] > scores[0]
    assert all(0 < float(row["judged"]) <= 5 for row in found), "words of 5 tokens at most"
    tokens = [float(r["tokens_per_response"]) for r in by_n]
    assert tokens == sorted(tokens) and tokens[0] > float(found[0]["tokens_per_response"])
    assert all(float(row["seconds_per_response"]) > 0 for row in found)
    assert (tmp_path / "out/decoding.png").stat().st_size > 10_000
    assert "best_of_n" in capsys.readouterr().out


def test_a_mistake_is_one_line(capsys):
    assert main(["--reward", "exact_mtch"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["--reward", "readability", "--judge", "vada"]) == 2
    assert "--judge: should be one of vader, " in capsys.readouterr().err


def test_the_tilt_of_a_coin():
    """Scores 1 and 0, evenly likely: tilted by e^(1/T) to 1."""
    heat = 0.5
    share = math.exp(1 / heat) / (math.exp(1 / heat) + 1)
    exact = share * math.log(share / 0.5) + (1 - share) * math.log((1 - share) / 0.5)
    many = 10_000
    tilted = [1.0] * round(share * many) + [0.0] * round((1 - share) * many)
    assert tilted_kl(tilted, [0.0, 1.0], heat) == pytest.approx(exact, abs=1e-3)
