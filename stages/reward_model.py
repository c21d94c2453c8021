"""Train the sentiment classifier on rated texts; measure it on texts it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mht.data.examples import read_labels
from mht.data.records import write_csv, write_json
from mht.models.classifier import calibration, p_positive, quality, split_rated, train_classifier
from mht.models.loading import resolve_device
from mht.stage import run_stage

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run


def main(config: Config, run: Run) -> None:
    """Write models/reward_model with its held-out accuracy and calibration."""
    settings, seed = config.reward_model, config.base.seed
    texts, ratings = read_labels("data/prepared/labels.parquet")
    train, held = split_rated(
        texts, ratings, neutral=settings.neutral, holdout=settings.holdout, seed=seed
    )
    device = resolve_device(config.base.device)
    model, tokenizer = train_classifier(
        "data/raw/encoder", train, settings, seed=seed, device=device, log=run.log
    )
    found = p_positive(model, tokenizer, held.texts, max_tokens=settings.max_tokens)
    figures = quality(found, held.labels)
    model.save_pretrained("models/reward_model")
    tokenizer.save_pretrained("models/reward_model")
    write_json("metrics/reward_model.json", figures)
    write_csv("plots/reward_model_calibration.csv", calibration(found, held.labels))
    run.summary({f"reward_model/{name}": value for name, value in figures.items()})
    run.model("models/reward_model")
    print(f"accuracy {figures['accuracy']:.3f} on {len(held.labels)} held-out texts")


if __name__ == "__main__":
    run_stage(main)
