"""Models and data into the project, each pinned and with its licence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.assets.encoders import fetch_encoder, no_encoder
from mht.assets.fetch import fetch_policy
from mht.core.stable_files import write_json
from mht.data.sources.bundled import size_of
from mht.data.sources.fetch import fetch_rows, fetched_texts
from mht.pipeline.stage import run_stage

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run

BASE, ENCODER, RAW = Path("models/base"), Path("data/raw/encoder"), Path("data/raw")


def main(config: Config, run: Run) -> None:
    """Write the starting model, the encoder, the rows, and what they are."""
    data = fetch_rows(config.data, RAW)  # first: it is what users get wrong, and quick
    encoder = _encoder(config.reward_model.encoder)
    policy = fetch_policy(config.model, BASE, fetched_texts(RAW))
    assets = [policy, *encoder, *data]
    write_json(RAW / "assets.json", assets)
    places = [BASE, *(ENCODER for _ in encoder), RAW / "examples.jsonl", RAW / "labels.jsonl"]
    for asset, place in zip(assets, places, strict=False):
        size = f"{size_of(place) / 1e6:.1f} MB"
        print(f"{asset['name']}: {size} in {place}, licence {asset['licence']}")
    run.artifact(str(RAW / "assets.json"))


def _encoder(name: str | None) -> list[dict[str, Any]]:
    """The encoder's entry of assets.json, in a list that is empty without an encoder."""
    if name is None:
        no_encoder(ENCODER)
        return []
    return [fetch_encoder(name, ENCODER)]


if __name__ == "__main__":
    run_stage(main)
