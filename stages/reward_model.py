"""Train the reward model on what people judged; measure it on what it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mht.data.judgements import read_judgements
from mht.data.records import write_csv, write_json
from mht.models.loading import resolve_device
from mht.models.reward_model import learn
from mht.stage import run_stage

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run


def main(config: Config, run: Run) -> None:
    """Write models/reward_model with its held-out accuracy and calibration."""
    judgements = read_judgements("data/prepared/labels.parquet")
    learnt = learn(
        judgements.kind,
        judgements.rows,
        "data/raw/encoder",
        config.reward_model,
        seed=config.base.seed,
        device=resolve_device(config.base.device),
        log=run.log,
    )
    figures = learnt.figures
    learnt.model.save_pretrained("models/reward_model")
    learnt.tokenizer.save_pretrained("models/reward_model")
    write_json("metrics/reward_model.json", figures)
    write_csv("plots/reward_model_calibration.csv", learnt.bins)
    run.summary({f"reward_model/{name}": value for name, value in figures.items()})
    run.model("models/reward_model")
    held = figures.get("held_out_pairs") or figures["held_out_texts"]
    print(f"accuracy {figures['accuracy']:.3f} on {held:.0f} held out")


if __name__ == "__main__":
    run_stage(main)
