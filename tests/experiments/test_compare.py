"""`mht compare`: DVC experiments and revisions side by side, paired by seed and prompt."""

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mht.cli.main import commands
from mht.core.errors import DataError, UserError
from mht.core.seeds import place
from mht.data.text.sample import Sample
from mht.evaluation.summary import Evaluated, write_samples
from mht.experiments.compare import Gathered, gather, tabulate

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
    with pytest.raises(UserError, match=r"no such experiment 'wrose' \(did you mean 'worse'\?\)"):
        tabulate(found, metrics=["reward"], baseline="wrose")


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
    found = gather(["workspace", "one"])
    assert found.seeds == 2 and found.baseline == "workspace"
    assert found.runs["one"][1].per_sample["reward"] == pytest.approx(rewards(0.5, 1, 10))
    table = tabulate(found, metrics=["reward"], baseline="one", resamples=200)
    assert [line.name for line in table.lines] == ["one", "workspace"]
    assert table.lines[1].difference == pytest.approx(0.4)
    options = ["--metric", "reward", "--params", str(PARAMS)]
    done = CliRunner().invoke(commands, ["compare", "workspace", "one", *options, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["lines"][1]["verdict"] == "worse"
    text = CliRunner().invoke(commands, ["compare", "workspace", "one", *options]).stdout
    assert "| Reward ↑ | mean | difference | p | verdict |" in text and "| one | 0.52 [" in text
    with pytest.raises(DataError, match=r"three: no finished DVC experiment or revision with"):
        gather(["three"])
    write_results(0.5, range(2), prompts=9)
    commit("three")
    with pytest.raises(DataError, match="different prompts"):
        gather(["workspace", "one"])
