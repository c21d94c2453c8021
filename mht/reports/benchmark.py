"""The comparison that the settings ask for."""

from __future__ import annotations

from pathlib import Path

from mht.config import Config
from mht.reports.compare import compare
from mht.reports.conclusion import OFF
from mht.reports.guard import Bounds
from mht.reports.records import Comparison, Entry


def comparison_of(config: Config, root: str | Path = ".") -> Comparison:
    """All variants on the same prompts, as the section `benchmark` says.

    Args:
        config: all settings.
        root: where ``reports/``, ``metrics/`` and ``plots/`` are.

    Raises:
        DataError: a variant's file is missing or broken, or the prompts differ.
        ConfigError: an unknown metric; all of them.
    """
    wanted = config.benchmark
    return compare(
        _entries(config),
        root=root,
        seeds=config.seeds,
        metrics=wanted.metrics,
        subject=wanted.subject,
        samples=wanted.samples,
        split=config.evaluate.split,
        baseline=wanted.baseline,
        reach=wanted.reach.model_dump(),
        guard=Bounds(**wanted.guard.model_dump()) if wanted.guard else OFF,
        resamples=wanted.resamples,
        seed=config.base.seed,
    )


def _entries(config: Config) -> list[Entry]:
    """The rows of the table of variants."""
    return [
        Entry(
            name,
            variant.start,
            variant.optimizer_steps,
            trained=variant.settings is not None,
            batch_size=variant.settings.batch_size if variant.settings else 0,
        )
        for name, variant in config.variants.items()
    ]
