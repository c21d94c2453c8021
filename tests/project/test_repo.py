"""What the repository holds fits together: every file loads, the README is true, the set-up is."""

import ast
import json
import math
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mht.config import HybridConfig, load_config

LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()
FILES = [Path(name) for name in LISTED if Path(name).is_file()]
PLAIN = [f for f in FILES if f.suffix in (".yaml", ".yml", ".json", ".lock")]
SETTINGS = [f for f in FILES if f.name.startswith("params") and f.suffix == ".yaml"]
MARKDOWN = [f for f in FILES if f.suffix == ".md"]
NOW = [f for f in MARKDOWN if f.name != "log.md"]  # the log names what was there at its time
PYPROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
README = Path("README.md")


def test_there_are_files_to_look_at():
    assert PLAIN
    assert SETTINGS
    assert README in MARKDOWN


def read_plain(file: Path):
    text = file.read_text(encoding="utf-8")
    return json.loads(text) if file.suffix == ".json" else YAML(typ="safe").load(text)


@pytest.mark.parametrize("file", PLAIN, ids=str)
def test_yaml_and_json_load(file):
    data = read_plain(file)
    assert data, f"{file} is empty"
    if isinstance(data, dict) and "REWARD" in data:
        from mht import make_reward

        make_reward(data)


@pytest.mark.parametrize("file", SETTINGS, ids=str)
def test_settings_load(file):
    load_config(file)


def test_jsonl_loads():
    for file in (f for f in FILES if f.suffix == ".jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            json.loads(line)


# The comparison is fair: same settings, same optimiser steps.

# PPO only has smaller minibatches and two epochs: as many optimiser steps, about as many rollouts.
# Its rate goes with the square root of the minibatch (Malladi et al. 2022, arXiv:2205.10287).
STEPS = {"cycles", "sft_steps_per_cycle", "ppo_steps_per_cycle", "minibatch_size", "epochs"}
SFT_FIELDS = {"sft_batch_size", "optimizer", "scheduler", "max_grad_norm"}
WATCHING = {"eval_every", "eval_prompts", "save_every"}  # change no weight


def relevant(variant: HybridConfig) -> dict:
    """The settings that decide what a variant's steps do."""
    settings = variant.model_dump(mode="json", exclude={*STEPS, "start", "like"})
    for name in WATCHING:
        del settings[name]
    settings["lr"] = round(variant.lr / math.sqrt(variant.minibatch_size), 12)
    settings["sft_lr"] = variant.lr if variant.sft_lr is None else variant.sft_lr
    if not variant.ppo_steps_per_cycle:
        return {name: settings[name] for name in (*sorted(SFT_FIELDS), "sft_lr")}
    if not variant.sft_steps_per_cycle:
        del settings["sft_batch_size"], settings["sft_lr"]
    return settings


@pytest.mark.parametrize("name", ["sft_only", "ppo_only"])
def test_baselines_differ_from_ppo_in_their_steps_alone(name):
    config = load_config()
    baseline, hybrid = relevant(config.baselines[name]), relevant(config.ppo)
    different = {k: (v, hybrid[k]) for k, v in baseline.items() if hybrid[k] != v}
    assert not different, f"baselines.{name} and ppo differ: {different}"


def test_baselines_are_what_they_are_called():
    baselines = load_config().baselines
    sft, ppo = baselines["sft_only"], baselines["ppo_only"]
    assert sft.ppo_steps_per_cycle == 0 < sft.sft_steps_per_cycle
    assert ppo.sft_steps_per_cycle == 0 < ppo.ppo_steps_per_cycle


def test_variants_get_the_same_optimiser_steps():
    totals = {name: n for name, n in load_config().optimizer_steps.items() if name != "base"}
    hybrid = totals["hybrid"]
    for name, total in totals.items():
        assert total == pytest.approx(hybrid, rel=0.02), f"{name}: {total}, hybrid: {hybrid}"


# The README says what is there.


OUTS = {"models", "reports", "metrics", "plots"}  # what the pipeline writes


def is_generated(path: Path) -> bool:
    # on a fresh clone an ignored folder is not there yet, and git tells it by the slash alone
    both = subprocess.run(
        ["git", "check-ignore", path, f"{path}/"], check=False, stdout=subprocess.DEVNULL
    )
    return both.returncode == 0 or path.parts[0] in OUTS


@pytest.mark.parametrize("file", MARKDOWN, ids=str)
def test_links_lead_somewhere(file):
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            path = file.parent / target
            assert path.exists() or is_generated(path), f"{file}: no file {target}"


@pytest.mark.parametrize("file", NOW, ids=str)
def test_files_in_code_quotes_exist(file):
    tops = {name.split("/")[0] for name in LISTED}
    for quoted in re.findall(r"`([\w./-]+)`", file.read_text(encoding="utf-8")):
        path = Path(quoted)
        if "/" in quoted and path.parts[0] in tops:
            assert path.exists() or is_generated(path), f"{file}: no file {quoted}"


# The set-up is complete.


def imported_packages() -> set[str]:
    found = set()
    for file in FILES:
        if file.suffix == ".py" and file.parts[0] in ("mht", "stages", "tools"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"mht", "stages", "tools", "tests"}


# imported where a user asks for them, with a message that says what to install
OPTIONAL = {"bitsandbytes", "deepspeed", "icu4py", "optuna", "peft"}
# packages that another one is made of and hands out
PART_OF = {
    "grimp": "import-linter",
    "networkx": "dvc",
    "pydantic_core": "pydantic",
    "scmrepo": "dvc",
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[<>=!~\[; ]", requirement)[0]) for requirement in requirements}


def test_every_imported_package_is_declared():
    declared = names_of(PYPROJECT["project"]["dependencies"])
    homes = packages_distributions()
    missing = {
        package
        for package in imported_packages() - OPTIONAL - PART_OF.keys()
        if not {canonical(d) for d in homes.get(package, [package])} & declared
    }
    assert not missing, f"pyproject.toml declares no package for {sorted(missing)}"


def test_every_declared_package_has_a_tested_version():
    lines = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonical(line.split("==")[0]) for line in lines if "==" in line}
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["dev"] + extras["docs"]
    assert not names_of(wanted) - pinned
