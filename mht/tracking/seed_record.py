"""The run of a further training seed in the store, below its stage's run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mht.tracking.content.inputs import StageInputs
from mht.tracking.secrets import one_line
from mht.tracking.session import process_id
from mht.tracking.store import Point, Store


@dataclass(frozen=True)
class SeedRecord:
    """The run of one training seed.

    Attributes:
        store: where it is.
        run_id: its id.
    """

    store: Store
    run_id: str

    def log(self, points: list[Point]) -> None:
        """Add points to the seed's curves."""
        self.store.log(self.run_id, points=points)

    def publish(
        self, artifacts: list[str], models: list[str], figures: Mapping[str, float]
    ) -> None:
        """After success: the last figures; files and models are the stage's."""
        self.store.figures(self.run_id, {f"final/{name}": own for name, own in figures.items()})

    def close(self, status: str, error: BaseException | None = None) -> None:
        """End the run."""
        if error is not None:
            self.store.log(self.run_id, tags={"mht.error": one_line(error)})
        self.store.set_status(self.run_id, status)


def begin_seed(store: Store, inputs: StageInputs, seed: int, above: str) -> SeedRecord:
    """Begin a seed's run; one that was killed and has left its state goes on as the same run.

    Args:
        store: of the stage's run.
        inputs: what the stage does.
        seed: the training seed.
        above: the stage's run.

    Raises:
        Exception: whatever the store raises.
    """
    identity = {"mht.fingerprint": inputs.fingerprint(seed)}
    own = {"mht.process": process_id()}
    known = store.find(identity) if inputs.goes_on(seed) else None
    if known and known.status != "FINISHED":
        store.set_status(known.id, "RUNNING")
        store.log(known.id, tags={**own, "mlflow.parentRunId": above})
        return SeedRecord(store, known.id)
    tags = {"mht.kind": "seed", "mht.seed": str(seed), "mht.stage": inputs.stage.name}
    source = {"mlflow.source.name": f"dvc repro {inputs.stage.name}"}
    name = f"{inputs.stage.name}-seed{seed}"
    run_id = store.create_run(name, {**tags, **source, **identity, **own}, above)
    store.log(run_id, params={**inputs.params, "base.seed": str(seed)})
    return SeedRecord(store, run_id)
