"""One trial as a DVC experiment: `dvc exp run --temp`, pruned by the stage itself.

A trial that runs to its end is an experiment that `dvc exp show` lists and `dvc exp apply` takes
over. A pruned one is none: DVC would keep the outputs of half a training as those of a whole one.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mht.core.errors import ConfigError, UserError
from mht.core.processes.lifetime import die_with_parent
from mht.experiments.search.watch import STAGE, TRIAL, objective
from mht.tracking.content.pipeline import experiments, read_pipeline
from mht.tracking.record import PARENT


def run_experiment(
    name: str,
    values: Mapping[str, Any],
    *,
    variant: str,
    trial: str,
    parent: str | None,
    log: Path,
) -> None:
    """Run the stages up to a variant as an experiment; one of this name that is there is kept.

    Args:
        name: of the experiment.
        values: changes of params.yaml by path.
        variant: that is trained, with one training seed.
        trial: the study's folder, a colon and the trial's id, for the stage.
        parent: the MLflow run that the experiment's belongs under.
        log: gets what DVC says.

    Raises:
        UserError: it failed or was pruned; the study knows which.
    """
    if name in experiments():
        return
    stage, settings = f"ppo@{variant}", {**values, "base.seeds": 1}
    changes = [word for path, value in settings.items() for word in ("-S", override(path, value))]
    env = {**os.environ, TRIAL: trial, STAGE: stage, **({PARENT: parent} if parent else {})}
    with log.open("w", encoding="utf-8") as out:
        done = subprocess.run(
            ["dvc", "exp", "run", "--temp", "--name", name, *changes, stage],
            stdout=out, stderr=subprocess.STDOUT, env=env, check=False, preexec_fn=die_with_parent,
        )  # fmt: skip
    if done.returncode:
        raise UserError(reason(log.read_text(encoding="utf-8")))


def result(name: str, variant: str, weights: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """The objective and the figures of an experiment that ran to its end.

    Raises:
        UserError: it has none.
    """
    file = f"metrics/{variant}.json"
    figures = read_pipeline(name).results.get(file)
    if figures is None:
        raise UserError(f"experiment {name} has no {file}")
    figures = {k: v for k, v in figures.items() if k.startswith("validation/")}
    return objective(figures, weights), figures


def override(path: str, value: Any) -> str:
    """A change as `dvc exp run -S` takes it.

    >>> override("ppo.lr", 3e-05), override("ppo.kl_control.type", "fixed"), override("a", None)
    ('++ppo.lr=3e-05', "++ppo.kl_control.type='fixed'", '++a=null')
    """
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"++{path}='{escaped}'"
    plain = {None: "null", True: "true", False: "false"}
    return f"++{path}={plain[value] if value is None or isinstance(value, bool) else repr(value)}"


def differences(
    base: Mapping[str, Any], other: Mapping[str, Any], problem: Callable[[str], str]
) -> dict[str, Any]:
    """What of params.yaml the search's files change, by path.

    Raises:
        ConfigError: a whole section is replaced, which `-S` can't say.
    """
    found: dict[str, Any] = {}
    wrong: list[str] = []

    def walk(a: Any, b: Any, path: str) -> None:
        if isinstance(b, Mapping) and isinstance(a, Mapping) and a.get("type") == b.get("type"):
            wrong.extend(problem(f"{path}.{key}") for key in a.keys() - b.keys())
            for key, value in b.items():
                walk(a.get(key, _Missing), value, f"{path}.{key}" if path else str(key))
        elif a is _Missing or a != b:
            if isinstance(b, Mapping | list):
                wrong.append(problem(path))
            found[path] = b

    walk({**base, "tune": None}, {**other, "tune": None}, "")
    if wrong:
        raise ConfigError(wrong, "the search")
    return found


class _Missing:
    """In place of a key that is not there."""


def reason(text: str) -> str:
    """The line of DVC's output that says why a stage failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if re.match(r"ppo@\S+: ", line)]
    said = [line for line in lines if "Error: " in line or line.startswith("ERROR: ")]
    return (own or said or lines or ["dvc said nothing"])[-1]
