"""Train the reward model on what people judged; measure it on what it has not seen.

With ``reward_model.judge_share`` a second one, on other texts, that is no reward but a judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mht.core.outputs import replaced_folder, write_text
from mht.core.stable_files import write_csv, write_json
from mht.data.judgements.judgements import Judgements, read_judgements, set_apart
from mht.pipeline.stage import run_stage

if TYPE_CHECKING:
    from mht.config import Config
    from mht.reward_models.learn import Learnt
    from mht.tracking import Run

Figures = dict[str, float]

MODEL, JUDGE = "models/reward_model", "judge"  # a folder in that one


def main(config: Config, run: Run) -> None:
    """Write models/reward_model with its held-out accuracy and calibration."""
    judgements = read_judgements("data/prepared/labels.parquet")
    if not judgements.rows:
        return _none()
    share = config.reward_model.judge_share
    own, apart = set_apart(judgements, share) if share else (judgements, None)
    learnt = _learn(own, config, run.log)
    figures = learnt.figures
    with replaced_folder(MODEL) as folder:
        _save(learnt, folder)
        if apart is not None:
            judge = _learn(apart, config, lambda stats, step: run.log(_judge(stats), step))
            figures = {**figures, **_judge(judge.figures)}
            _save(judge, folder / JUDGE)
    write_json("metrics/reward_model.json", figures)
    write_csv("plots/reward_model_calibration.csv", learnt.bins)
    run.summary(figures)
    run.model(MODEL)
    held = figures.get("held_out_pairs") or figures["held_out_texts"]
    print(f"accuracy {figures['accuracy']:.3f} on {held:.0f} held out")


def _none() -> None:
    """Write outs that say that there is no reward model."""
    with replaced_folder(MODEL) as folder:
        write_text(folder / "README.md", "There is no reward model: `data.labels` is null.\n")
    write_json("metrics/reward_model.json", {})
    write_text("plots/reward_model_calibration.csv", "predicted,observed\n")
    print("no judgements to learn from, so no reward model: data.labels is null")


def _learn(judgements: Judgements, config: Config, log: Callable[[Figures, int], None]) -> Learnt:
    from mht.models.loading import resolve_device  # torch is loaded only for judgements
    from mht.reward_models.learn import learn

    return learn(
        judgements.kind,
        judgements.rows,
        "data/raw/encoder",
        config.reward_model,
        seed=config.base.seed,
        device=resolve_device(config.base.device),
        log=log,
    )


def _save(learnt: Learnt, folder: Path) -> None:
    learnt.model.save_pretrained(folder)
    learnt.tokenizer.save_pretrained(folder)


def _judge(figures: Mapping[str, float]) -> Figures:
    return {f"judge/{name}": value for name, value in figures.items()}


if __name__ == "__main__":
    run_stage(main)
