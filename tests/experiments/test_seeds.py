"""The benchmark over training seeds: what it leaves, what it keeps, and experiments as overlays."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mht.cli.main import commands
from mht.config import load_config
from mht.config.evaluation import RECIPES
from mht.config.overlays.overlay import apply_experiment, lay_over, load_experiment
from mht.core.errors import ConfigError, DataError
from mht.data.examples.example import read_examples
from mht.evaluation.summary import read_samples
from mht.experiments import evidence
from mht.experiments import seeds as runner
from mht.experiments.seed_run import Meter, SeedRun
from mht.experiments.seeds import missing_results, run_seeds, with_seed
from mht.experiments.variants import variants_of
from mht.reports.seeds_folder import report_seeds
from mht.tasks.settings import experiment_file, settings_file, task_names
from tests.support.variants import entries

EXPERIMENTS = sorted(
    {*Path("experiments").glob("*.yaml"), *map(settings_file, task_names())}
    - {Path("experiments/evidence.yaml")}
)
VARIANTS_OF = {  # sets of variants, by the experiment that they are laid over
    "randomwalks_ablations": "randomwalks",
    "memory": "randomwalks",
    "reviews_memory": "experiments/reviews.yaml",
    "reviews_alternation": "experiments/reviews.yaml",
    "support_ablations": "support",
}
NAMES = (*RECIPES, "no_clip", "same")
RANDOMWALKS = Path("mht/tasks/randomwalks/settings.yaml")
TINY = """
model: {name: {type: scratch, architecture: gpt2, layers: 1, width: 16, heads: 2, context: 32}}
data: {source: {type: randomwalks, walks: 120, graph_seed: 1000}}
sft: {steps: 2, eval_every: 2, eval_examples: 4, batch_size: 4}
ppo: {cycles: 1, ppo_steps_per_cycle: 1, batch_size: 8, minibatch_size: 4, sft_batch_size: 4,
      epochs: 1, eval_prompts: 4, scheduler: {type: constant}}
baselines:
  sft_only: {cycles: 1, sft_steps_per_cycle: 3, sft_batch_size: 4, eval_prompts: 4,
             scheduler: {type: constant}}
  ppo_only: {cycles: 1, ppo_steps_per_cycle: 2, batch_size: 8, minibatch_size: 4, epochs: 1,
             eval_every: 1, eval_prompts: 4, scheduler: {type: constant}}
evaluate: {prompts: 6, resamples: 20}
benchmark:
  metrics: [reward, response_length, perplexity_human]
  resamples: 50
  reach: {score: 0.0}
  variants: {no_clip: {ppo.value_clip_range: null}, same: {ppo: {value_clip_range: 0.2}}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The experiment randomwalks with everything small."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "tiny.yaml").write_text(TINY)
    shutil.copy("params.yaml", folder / "params.yaml")
    apply_experiment(RANDOMWALKS, folder / "params.yaml")
    return load_experiment(folder / "tiny.yaml", folder / "params.yaml")


@pytest.fixture(scope="module")
def done(config, tmp_path_factory):
    """Two seeds of it, and their summary."""
    folder = tmp_path_factory.mktemp("seeds")
    return folder, run_seeds(config, folder, seeds=[0, 1])


def result(folder, seed, name):
    return json.loads((folder / f"seed_{seed}" / name / "result.json").read_text())


def test_every_variant_has_its_budget_measured(done):
    folder, summary = done
    for seed in (0, 1):
        steps = {name: result(folder, seed, name)["budget"] for name in NAMES}
        assert {name: b["optimizer_steps"] for name, b in steps.items()} == {
            "base": 0, "sft_only": 5, "ppo_only": 4, "sft_then_ppo": 5, "hybrid": 2 + 1 + 2,
            "no_clip": 5, "same": 5,
        }  # fmt: skip
        assert 8 <= steps["hybrid"]["sampled_tokens"] <= 80
        assert 16 <= steps["ppo_only"]["sampled_tokens"] <= 160
        assert steps["sft_only"]["sampled_tokens"] == 0 < steps["sft_only"]["seconds"]
    assert summary["budget"]["hybrid"]["optimizer_steps"] == {"mean": 5, "min": 5, "max": 5}


def test_the_hybrid_and_sft_only_share_their_start(done):
    folder, _ = done
    hybrid, sft = (result(folder, 0, name)["curve"] for name in ("hybrid", "sft_only"))
    assert hybrid[:3] == sft[:3], "looked at alike, though sft_only leaves response_tokens out"
    assert [row["optimizer_steps"] for row in hybrid] == [0, 2, 2, 5]
    assert all("score" in row for row in sft), "SFT is looked at with the reward too"
    assert [row["optimizer_steps"] for row in result(folder, 0, "ppo_only")["curve"]] == [0, 4]


def test_the_seeds_differ_and_the_prompts_do_not(done):
    folder, _ = done
    first, second = (read_samples(folder / f"seed_{n}/base/samples.jsonl") for n in (0, 1))
    assert first.ids == second.ids
    assert [s.prompt for s in first.samples] == [s.prompt for s in second.samples]
    assert [s.response for s in first.samples] != [s.response for s in second.samples]


def test_the_summary_is_that_of_the_samples(done):
    folder, summary = done
    runs = [read_samples(folder / f"seed_{n}/hybrid/samples.jsonl") for n in (0, 1)]
    lengths = [sum(run.per_sample["response_length"]) / 6 for run in runs]
    figures = summary["metrics"]["response_length"]["hybrid"]
    assert figures["per_seed"] == pytest.approx(lengths, rel=1e-5)
    assert figures["mean"] == pytest.approx(sum(lengths) / 2, rel=1e-5)
    assert summary["prompts"] == 6 and summary["seeds"] == [0, 1]
    pairs = {(line["a"], line["b"]) for line in summary["comparisons"]}
    assert pairs == {("hybrid", name) for name in set(NAMES) - {"hybrid", "base"}}
    table = (folder / "table.md").read_text()
    assert "| Reward ↑ |" in table and "| optimiser steps | 0 | 5 | 4 | 5 | 5 | 5 | 5 |" in table


def test_no_models_are_left(done):
    folder, _ = done
    assert not (folder / "seed_0/models").exists()


def test_what_is_done_is_kept_and_what_is_missing_comes_out_the_same(done, config, tmp_path):
    folder = tmp_path / "killed"
    shutil.copytree(done[0], folder)
    kept = (folder / "seed_0/base/samples.jsonl").stat().st_mtime_ns
    lost = folder / "seed_1/hybrid"
    before = (lost / "samples.jsonl").read_bytes()
    shutil.rmtree(lost)
    assert run_seeds(config, folder, seeds=[0, 1])["metrics"] == done[1]["metrics"]
    assert (lost / "samples.jsonl").read_bytes() == before
    assert (folder / "seed_0/base/samples.jsonl").stat().st_mtime_ns == kept


def test_validation_prompts_are_measured_instead(done, config, tmp_path):
    """The test split is not even there."""
    evaluate = config.evaluate.model_copy(update={"split": "validation"})
    chosen = config.model_copy(update={"evaluate": evaluate})
    shutil.copytree(done[0] / "data", tmp_path / "data")
    prepared = tmp_path / "data/prepared"
    (prepared / "test.parquet").unlink()
    base = variants_of(chosen)[0]
    SeedRun(chosen, tmp_path, tmp_path / "data/base", prepared).run(base)
    found = read_samples(tmp_path / "base/samples.jsonl").ids
    assert found == [e.id for e in read_examples(prepared / "validation.parquet")[: len(found)]]
    assert len(found) == 6


def test_every_prompt_may_be_answered_twice(done, config, tmp_path):
    evaluate = config.evaluate.model_copy(update={"responses_per_prompt": 2})
    chosen = config.model_copy(update={"evaluate": evaluate})
    data, base = done[0] / "data", variants_of(chosen)[0]
    SeedRun(chosen, tmp_path, data / "base", data / "prepared").run(base)
    found, once = (read_samples(f / "base/samples.jsonl") for f in (tmp_path, done[0] / "seed_0"))
    assert (found.rounds, found.prompts, once.rounds) == (2, 6, 1)
    assert found.samples[:6] == once.samples, "the first round is what one response would be"
    assert [s.response for s in found.samples[6:]] != [s.response for s in once.samples]


def test_equal_variants_are_trained_once(done):
    folder, _ = done
    for name in ("samples.jsonl", "result.json"):
        same, hybrid = (folder / "seed_0" / v / name for v in ("same", "hybrid"))
        assert same.read_bytes() == hybrid.read_bytes(), "seconds included: it is a copy"
    assert result(folder, 0, "no_clip")["budget"] != result(folder, 0, "hybrid")["budget"]


def test_a_changed_variant_alone_runs_again(done, config):
    folder, _ = done
    assert missing_results(config, folder, [0, 1]) == 0
    assert missing_results(config, folder, [0, 1, 2]) == len(NAMES) - 1, "but for the equal one"
    variants = config.benchmark.variants | {"no_clip": {"ppo.lam": 0.5}, "more": {"ppo.lam": 0.6}}
    benchmark = config.benchmark.model_copy(update={"variants": variants, "resamples": 7})
    changed = config.model_copy(update={"benchmark": benchmark})
    found = [v.name for v in runner._missing(changed, folder, 0)]
    assert found == ["no_clip", "more"]


def test_results_of_a_folder_beside_it_count(done, config):
    assert missing_results(config, done[0].parent / "another", [0, 1]) == 0


def test_curves_and_the_way_to_a_score_are_reported(done):
    folder, summary = done
    lines = (folder / "curves.csv").read_text().splitlines()
    assert lines[0] == "metric,variant,optimizer_steps,iqm,low,high"
    rows = [line.split(",") for line in lines[1:]]
    steps = [int(row[2]) for row in rows if row[:2] == ["score", "hybrid"]]
    assert steps == [0, 2, 5]
    scores = [result(folder, n, "hybrid")["curve"][-1]["score"] for n in (0, 1)]
    (last,) = (row for row in rows if row[:3] == ["score", "hybrid", "5"])
    assert float(last[3]) == pytest.approx(sum(scores) / 2, rel=1e-5, abs=1e-9)
    for name in ("training.png", "frontier.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    reach = summary["reach"]["variants"]
    assert "base" not in reach and reach["hybrid"]["optimizer_steps"]["mean"] == 0
    assert summary["variants"]["no_clip"] == {
        "recipe": "hybrid", "changes": {"ppo": {"value_clip_range": None}}, "from_base": False,
    }  # fmt: skip


def test_the_report_is_that_of_the_pipeline(done, tmp_path):
    shutil.copytree(done[0], tmp_path / "one")
    rows = entries(dict.fromkeys(NAMES, 5))
    report_seeds(tmp_path / "one", rows, metrics=["reward"], seeds=[0], resamples=20)
    one, two = ((folder / "report.html").read_text() for folder in (tmp_path / "one", done[0]))
    assert "not the choice of training seed" in one and "2 training seeds" in two
    for part in ("Guard against gaming", "Who wins on what", "While training"):
        assert f"<h2>{part}</h2>" in one and f"<h2>{part}</h2>" in two


def test_a_missing_or_broken_result_is_named(done, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(done[0], folder)
    options = {"seeds": [0, 1], "resamples": 20}
    rows = entries(dict.fromkeys(NAMES, 5))
    with pytest.raises(ConfigError, match=r"no such metric 'rewrd' \(did you mean 'reward'\?\)"):
        report_seeds(folder, rows, metrics=["rewrd"], **options)
    (folder / "seed_1/sft_only/result.json").write_text("{")
    with pytest.raises(DataError, match=r"seed_1/sft_only/result.json: not JSON"):
        report_seeds(folder, rows, metrics=["reward"], **options)


def test_both_seeds_are_set(config):
    own = with_seed(config, 7)
    assert own.base.seed == own.model.name.seed == 7
    assert config.base.seed == config.model.name.seed == 0


def test_a_meter_counts_steps_and_tokens():
    meter = Meter()
    meter.count({"sft/loss": 1.0, "sft/time/step_s": 0.5}, 8)
    meter.count(
        {"ppo/optim/steps": 6.0, "ppo/response/length_tokens": 2.25, "ppo/time/step_s": 2.0}, 8
    )
    meter.count({"validation/score": 0.5}, 8)
    assert (meter.optimizer_steps, meter.sampled_tokens, meter.seconds) == (7, 18, 2.5)
    assert meter.curve == [{**meter.budget, "score": 0.5}]


# Experiments.


@pytest.mark.parametrize("file", EXPERIMENTS, ids=str)
def test_experiments_fit_params_yaml_with_equal_budgets(file):
    of = VARIANTS_OF.get(file.stem)
    config = load_experiment([experiment_file(of), file] if of else file)
    for variant in variants_of(config):
        steps = variant.optimizer_steps
        few = 0.95 * max(config.optimizer_steps.values())
        assert variant.name == "base" or steps >= few, f"{variant.name}: {steps} steps"
        assert steps <= max(config.optimizer_steps.values()), f"{variant.name}: {steps} steps"
    steps = config.optimizer_steps
    assert len({n for name, n in steps.items() if name != "base"}) == 1, steps


def test_sections_merge_and_components_are_replaced():
    settings = {"a": {"x": 1, "kind": {"type": "p", "k": 1}, "n": None}}
    lay_over(settings, {"a": {"kind": {"type": "q"}, "n": {"y": 2}}, "b": 3})
    assert settings == {"a": {"x": 1, "kind": {"type": "q"}, "n": {"y": 2}}, "b": 3}


def test_applying_keeps_comments_and_gives_the_same_settings(tmp_path):
    params = tmp_path / "params.yaml"
    shutil.copy("params.yaml", params)
    done = CliRunner().invoke(commands, ["apply", str(RANDOMWALKS), "--params", str(params)])
    assert done.exit_code == 0, done.output
    assert load_config(params) == load_experiment(RANDOMWALKS)
    text = params.read_text()
    assert text.startswith("# Every knob of the experiment.")
    assert "accelerate: null " in text
    apply_experiment(RANDOMWALKS, params)
    assert params.read_text() == text, "applying again changes nothing"


def test_a_wrong_experiment_changes_nothing(tmp_path):
    params, overlay = tmp_path / "params.yaml", tmp_path / "mine.yaml"
    shutil.copy("params.yaml", params)
    overlay.write_text("ppo: {cycels: 2}\n")
    with pytest.raises(ConfigError, match=r"ppo.cycels: no such option .*'cycles'"):
        apply_experiment(overlay, params)
    assert params.read_text() == Path("params.yaml").read_text()
    overlay.write_text("- a list\n")
    with pytest.raises(ConfigError, match="must hold a mapping of sections"):
        apply_experiment(overlay, params)


def test_the_settings_of_the_model_reach_the_trainer(config, tmp_path, monkeypatch):
    class Seen(Exception):
        pass

    def trainer(start, **options):
        raise Seen(options)

    model = config.model.model_copy(update={"context_window": 4, "gradient_checkpointing": True})
    monkeypatch.setattr("mht.training.from_config.HybridTrainer", trainer)
    with pytest.raises(Seen) as caught:
        run_seeds(config.model_copy(update={"model": model}), tmp_path, seeds=[0])
    (options,) = caught.value.args
    fixed_at_fetch = {"name", "revision", "trust_remote_code"}
    for name in set(type(model).model_fields) - fixed_at_fetch:
        assert options[name] == getattr(model, name), name


# The command, and the whole evidence.


@pytest.fixture
def files(config, done, tmp_path, monkeypatch):
    """The tiny experiment as files; the results of `done` lie where they are looked for."""
    shutil.copytree(done[0], tmp_path / "reports/seeds/tiny")
    shutil.copy("params.yaml", tmp_path / "params.yaml")
    apply_experiment(RANDOMWALKS, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    Path("more.yaml").write_text(
        "benchmark: {variants: {again: {ppo.epochs: 1}}, metrics: [reward]}"
    )
    return tmp_path


def test_the_command_goes_on_where_it_was(files, done, monkeypatch):
    monkeypatch.setattr(SeedRun, "run", None)  # nothing is trained
    done = CliRunner().invoke(commands, ["seeds", "tiny.yaml", "--count", "2", "--no-track"])
    assert done.exit_code == 0, done.output
    assert "| optimiser steps | 0 | 5 | 4 | 5 | 5 | 5 | 5 |" in done.output
    assert not (files / "mlflow.db").exists()


def test_the_evidence_is_checked_and_takes_what_is_there(files, monkeypatch):
    monkeypatch.setattr(SeedRun, "run", None)
    Path("evidence.yaml").write_text(
        "benchmarks:\n"
        "  - {experiment: tiny.yaml, seeds: 2}\n"
        "  - {experiment: tiny.yaml, variants: more.yaml, seeds: 1}\n"
    )
    done = CliRunner().invoke(commands, ["evidence", "evidence.yaml", "--no-track"])
    assert done.exit_code == 0, done.output
    assert "2 of 2: reports/seeds/tiny-more, 0 variants to train over 1 seeds" in done.output
    summary = json.loads(Path("reports/seeds/tiny-more/summary.json").read_text())
    assert summary["metrics"].keys() == {"reward"}
    reward = summary["metrics"]["reward"]
    assert reward["again"]["per_seed"] == reward["hybrid"]["per_seed"]
    Path("more.yaml").write_text("benchmark: {variants: {a: {ppo.x: 1}, b: {sft.y: 1}}}")
    with pytest.raises(ConfigError) as caught:
        evidence.read("evidence.yaml")
    assert [p.partition(": no such")[0] for p in caught.value.problems] == [
        "benchmarks[1]: benchmark.variants.a: ppo.x", "benchmarks[1]: benchmark.variants.b: sft.y",
    ]  # fmt: skip


def test_the_projects_own_evidence_can_be_run():
    benchmarks = evidence.read("experiments/evidence.yaml")
    assert {b.config.data.source.type for b in benchmarks} >= {"randomwalks", "reviews", "support"}
    for benchmark in benchmarks:
        is_cheap = benchmark.config.data.source.type == "randomwalks"
        assert len(benchmark.seeds) >= (10 if is_cheap else 3), benchmark.folder
