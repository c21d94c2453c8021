"""`mht compare`: DVC experiments and revisions side by side, paired by seed and prompt."""

import csv
import io
import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mht.cli.main import commands
from mht.core.errors import ConfigError, DataError
from mht.core.seeds import place
from mht.data.text.sample import Sample
from mht.evaluation.summary import Evaluated, write_samples
from mht.experiments.compare import Gathered, gather, tabulate
from mht.experiments.revisions import State, changed, states, worded
from mht.experiments.show import as_csv, markdown, terminal

pytest_plugins = ["tests.support.tracking"]

PARAMS = Path(__file__).parents[2] / "params.yaml"
TOY = """
stages:
  evaluate:
    cmd: mkdir -p reports/evaluate && cp -r given reports/evaluate/hybrid
    deps: [given]
    params: [base]
    outs: [reports/evaluate/hybrid]
"""


def rewards(mean, seed, prompts):
    return [mean + 0.01 * ((7 * seed + 3 * i) % 5) for i in range(prompts)]


def gathered(means, seeds=8, prompts=10):
    """Results with these mean rewards, and a fixed spread."""
    ids, texts = [str(i) for i in range(prompts)], [Sample("p", "a b", "a")] * prompts
    runs = {
        name: [Evaluated(ids, texts, {"reward": rewards(mean, n, prompts)}) for n in range(seeds)]
        for name, mean in means.items()
    }
    return Gathered(runs, seeds, next(iter(means)))


def test_experiments_are_compared_over_seeds_and_prompts():
    found = gathered({"workspace": 0.5, "worse": 0.2, "same": 0.5})
    table = tabulate(found, metrics=["reward"], resamples=500)
    assert (table.baseline, table.seeds, table.prompts) == ("workspace", 8, 10)
    by = {line.name: line for line in table.lines}
    assert by["workspace"].verdict == "baseline" and by["workspace"].p_adjusted is None
    assert by["worse"].difference == pytest.approx(-0.3)
    alone = gathered({"workspace": 0.5, "worse": 0.2})
    (line,) = tabulate(alone, metrics=["reward"]).lines[1:]
    doubled = pytest.approx(2 * line.p_adjusted, rel=1e-4, abs=0)
    assert by["worse"].p_adjusted == doubled, "two lines: Holm doubles it"
    assert by["worse"].verdict == "worse"
    assert by["same"].difference == 0 and by["same"].verdict == "unclear"
    with pytest.raises(ConfigError, match=r"no such metric 'rewrad' \(did you mean 'reward'\?\)"):
        tabulate(found, metrics=["rewrad"])


def test_the_changed_settings_stand_in_every_form():
    found = gathered({"HEAD": 0.5, "slower": 0.2, "again": 0.5})
    changes = {"slower": {"ppo.lr": ("0.002", "0.001"), "ppo.x": ("unset", "1")}, "again": {}}
    found = Gathered(found.runs, found.seeds, "HEAD", changes)
    table = tabulate(found, metrics=["reward"], resamples=200)
    text = terminal(table)
    assert max(map(len, text.splitlines())) <= 80
    assert "ppo.lr 0.002 -> 0.001" in text and "nothing in params.yaml" in text
    assert "| slower | ppo.lr 0.002 -> 0.001; ppo.x unset -> 1 |" in markdown(table)
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert [row["changed"] for row in rows][1] == "ppo.lr 0.002 -> 0.001; ppo.x unset -> 1"
    assert rows[0]["name"] == "HEAD" and rows[0]["changed"] == ""


def write_results(mean, seeds, prompts=10):
    """What the stages leave of the hybrid in the current project, for each training seed."""
    text = f"base: {{seed: 0, seeds: {len(seeds)}, experiment: mht}}\n"
    Path("params.yaml").write_text(text)
    for seed in seeds:
        texts = [Sample("p", "a b", "a")] * prompts
        numbers = {"reward": rewards(mean, seed, prompts)}
        file = place("given", seeds, seed) / "samples.jsonl"
        write_samples(file, list(map(str, range(prompts))), texts, numbers)


def commit(branch):
    """The results as an out that only DVC's cache has once another branch is checked out."""
    Path("dvc.yaml").write_text(
        TOY.replace('"true"', "mkdir -p reports/evaluate && cp -r given reports/evaluate/hybrid")
    )
    for command in (
        ["git", "checkout", "-q", "-b", branch],
        ["dvc", "repro", "-q"],
        ["git", "add", "-A"],
        ["git", "commit", "-qm", branch],
    ):
        subprocess.run(command, check=True)


def test_revisions_are_read_from_the_cache_for_the_seeds_in_common(project):
    Path(".gitignore").write_text("/given\n")
    write_results(0.5, range(3))
    commit("one")
    write_results(0.9, range(2))
    commit("two")
    against, others = states(["one"], "workspace", "hybrid")
    found = gather(against, others)
    assert found.seeds == 2 and found.baseline == "workspace"
    assert found.runs["one"][1].per_sample["reward"] == pytest.approx(rewards(0.5, 1, 10))
    found = gather(State("one"), [State("workspace")])
    table = tabulate(found, metrics=["reward"], resamples=200)
    assert [line.name for line in table.lines] == ["one", "workspace"]
    assert table.lines[1].difference == pytest.approx(0.4)
    options = ["--metric", "reward", "--params", str(PARAMS), "--baseline", "workspace"]
    done = CliRunner().invoke(commands, ["compare", "one", *options, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["lines"][1]["verdict"] == "worse"
    text = CliRunner().invoke(commands, ["compare", "one", *options, "--markdown"]).stdout
    assert "| Reward ↑ | mean | difference | p | verdict |" in text and "| one | 0.520 [" in text
    with pytest.raises(DataError, match=r"three: no DVC experiment or revision"):
        gather(State("one"), [State("three")])
    with pytest.raises(DataError, match=r"two: no finished DVC experiment or revision with"):
        gather(State("one"), [State("two", "other")])
    write_results(0.5, range(2), prompts=9)
    commit("three")
    with pytest.raises(DataError, match="different prompts"):
        gather(State("workspace"), [State("one")])


def test_head_is_the_baseline_and_the_workspace_counts_where_it_differs(project):
    Path(".gitignore").write_text("/given\n")
    write_results(0.5, range(1))
    commit("one")
    with pytest.raises(DataError, match="nothing to compare with HEAD"):
        states([], None, "hybrid")
    write_results(0.7, range(1))
    subprocess.run(["dvc", "repro", "-q"], check=True)
    against, others = states([], None, "hybrid")
    assert (against.name, [other.name for other in others]) == ("HEAD", ["workspace"])
    assert gather(against, others).runs["HEAD"][0].per_sample["reward"][0] == pytest.approx(0.5)
    assert states(["one"], None, "other")[0].name == "workspace", "HEAD has no results of it"


def test_settings_that_differ_are_named_with_both_values(project):
    write_results(0.5, range(1))
    commit("one")
    Path("params.yaml").write_text("base: {seed: 0, seeds: 4}\nppo: {lr: 0.1}\n")
    found = changed(State("workspace"), State("one"))
    assert found == {"base.experiment": ("mht", "unset"), "ppo.lr": ("unset", "0.1")}
    assert worded(found)[1] == "ppo.lr unset -> 0.1", "more seeds are no change of the settings"


def test_a_project_in_a_folder_of_a_repository(project, monkeypatch):
    inner = Path("inner")
    inner.mkdir()
    monkeypatch.chdir(inner)
    subprocess.run(["dvc", "init", "-q", "--subdir"], check=True)
    write_results(0.5, range(1))
    commit("one")
    assert State("one").results()[0].prompts == 10


def test_an_experiment_as_a_page(project):
    """The report's own page: what differs, where both come from, every response."""
    write_results(0.5, range(1))
    Path("plots/hybrid").mkdir(parents=True)
    Path("plots/hybrid/ppo.csv").write_text("step,ppo/score/mean\n1,0.1\n2,0.4\n")
    commit("one")
    write_results(0.7, range(1))
    with Path("params.yaml").open("a") as file:
        file.write("ppo: {lr: 0.1}\n")
    subprocess.run(["dvc", "repro", "-q"], check=True)
    options = ["--metric", "reward", "--params", str(PARAMS), "--page", "page.html"]
    done = CliRunner().invoke(commands, ["compare", "workspace", *options])
    assert done.exit_code == 0, done.output
    page = Path("page.html").read_text()
    assert "MHT: workspace against HEAD" in page and "Where it comes from" in page
    assert "<td>ppo.lr</td><td>unset</td><td>0.1</td>" in page
    assert git("rev-parse", "--short", "HEAD") in page
    assert "workspace - HEAD" in page and 'class="better"' in page
    assert "http://" not in page.replace("http://127", "").replace("http://www.w3", "")
    Path("plots/hybrid/ppo.csv").unlink()
    Path("plots/hybrid").rmdir()
    done = CliRunner().invoke(commands, ["compare", "workspace", *options])
    assert "workspace: plots/hybrid is not in its commit" in str(done.exception)


def git(*words):
    return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()
