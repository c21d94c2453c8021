"""The pipeline and its store, as commands need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mht.core.errors import UserError
from mht.core.project import repo_root

if TYPE_CHECKING:
    from mht.tracking.content.pipeline import Pipeline
    from mht.tracking.store import Store


def pipeline_at(rev: str | None) -> Pipeline:
    """The pipeline of a revision or experiment; None is the workspace.

    Raises:
        UserError: it can't be read.
    """
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    from mht.tracking.content.pipeline import read_pipeline

    try:
        return read_pipeline(rev)
    except (DvcException, SCMError) as error:
        where = f"revision {rev}" if rev else f"the folder {repo_root().name}"
        raise UserError(f"{where}: the pipeline can't be read: {error}") from None


def known_store(pipeline: Pipeline) -> Store | None:
    """The store; None if it does not exist yet."""
    from mht.tracking.store import open_store, store_exists

    return open_store(experiment_of(pipeline.params)) if store_exists() else None


def experiment_of(params: Mapping[str, Any]) -> str:
    """MLflow's experiment, as params.yaml names it."""
    base = params.get("base")
    return str(base.get("experiment", "mht")) if isinstance(base, Mapping) else "mht"
