"""What every stage does around its own work: check the settings, track the run, report mistakes.

Exit codes: 0 after success, 2 after a user's mistake (one clear message, no traceback), 3 if a
search prunes the trial, 130 after ctrl-C and 143 after SIGTERM.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from mht.core.errors import Elsewhere, UserError
from mht.core.outputs import disk_problem
from mht.core.processes.launched import is_main_process, world_size
from mht.core.processes.lifetime import INTERRUPTED, TERMINATED, end_with_starter, interruptible
from mht.pipeline import launch
from mht.pipeline.announce import announced
from mht.pipeline.stage_lock import alone
from mht.tracking import Pruned, Run, Terminated, open_run, silent_run

if TYPE_CHECKING:
    from mht.config import Config

MISTAKE, PRUNED = 2, 3
NOISY = ("transformers", "huggingface_hub", "datasets", "sentence_transformers", "absl", "mlflow")
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",  # the stages show their own progress
}


def run_stage(
    main: Callable[[Config, Run], None], *, trains: bool = False, tracked: bool = True
) -> None:
    """Check params.yaml, open the tracking run, do the stage's work; exits on failure.

    Heavy modules are imported only after the settings have been checked.

    Args:
        main: the stage's work; seeds and outputs are its business.
        trains: ``base.accelerate`` may run this stage in several processes. Each does the work,
            and only the main process has a tracking run.
        tracked: it has a run in MLflow; without one it starts in half the time.
    """
    name = stage_name()
    try:
        interruptible()
        prepare_process(name)
        config = _load_config()
        file = config.base.accelerate if trains and world_size() == 1 else None
        if file and launch.processes(file, config) > 1:
            return launch.start_again(file)
        params, experiment = config.resolved(), config.base.experiment
        own = is_main_process()
        has_run = own and tracked
        opened = open_run(name, params=params, experiment=experiment) if has_run else silent_run()
        with alone(stage_command()) if own else nullcontext(), opened as run:
            run.watch = _watch(name)
            with announced(name, params) if own else nullcontext():
                main(config, run)
    except launch.Failed as error:
        _leave(str(error), error.code)
    except Elsewhere:
        sys.exit(MISTAKE)
    except Pruned as verdict:
        if run.scratch:  # nothing goes on with it
            shutil.rmtree(run.scratch, ignore_errors=True)
        _leave(f"{name}: {verdict}", PRUNED)
    except UserError as error:
        _leave(f"{name}: {error}", MISTAKE)
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        place = error.filename or "the disk"
        _leave(f"{name}: {place}: {problem}: see to it, then run again", MISTAKE)
    except KeyboardInterrupt:
        _leave(f"{name}: interrupted", INTERRUPTED)
    except Terminated:
        _leave(f"{name}: terminated", TERMINATED)


def _watch(name: str) -> Callable[[int, int, Mapping[str, float]], None] | None:
    """What watches this stage where it is a trial of `mht tune --dvc`."""
    from mht.experiments.search.watch import TRIAL, watch_of_stage

    return watch_of_stage(name) if TRIAL in os.environ else None


def stage_name() -> str:
    """As DVC addresses the running stage, or the name of the module that was started."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    own = spec.name.rpartition(".")[2] if spec else Path(sys.argv[0]).stem
    return os.environ.get("DVC_STAGE") or own or "stage"


def stage_command() -> str:
    """The module that was started and its arguments, such as ``stages.evaluate hybrid``."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return " ".join([spec.name if spec else Path(sys.argv[0]).stem, *sys.argv[1:]])


def prepare_process(name: str) -> None:
    """Defaults for this process: quiet libraries, no network but in `fetch`, end with DVC.

    What the user has set in the environment stays.
    """
    quiet = {**ENVIRONMENT} if name == "fetch" else {**ENVIRONMENT, "HF_HUB_OFFLINE": "1"}
    for key, value in quiet.items():
        os.environ.setdefault(key, value)
    for logger in NOISY:
        logging.getLogger(logger).setLevel(logging.ERROR)
    for kind in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.simplefilter("ignore", kind)
    if "DVC_STAGE" in os.environ:
        end_with_starter()


def _load_config() -> Config:
    from mht.checks.preflight import check
    from mht.config import load_config

    config = load_config()
    check(config)
    return config


def _leave(message: str, code: int) -> None:
    sys.stdout.flush()
    if not launch.tell_launcher(message):
        print(message, file=sys.stderr, flush=True)
    sys.exit(code)
