"""Tracking in MLflow: one row per pipeline run, a child per stage, lineage by content."""

from mht.tracking.run import NullRun, Run, open_run, silent_run
from mht.tracking.session import Pruned, Terminated

__all__ = ["NullRun", "Pruned", "Run", "Terminated", "open_run", "silent_run"]
