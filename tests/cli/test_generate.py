"""`mht generate`: prompts from everywhere, every strategy, tables and JSON, and mistakes."""

import json
import shutil
import sys
from pathlib import Path

import pyarrow
import pytest
import torch
from pyarrow import parquet
from typer.testing import CliRunner

import mht.cli.main
from mht.models.policy import Policy
from mht.rewards.spec import read_reward
from tests.support.training import TokenShare, examples, model_of

ROOT = Path(__file__).parents[2]
REWARD = "{type: length_window, min: 3, max: 6}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model_dir, tiny_tokenizer):
    """A tiny models/hybrid with a value head that says something, and prepared texts."""
    root = tmp_path_factory.mktemp("generate")
    policy = Policy(model_of(tiny_model_dir()))
    torch.manual_seed(0)
    torch.nn.init.normal_(policy.value_head.weight)
    policy.save(root / "models/hybrid", tiny_tokenizer)
    rows = [
        {k: getattr(e, k) for k in ("id", "prompt", "target", "prompt_ids", "target_ids")}
        | {"item": "{}"}
        for e in examples(tiny_tokenizer, 6)
    ]
    (root / "data/prepared").mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "data/prepared/train.parquet")
    return root


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")


def generate(*arguments, stdin=None):
    done = CliRunner().invoke(
        mht.cli.main.commands, ["generate", "--response-tokens", "6", *arguments], input=stdin
    )
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def data(*arguments, stdin=None):
    done = generate("--json", *arguments, stdin=stdin)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("strategy", "options", "figures"),
    [
        ("sample", [], set()),
        ("best_of_n", ["-n", "3"], {"kl_bound_nats"}),
        ("value", ["--beta", "2", "--candidates", "4"], {"kl_nats"}),
        ("mcmc", ["--steps", "4", "--burn-in", "2"], {"acceptance_rate"}),
        ("mcmc", ["--steps", "2", "--proposal", "ngram"], {"acceptance_rate"}),
        ("ngram", ["--ngram-order", "2"], set()),
    ],
)
def test_every_strategy_answers_and_scores(strategy, options, figures):
    made = data("the film", "a dull", "--strategy", strategy, "--reward", REWARD, "--all", *options)
    assert made["strategy"] == strategy and set(made["figures"]) == figures
    assert [row["prompt"] for row in made["responses"]] == ["the film", "a dull"]
    reward = read_reward(REWARD)
    for row in made["responses"]:
        assert row["score"] == reward(row["response"]) == row["components"]["reward"]
        assert 1 <= row["tokens"] <= 6
        kept = {"best_of_n": 3, "mcmc": 2}.get(strategy, 0)
        assert len(row.get("drawn", [])) == kept
        assert all(each["score"] == reward(each["response"]) for each in row.get("drawn", []))


def test_the_seed_decides_and_the_batch_does_not():
    prompts = ["the film", "a dull", "an honest"]
    first = data(*prompts, "--samples", "2")
    assert len(first["responses"]) == 6
    assert data(*prompts, "--samples", "2", "--batch-size", "1") == first
    assert data(*prompts, "--samples", "2", "--seed", "1") != first
    one, two, *_ = (row["response"] for row in first["responses"])
    assert one != two
    assert data("the film")["responses"][0]["response"] == one
    greedy = [data("the film", "--temperature", "0", "--seed", s) for s in ("0", "1")]
    assert greedy[0] == greedy[1]


def test_prompts_come_from_a_file_or_stdin(tmp_path):
    (tmp_path / "prompts.txt").write_text("the film\n\na dull\n", encoding="utf-8")
    from_file = data("--file", str(tmp_path / "prompts.txt"))
    assert from_file == data(stdin="the film\na dull\n") == data("the film", "a dull")
    assert "score" not in from_file["responses"][0]


def test_the_table_has_texts_and_scores():
    shown = generate("the film", "--strategy", "best_of_n", "-n", "2", "--reward", REWARD, "--all")
    best = data("the film", "--strategy", "best_of_n", "-n", "2", "--reward", REWARD)
    assert "the film" in shown.stdout and "response" in shown.stdout
    assert f"{best['responses'][0]['score']:.3f}" in shown.stdout
    assert "kl_bound_nats 0.1931" in shown.stdout
    plain = generate("a [dull] film")  # brackets are text, not markup
    assert "a [dull] film" in plain.stdout and "score" not in plain.stdout


def test_rewards_by_type_by_yaml_and_from_files(tmp_path):
    inside = {"REWARD": {"type": "length_window", "min": 3, "max": 6}}
    (tmp_path / "reward.json").write_text(json.dumps(inside))
    (tmp_path / "params.yaml").write_text(f"ppo: {{cycles: 1, reward: {REWARD}}}\n")
    same = [read_reward(s) for s in (REWARD, str(tmp_path / "reward.json"))]
    same.append(read_reward(str(tmp_path / "params.yaml")))
    assert same[0] == same[1] == same[2]
    assert read_reward("exact_match").type == "exact_match"
    assert TokenShare().type == "token_share"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["x", "--reward", "exact_mtch"], "did you mean 'exact_match'"),
        (["x", "--reward", "{type: ["], "--reward: not YAML"),
        (["x", "--reward", "none.yaml"], "no such file"),
        (["x", "--strategy", "mcmc"], "--strategy mcmc: needs a reward to guide it"),
        (["x", "--model", "models/none"], "models/none: no such folder"),
        (["x", "--top-p", "0"], "--top-p: should be above 0"),
        (["x", "--strategy", "ngram", "--ngram-data", "none.parquet"], "none.parquet: not there"),
        (["x", "--response-tokens", "999"], "do not fit the model's context of 256"),
        (["--file", "none.txt"], "none.txt: can't be read"),
        (["x", "--file", "none.txt"], "as arguments or by --file, not both"),
        (["x", "--strategy", "best_of_n", "-n", "0", "--reward", REWARD], "n should be at least 1"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(arguments, what, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mht", "generate", *arguments])
    with pytest.raises(SystemExit, match="2"):
        mht.cli.main.app()
    error = capsys.readouterr().err
    assert what in error and "Traceback" not in error


def test_an_untrained_value_head_does_not_guide(tmp_path, tiny_model_dir, tiny_tokenizer, capsys):
    Policy(model_of(tiny_model_dir())).save(tmp_path / "sft", tiny_tokenizer)
    shutil.copytree(tiny_model_dir(), tmp_path / "base")
    for name, what in (("sft", "says 0 of every state"), ("base", "no value_head.safetensors")):
        with pytest.raises(mht.cli.main.UserError, match=what):
            generate("x", "--strategy", "value", "--model", str(tmp_path / name))


def test_the_page_runs(folder):
    from tests.support.pages import ROOT, run

    names = run(ROOT / "docs/howto/generation.md")
    assert names["found"].scored and names["chains"].drawn and names["guided"].figures
    assert len(names["baseline"].tokens) == 2


def test_responses_are_drawn_as_the_evaluation_draws_them(tmp_path, folder, monkeypatch):
    """The options that are not given are `evaluate.decoding` of the project, if there is one."""
    drawn = []

    def stop(model, device, dtype, decoding):
        drawn.append(decoding)
        raise KeyboardInterrupt

    monkeypatch.setattr("mht.cli.generate.make_responder", stop)
    usual = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "response_tokens": 6}
    monkeypatch.chdir(tmp_path)
    generate("p")
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    generate("p", "--min-p", "0.1")
    assert drawn == [usual, {**usual, "temperature": 0.5, "min_p": 0.1}]
