"""The whole pipeline by real DVC and MLflow: what it leaves, what reruns it, experiments."""

import copy
import csv
import functools
import hashlib
import html
import io
import json
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mht.config import load_config
from mht.pipeline.settings import write_settings
from mht.pipeline.status import status
from mht.tracking.content.pipeline import read_pipeline
from tests.support.pipeline import ROOT, STAGES, Clone

pytest_plugins = ["tests.support.pipeline"]

EVALUATIONS = {name for name in STAGES if name.startswith("evaluate")}
TRAINERS = {"sft", "ppo@hybrid", "ppo@sft_only", "ppo@ppo_only"}
MEASURED = EVALUATIONS | {"benchmark"}
AFTER_TRAINERS = MEASURED - {"evaluate_untrained@base"}
EVERY = STAGES - {"variants"}  # it only passes settings on
HYBRID = {"ppo@hybrid", "evaluate@hybrid", "benchmark"}
VARIANTS = {"base", "sft_only", "ppo_only", "hybrid"}
METRICS = {
    "p_positive", "vader", "response_length", "distinct_2", "kl_nats", "perplexity_human",
}  # fmt: skip


def ran(output: str) -> list[str]:
    """The stages that a `dvc repro` says it ran."""
    return re.findall(r"Running stage '([^']+)'", output)


# What one `dvc repro` leaves.


def test_every_stage_ran_once(finished):
    assert sorted(ran(finished.first)) == sorted(STAGES)


def test_every_output_exists(finished):
    lock = finished.lock()
    assert lock.keys() == STAGES
    for stage in lock.values():
        for out in stage["outs"]:
            assert (finished.path / out["path"]).exists(), out["path"]


def test_a_second_repro_runs_nothing_and_logs_nothing(finished):
    assert ran(finished.second) == []
    assert finished.second.count("didn't change, skipping") == len(STAGES)
    assert "up to date" in finished.second
    assert finished.added == ""
    assert finished.second_s < 20, "seconds even on a busy machine"


def test_git_sees_no_outputs(finished):
    assert finished.left == ""
    tracked = finished.run("git", "ls-files").stdout.splitlines()
    outputs = [f for f in tracked if f.startswith(("models/", "data/raw", "data/prep", "reports/"))]
    assert outputs == []
    assert "dvc.lock" in tracked and "metrics/benchmark.json" in tracked
    assert not any(f.startswith(("mlflow.db", "mlartifacts/")) for f in tracked)


@pytest.mark.parametrize("name", ["hybrid", "sft", "sft_only", "ppo_only"])
def test_models_load_anywhere(finished, name):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished.path / "models" / name
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("the film was", return_tensors="pt")
    answer = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert answer.shape[1] <= inputs["input_ids"].shape[1] + 2
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    before = AutoModelForCausalLM.from_pretrained(finished.path / "models/base").state_dict()
    after = model.state_dict()
    changed = {key for key, weight in before.items() if not torch.equal(weight, after[key])}
    assert changed and all("layers.1." in key or key == "model.norm.weight" for key in changed)


@pytest.mark.parametrize("name", ["hybrid", "ppo_only"])
def test_the_value_head_is_saved_with_the_policy(finished, name):
    from safetensors.numpy import load_file

    file = "value_head.safetensors"
    head = load_file(finished.path / "models" / name / file)
    untrained = load_file(finished.path / "models/sft" / file)
    assert head.keys() == untrained.keys()
    assert any((head[key] != untrained[key]).any() for key in head), "it has not trained"


def test_the_benchmark_compares_the_four_variants(finished):
    table = finished.json("metrics/benchmark.json")
    assert table.keys() == VARIANTS
    for variant, metrics in table.items():
        assert metrics.keys() >= METRICS, variant
        for name in METRICS:
            value = metrics[name]
            assert value.keys() >= {"mean", "low", "high"}
            if value["low"] is None:  # too few values for an interval
                continue
            assert value["low"] <= value["mean"] + 1e-9 and value["mean"] <= value["high"] + 1e-9
    assert abs(table["base"]["kl_nats"]["mean"]) < 1e-5, "base is its own reference"
    assert 0 <= table["hybrid"]["p_positive"]["mean"] <= 1
    assert 1 <= table["hybrid"]["response_length"]["mean"] <= 6


def test_the_report_says_where_it_comes_from(clone):
    clone.run("python", "-m", "mht", "report", "--out", "here.html")
    page = (clone.path / "here.html").read_text(encoding="utf-8")
    commit = clone.run("git", "rev-parse", "--short", "HEAD").stdout.strip()
    assert f"<td>{commit}</td>" in page and "<td>jsonl data/local/reviews.jsonl</td>" in page
    lineage = clone.run("python", "-m", "mht", "lineage").stdout
    makers = dict(line.split()[:2] for line in lineage.splitlines())
    assert f"evaluate@hybrid {makers['evaluate@hybrid'][:8]}" in page
    clone.set_params({"benchmark.samples": 3})
    clone.run(
        "python", "-m", "mht", "report", "HEAD", "--against", "workspace", "--out", "there.html"
    )
    page = (clone.path / "there.html").read_text(encoding="utf-8")
    assert "<td>benchmark.samples</td><td>3</td><td>4</td>" in page


def test_the_variants_answered_the_same_unseen_prompts(finished):
    seen = {}
    for name in VARIANTS:
        file = finished.path / "reports/evaluate" / name / "samples.jsonl"
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        seen[name] = [(row["id"], row["prompt"], row["target"]) for row in rows]
    assert len(seen["hybrid"]) == 12
    assert all(rows == seen["hybrid"] for rows in seen.values())


def test_what_people_look_at_is_there(finished):
    folder = finished.path / "reports/benchmark"
    table = (folder / "table.md").read_text(encoding="utf-8")
    samples = (folder / "samples.md").read_text(encoding="utf-8")
    page = (folder / "report.html").read_text(encoding="utf-8")
    for name in ("sft_only", "ppo_only", "hybrid"):
        assert name in table and name in samples and name in page
    assert not re.search(r'(?:src|href)="https?:', page), "the page must open without network"
    pictures = [*folder.glob("*.png"), finished.path / "plots/lengths.png"]
    assert len(pictures) > 1
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_curves_have_a_step_column(finished):
    for name, phases in {
        "sft": ["sft"], "hybrid": ["sft", "ppo"], "sft_only": ["sft"], "ppo_only": ["ppo"],
    }.items():  # fmt: skip
        for phase in phases:
            text = (finished.path / "plots" / name / f"{phase}.csv").read_text(encoding="utf-8")
            steps = [int(row["step"]) for row in csv.DictReader(io.StringIO(text))]
            assert steps and steps == sorted(set(steps)), (name, phase)


def test_outputs_tell_nothing_of_the_machine(finished):
    """No path and no time in an output, else nobody else gets the same bytes."""
    place = str(finished.path.parent).encode()
    for stage in finished.lock().values():
        for out in stage["outs"]:
            top = finished.path / out["path"]
            for file in [top] if top.is_file() else filter(Path.is_file, top.rglob("*")):
                assert place not in file.read_bytes(), file


# What MLflow has of it.


@pytest.fixture(scope="module")
def runs(finished):
    """The MLflow client, the pipeline run and the stages' runs by name."""
    return read_runs(finished)


def read_runs(clone: Clone):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{clone.path}/mlflow.db")
    experiment = client.get_experiment_by_name("mht").experiment_id
    every = client.search_runs([experiment], order_by=["attributes.start_time DESC"])
    parents = [run for run in every if run.data.tags["mht.kind"] == "pipeline"]
    latest = parents[0].info.run_id
    children = {
        run.info.run_name: run for run in every if run.data.tags.get("mlflow.parentRunId") == latest
    }
    return client, parents, children


def test_one_pipeline_run_with_all_settings_and_metrics(finished, runs):
    from mht.tracking.names import flat_params

    _, parents, children = runs
    (parent,) = parents
    assert parent.info.status == "FINISHED"
    settings = load_config(finished.path / "params.yaml").resolved()
    assert parent.data.params == flat_params(settings)
    table = finished.json("metrics/benchmark.json")
    for variant in VARIANTS:
        logged = parent.data.metrics[f"benchmark/{variant}/p_positive"]
        assert logged == pytest.approx(table[variant]["p_positive"]["mean"])
    lineage = {k: v for k, v in parent.data.tags.items() if k.startswith("mht.lineage.")}
    assert sorted(lineage.values()) == sorted(run.info.run_id for run in children.values())


def test_every_stage_is_a_finished_child(runs):
    _, _, children = runs
    assert children.keys() == EVERY
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    assert "sft.lr" in children["sft"].data.params
    assert "ppo.kl_coef" not in children["sft"].data.params
    assert "baselines.hybrid.kl_coef" in children["ppo@hybrid"].data.params
    assert "baselines.ppo_only.kl_coef" not in children["ppo@hybrid"].data.params


def test_the_queries_on_the_page_find_the_runs(finished, runs):
    client, (parent,), children = runs
    page = (finished.path / "reports/benchmark/report.html").read_text(encoding="utf-8")
    queries = re.findall(r"<code>(tags\..*?)</code>", html.unescape(page))
    assert len(queries) > len(TRAINERS)
    for query in queries:
        found = client.search_runs([parent.info.experiment_id], query)
        assert children.keys() & {run.info.run_name for run in found}, query


def test_training_stages_have_curves(runs):
    client, _, children = runs
    for stage, metric, count in [
        ("reward_model", "reward_model/loss", 2),
        ("sft", "sft/loss", 4),
        ("ppo@hybrid", "ppo/score/mean", 2),
        ("ppo@hybrid", "sft/loss", 2),
        ("ppo@sft_only", "sft/loss", 6),
        ("ppo@ppo_only", "ppo/kl/k1_nats", 5),
    ]:
        points = client.get_metric_history(children[stage].info.run_id, metric)
        steps = {point.step for point in points}
        assert len(steps) == len(points) >= count, (stage, metric)


def test_no_figure_is_logged_twice(runs):
    """Not under the same key and step of a run; summaries have a key of their own."""
    client, (parent,), children = runs
    for run in (parent, *children.values()):
        for key in run.data.metrics:
            points = client.get_metric_history(run.info.run_id, key)
            steps = [point.step for point in points]
            assert len(steps) == len(set(steps)), (run.info.run_name, key, steps)
    for stage in TRAINERS:
        final = {k for k in children[stage].data.metrics if k.startswith("final/")}
        assert final, stage


def test_lineage_tags_are_those_of_dvc_lock(finished, runs):
    _, _, children = runs
    for name in EVERY:
        stage = finished.lock()[name]
        for kind, tag in (("deps", "dvc.dep."), ("outs", "dvc.out.")):
            expected = {f"{tag}{item['path']}": item["md5"] for item in stage[kind]}
            tags = {k: v for k, v in children[name].data.tags.items() if k.startswith(tag)}
            assert tags == expected, (name, kind)


def test_artifacts_and_models_are_with_the_runs(runs):
    client, _, children = runs
    listed = client.list_artifacts(children["benchmark"].info.run_id, "reports/benchmark")
    assert "reports/benchmark/report.html" in {item.path for item in listed}
    for stage in (*TRAINERS, "reward_model"):
        outputs = client.get_run(children[stage].info.run_id).outputs
        assert len(outputs.model_outputs) == 1, stage


# Which edit reruns which stages.


class Bench(Clone):
    """A copy for edits, of which only the consequences are asked; DVC reads dvc.yaml once."""

    def open(self) -> None:
        import networkx
        from dvc.repo import Repo

        self.repo = Repo(str(self.path))
        graph = self.repo.index.graph
        self.below = {s.name: {d.name for d in networkx.descendants(graph, s)} for s in graph}

    def reruns(self) -> set[str]:
        """The stages that are not as dvc.lock has them, with all that depend on them.

        The settings of the variants are written anew first, as `variants` would.
        """
        write_settings(load_config(self.path / "params.yaml"), self.path / "settings")
        stages = [stage for stage in self.repo.index.stages if stage.name != "variants"]
        changed = {stage.name for stage in stages if stage.status()}
        return {name for name, below in self.below.items() if changed & {name, *below}}

    def said(self, monkeypatch) -> set[str]:
        """The stages that `mht status` says would run, without `variants`."""
        monkeypatch.chdir(self.path)
        return {verdict.stage for verdict in status(read_pipeline()) if verdict.runs} - {"variants"}

    @contextmanager
    def edited(self, name: str):
        """The file's content, which is put back in the end."""
        file = self.path / name
        before = file.read_bytes()
        try:
            yield before
        finally:
            file.write_bytes(before)


@pytest.fixture(scope="module")
def bench(finished, tmp_path_factory):
    import dvc.dependency.param as param

    place = tmp_path_factory.mktemp("edits") / "mht"
    shutil.copytree(finished.path, place, symlinks=True)
    read = functools.cache(lambda content: YAML(typ="safe").load(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_SITE_CACHE_DIR", str(place.parent / "site"))
        # each of the 12 stages would parse params.yaml anew
        patch.setattr(param, "load_path", lambda path, fs: copy.deepcopy(read(fs.read_bytes(path))))
        made = Bench(place)
        made.open()
        with made.repo.lock:
            yield made
        made.repo.close()


SETTINGS = [  # values that nobody has
    ("base.experiment", "other", set()),
    ("base.seed", 7, EVERY - {"fetch", "prepare"}),
    ("model.dtype", "bfloat16", EVERY),
    ("model.num_layers_unfrozen", "all", TRAINERS | AFTER_TRAINERS),
    ("model.lora", {"r": 4}, TRAINERS | AFTER_TRAINERS),
    ("model.context_window", 4, TRAINERS | AFTER_TRAINERS),
    ("data.source.path", "data/local/other.jsonl", EVERY),
    ("data.prompt_words", 11, EVERY - {"fetch"}),
    ("data.splits.test", 0.123, EVERY - {"fetch"}),
    ("reward_model.lr", 0.00123, EVERY - {"fetch", "prepare", "sft"}),
    (
        "sft.lr",
        0.00123,
        {"sft", "ppo@sft_only", "evaluate@sft_only"} | HYBRID,
    ),
    ("ppo.kl_coef", 0.123, HYBRID),
    ("ppo.cycles", 11, HYBRID),
    ("ppo.kl_control.type", "adaptive", HYBRID),
    (
        "ppo.references",
        {"base": {"model": "models/base", "kl_coef": 0.01}},
        HYBRID,
    ),
    ("ppo.value_head", {"type": "mlp"}, HYBRID),
    ("ppo.reward.components.length.weight", 0.123, {"ppo@hybrid"} | MEASURED),
    (
        "baselines.sft_only.sft_lr",
        0.00123,
        {"ppo@sft_only", "evaluate@sft_only", "benchmark"},
    ),
    (
        "baselines.ppo_only.lr",
        0.00123,
        {"ppo@ppo_only", "evaluate@ppo_only", "benchmark"},
    ),
    ("evaluate.prompts", 11, MEASURED),
    ("evaluate.decoding.temperature", 0.123, MEASURED),
    ("evaluate.split", "validation", MEASURED),
    ("benchmark.samples", 11, {"benchmark"}),
    ("benchmark.metrics", ["vader"], {"benchmark"}),
]


@pytest.mark.parametrize(("key", "value", "expected"), SETTINGS, ids=[s[0] for s in SETTINGS])
def test_a_setting_reruns_what_it_touches(bench, key, value, expected, monkeypatch):
    with bench.edited("params.yaml"):
        bench.set_params({key: value})
        assert bench.said(monkeypatch) == expected, "mht status"
        assert bench.reruns() == expected


FILES = {
    "data/local/reviews.jsonl": EVERY,
    "mht/data/sources/fetch.py": EVERY,
    "mht/data/text/clean.py": EVERY,
    "mht/data/examples/split.py": EVERY - {"fetch"},
    "mht/reward_models/classifier.py": EVERY - {"fetch", "prepare", "sft"},
    "mht/losses/policy.py": TRAINERS | MEASURED,
    "mht/rewards/text/surface.py": TRAINERS | MEASURED,
    "mht/algorithms/ppo/step.py": TRAINERS | AFTER_TRAINERS,
    "stages/ppo.py": TRAINERS - {"sft"} | AFTER_TRAINERS,
    "mht/evaluation/metrics.py": MEASURED,
    "mht/reports/figures/plots.py": {"benchmark"},
    "stages/benchmark.py": {"benchmark"},
    "mht/tracking/store.py": set(),
    "mht/config/training.py": set(),
    "stages/variants.py": set(),
    "mht/core/progress.py": set(),
    "mht/cli/main.py": set(),
    "mht/tasks/support/settings.yaml": set(),
    "docs/reference/rewards.md": set(),
    "tests/conftest.py": set(),
    "README.md": set(),
    "pyproject.toml": set(),
}


@pytest.mark.parametrize(("name", "expected"), FILES.items(), ids=FILES.keys())
def test_a_changed_file_reruns_what_uses_it(bench, name, expected, monkeypatch):
    with bench.edited(name) as before:
        (bench.path / name).write_bytes(before + b"\n# changed\n")
        assert bench.said(monkeypatch) == expected, "mht status"
        assert bench.reruns() == expected


def test_the_reasons_are_in_words(bench, monkeypatch):
    with bench.edited("params.yaml"), bench.edited("mht/losses/policy.py") as before:
        (bench.path / "mht/losses/policy.py").write_bytes(before + b"\n# changed\n")
        bench.set_params({"ppo.kl_coef": 0.123, "baselines.sft_only.sft_lr": 0.002})
        monkeypatch.chdir(bench.path)
        by = {verdict.stage: verdict for verdict in status(read_pipeline())}
    assert by["ppo@hybrid"].reasons == ["ppo.kl_coef 0.02 -> 0.123", "mht/losses changed"]
    assert by["ppo@hybrid"].upstream == ["sft"] and by["sft"].reasons == ["mht/losses changed"]
    assert by["ppo@sft_only"].reasons[0].startswith("baselines.sft_only.sft_lr 0.0001 -> 0.002")
    assert by["fetch"].reasons == by["prepare"].upstream == []
    assert "ppo.kl_coef 0.02 -> 0.123" in by["variants"].reasons


def test_the_command_names_the_runs_of_what_is_up_to_date(clone):
    said = clone.run("python", "-m", "mht", "status").stdout
    lineage = clone.run("python", "-m", "mht", "lineage").stdout
    run = dict(line.split()[:2] for line in lineage.splitlines())["sft"]
    assert f"up to date, run {run[:8]}" in said and f"0 of {len(STAGES)} stages would run." in said
    clone.set_params({"ppo.kl_coef": 0.123})
    (clone.path / "metrics/sft.json").unlink()
    said = clone.run("python", "-m", "mht", "status").stdout
    assert "its metrics/sft.json is missing" in said and max(map(len, said.splitlines())) <= 80
    assert "about" in said.splitlines()[-1], "the last run of each is the guess"


def test_a_reward_of_ones_own_reruns_what_scores(bench):
    scores = (TRAINERS - {"sft"}) | MEASURED
    file, page = bench.path / "rewards" / "mine.py", bench.path / "rewards" / "README.md"
    file.write_text("def score(samples):\n    return [0.0 for _ in samples]\n")
    try:
        assert bench.reruns() == scores
    finally:
        file.unlink()
    with bench.edited("rewards/README.md") as before:
        page.write_bytes(before + b"more\n")
        assert bench.reruns() == set(), "a page about them is none of them"


def test_ppo_and_the_baseline_from_the_base_watch_it(bench):
    """So models/base may be one of their references."""
    deps = {s.name: {d.def_path for d in s.deps} for s in bench.repo.index.stages}
    assert "models/base" in deps["ppo@hybrid"] & deps["ppo@ppo_only"]


def test_without_an_edit_nothing_reruns(bench):
    assert bench.reruns() == set()


# A stage run by hand.


def damaged(clone: Clone) -> list[str]:
    """Objects in DVC's cache whose content is no longer what their name says."""
    objects = clone.path / ".dvc" / "cache" / "files" / "md5"
    files = [file for file in objects.glob("*/*") if file.suffix != ".dir"]
    assert len(files) > 20
    return [
        str(file)
        for file in files
        if hashlib.md5(file.read_bytes()).hexdigest() != file.parent.name + file.name
    ]


BY_HAND = {
    "variants": ["settings/hybrid.json"],
    "fetch": ["data/raw/examples.jsonl", "models/base/config.json"],
    "prepare": ["data/prepared/train.parquet"],
    "reward_model": ["models/reward_model/model.safetensors"],
    "sft": ["models/sft/model.safetensors"],
    "ppo hybrid": ["models/hybrid/model.safetensors"],
    "ppo sft_only": ["models/sft_only/model.safetensors"],
    "evaluate hybrid": ["reports/evaluate/hybrid/samples.jsonl"],
    "benchmark": ["reports/benchmark/report.html"],
}
OTHERWISE = {
    "base.seed": 7, "data.prompt_words": 5, "model.num_layers_unfrozen": "all", "sft.lr": 0.01,
    "ppo.lr": 0.01, "evaluate.decoding.temperature": 0.5, "benchmark.resamples": 60,
    "data.source.path": "data/local/fewer.jsonl", "reward_model.lr": 0.01,
}  # fmt: skip


def run_by_hand(clone: Clone, stages: list[str]) -> None:
    """Run stages on other settings, their outputs being hard links into DVC's cache."""
    clone.dvc("checkout", "--relink")
    rows = (clone.path / "data/local/reviews.jsonl").read_text(encoding="utf-8").splitlines()
    (clone.path / "data/local/fewer.jsonl").write_text("\n".join(rows[:-4]), encoding="utf-8")
    clone.set_params(OTHERWISE)
    for stage in stages:
        files = [clone.path / name for name in BY_HAND[stage]]
        assert all(file.stat().st_nlink > 1 for file in files), "not linked: this shows nothing"
        before = [file.read_bytes() for file in files]
        clone.run("python", "-m", *f"stages.{stage}".split())
        assert files[0].read_bytes() != before[0], f"{stage} wrote the same"
        assert damaged(clone) == [], stage
    assert list(clone.path.rglob("*.part")) == []


def test_a_stage_run_by_hand_leaves_dvcs_cache_alone(clone):
    run_by_hand(clone, ["fetch", "prepare"])
    (clone.path / "data/local/fewer.jsonl").unlink()
    clone.run("git", "checkout", "params.yaml", "metrics", "plots")
    clone.dvc("checkout", "--force")
    assert "up to date" in clone.dvc("status", "fetch", "prepare").stdout


@pytest.mark.slow
def test_every_stage_run_by_hand_leaves_dvcs_cache_alone(clone):
    run_by_hand(clone, list(BY_HAND))


# Mistakes cost nothing that was there before.


def test_a_failing_repro_loses_nothing(clone):
    """DVC takes a stage's outs away before it runs; mending the mistake brings all back."""
    lock = (clone.path / "dvc.lock").read_bytes()
    model = (clone.path / "models/hybrid/model.safetensors").read_bytes()
    file = clone.path / "data/local/reviews.jsonl"
    good = file.read_text(encoding="utf-8")
    file.write_text(good + '{"text": "no end\n', encoding="utf-8")
    failed = clone.dvc("repro", code=None)
    assert failed.returncode != 0
    (line,) = [x for x in failed.stderr.splitlines() if x.startswith("fetch: ")]
    assert "data/local/reviews.jsonl:85: column" in line and "not JSON" in line
    assert "Traceback" not in failed.stderr
    assert (clone.path / "dvc.lock").read_bytes() == lock
    assert (clone.path / "models/hybrid/model.safetensors").read_bytes() == model
    file.write_text(good, encoding="utf-8")
    mended = clone.dvc("repro")
    assert "> python -m stages." not in mended.stdout, "a stage ran again"
    assert (clone.path / "models/base/model.safetensors").is_file()
    assert (clone.path / "dvc.lock").read_bytes() == lock


def test_a_cheap_stage_gives_the_same_bytes_again(clone):
    before = (clone.path / "dvc.lock").read_bytes()
    again = clone.dvc("repro", "-f", "-s", "benchmark")
    assert ran(again.stdout) == ["benchmark"]
    assert (clone.path / "dvc.lock").read_bytes() == before


# Minutes long.


@pytest.mark.slow
def test_every_stage_gives_the_same_bytes_again(clone):
    before = (clone.path / "dvc.lock").read_bytes()
    again = clone.dvc("repro", "-f")
    assert sorted(ran(again.stdout)) == sorted(STAGES)
    assert (clone.path / "dvc.lock").read_bytes() == before
    assert clone.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_an_experiment_runs_what_it_touches_and_can_be_compared(clone):
    done = clone.dvc("exp", "run", "-n", "firm", "-S", "ppo.kl_coef=0.2")
    assert {*ran(done.stdout)} == {"variants", *HYBRID}
    _, parents, children = read_runs(clone)
    assert len(parents) == 2 and parents[0].info.run_name == "firm"
    assert parents[0].info.status == "FINISHED"
    assert parents[0].data.params["ppo.kl_coef"] == "0.2"
    assert children.keys() == {*HYBRID}
    lineage = [k for k in parents[0].data.tags if k.startswith("mht.lineage.")]
    assert len(lineage) == len(STAGES), "also of the stages that did not run"

    shown = json.loads(clone.dvc("exp", "show", "--json").stdout)
    assert "firm" in json.dumps(shown)
    changed = json.loads(clone.dvc("metrics", "diff", "--json").stdout)
    assert "metrics/hybrid.json" in changed and "metrics/sft.json" not in changed
    params = json.loads(clone.dvc("params", "diff", "--json").stdout)["params.yaml"]
    own = YAML(typ="safe").load(ROOT / "params.yaml")["ppo"]["kl_coef"]
    assert params["ppo.kl_coef"]["old"] == own != params["ppo.kl_coef"]["new"] == 0.2
    plots = clone.dvc("plots", "diff", "HEAD", "-o", "compared").stdout
    page = Path(plots.strip().removeprefix("file://"))
    assert page.is_file() and "ppo/score/mean" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_queued_experiments_land_in_the_same_store(clone):
    for value in (0.1, 0.3):
        clone.dvc("exp", "run", "--queue", "-n", f"kl{value}", "-S", f"ppo.kl_coef={value}")
    clone.dvc("exp", "run", "--run-all", "-j", "1")
    _, parents, _ = read_runs(clone)
    found = {run.info.run_name: run for run in parents}
    assert {"kl0.1", "kl0.3"} <= found.keys()
    for value in (0.1, 0.3):
        run = found[f"kl{value}"]
        assert run.info.status == "FINISHED"
        assert run.data.params["ppo.kl_coef"] == str(value)
        assert "benchmark/hybrid/p_positive" in run.data.metrics
    clone.dvc("exp", "apply", "kl0.3")
    assert "kl_coef: 0.3" in (clone.path / "params.yaml").read_text(encoding="utf-8")


# The repository's own settings.


def overrides() -> list[str]:
    """Every ``-S key=value`` in the documentation."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    found = re.findall(r"(?:-S|--set-param)[ =]('[^'\n]+'|\"[^\"\n]+\"|[^\s`]+)", text)
    return sorted({item.strip("'\"") for item in found if "=" in item and "..." not in item})


@pytest.mark.parametrize("override", overrides())
def test_overrides_in_the_documentation_work(override, tmp_path):
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

    file = tmp_path / "params.yaml"
    for sweep in get_hydra_sweeps({"params.yaml": [override]}):
        shutil.copy(ROOT / "params.yaml", file)
        apply_overrides(file, sweep["params.yaml"])
        load_config(file)


def test_there_are_overrides_to_try():
    assert len(overrides()) >= 3
