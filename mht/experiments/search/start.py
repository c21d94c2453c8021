"""Where trials in this process start: the pipeline's fine-tuned model, or one made for the search.

A search on the settings of params.yaml takes the pipeline's model. A search on others, such as
those of the task randomwalks, makes its own beside the study.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mht.assets.fetch import fetch_policy
from mht.config import Config
from mht.core.errors import UserError
from mht.core.stable_files import write_json
from mht.data.examples.example import read_examples
from mht.data.prepare.prepare import prepare
from mht.data.sources.fetch import fetch_rows, fetched_texts
from mht.experiments.search.space import tried_stage
from mht.tracking.content.pipeline import Pipeline, tree_md5
from mht.training.from_config import make_trainer

MADE = "made.json"


@dataclass(frozen=True)
class Start:
    """What every trial reads.

    Attributes:
        model: the folder of the fine-tuned model.
        prepared: the folder of the prepared splits; the test split is not read.
    """

    model: Path
    prepared: Path


def find_start(config: Config, of_params: Config, pipeline: Pipeline, folder: Path) -> Start:
    """The pipeline's outputs where its settings are the search's, else those made in the folder.

    Args:
        config: of the search.
        of_params: those of params.yaml.
        pipeline: what its stages read, and whether they are done.
        folder: for what has to be made.

    Raises:
        UserError: the pipeline's outputs are missing or out of date.
    """
    stage = tried_stage(config)
    before = pipeline.upstream(stage)
    keys = sorted({key for stage in before for key in pipeline.read_by(stage)})
    if keys and _chosen(config, keys) == _chosen(of_params, keys):
        _check_current(pipeline, stage)
        return Start(Path("models/sft"), Path("data/prepared"))
    return make_start(config, pipeline, folder)


def _check_current(pipeline: Pipeline, tried: str) -> None:
    before = pipeline.upstream(tried)
    current = pipeline.current(tried, {})
    stale = [
        name
        for name, stage in before.items()
        if name not in current or not all(Path(out).exists() for out in stage.outs)
    ]
    if stale:
        names = " ".join(stale)
        raise UserError(f"trials start from models/sft, and {names} is to run: `dvc repro {names}`")


def make_start(config: Config, pipeline: Pipeline, folder: Path) -> Start:
    """The work of fetch, prepare and sft, in a folder; kept for the next call."""
    start, data = Start(folder / "sft", folder / "prepared"), config.data
    if data.labels != data.source:  # only a reward model would read them
        config = config.model_copy(update={"data": data.model_copy(update={"labels": None})})
    made = _identity(config, pipeline)
    if _read(folder / MADE) == made:
        return start
    shutil.rmtree(folder, ignore_errors=True)
    raw, base = folder / "raw", folder / "base"
    fetch_rows(config.data, raw)
    fetch_policy(config.model, base, fetched_texts(raw))
    prepare(
        config, raw=raw, model=base, out=start.prepared,
        metrics=folder / "prepare.json", plots=folder / "plots",
    )  # fmt: skip
    trainer = make_trainer(
        base,
        read_examples(start.prepared / "train.parquet"),
        config.sft.as_cycles(),
        section="sft",
        base=config.base,
        model=config.model,
    )
    trainer.train(config.sft.plan)
    trainer.save(start.model)
    write_json(folder / MADE, made)
    return start


def _identity(config: Config, pipeline: Pipeline) -> dict[str, Any]:
    """What the start rests on: settings, and the code of the stages that make it."""
    plain = config.model_dump(mode="json")
    tried = tried_stage(config)
    stages = [pipeline.stages[tried], *pipeline.upstream(tried).values()]
    code = sorted({dep for stage in stages for dep in stage.deps if dep.startswith("mht/")})
    return {
        "settings": {name: plain[name] for name in ("model", "data", "sft")},
        "seed": config.base.seed,
        "code": {path: tree_md5(path) for path in code},
    }


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _chosen(config: Config, keys: list[str]) -> dict[str, Any]:
    plain = config.model_dump(mode="json")
    found = {}
    for key in keys:
        node: Any = plain
        for name in key.split("."):
            node = node.get(name) if isinstance(node, dict) else None
        found[key] = node
    return found
