"""A training stage on several devices: it starts itself again under `accelerate launch`.

``base.accelerate`` names the configuration, as `accelerate config` writes it. The processes that
are started run the same stage; this one waits, and ends as they do.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.core.errors import ConfigError, MissingPackage, UserError
from mht.core.processes.lifetime import LAUNCHED

if TYPE_CHECKING:
    from mht.config import Config

FOLDER = Path("configs/accelerate")  # which DVC watches
KEY = "base.accelerate"
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # where torch's launcher looks for what a process died of
KINDS = ("NO", "MULTI_GPU", "FSDP", "DEEPSPEED")


class Failed(Exception):
    """A process that this stage has started failed.

    Args:
        message: to show.
        code: to end with.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def processes(path: str, config: Config) -> int:
    """How many processes ``base.accelerate``, a path, asks for.

    Raises:
        ConfigError: the file is missing or wrong, or a batch can't be split among them.
    """
    from mht.config import read_yaml

    if Path(path).parent != FOLDER:
        raise _wrong(f"{path} is not in {FOLDER}/, where a changed file makes DVC run again")
    if not Path(path).is_file():
        there = ", ".join(sorted(str(p) for p in FOLDER.glob("*.yaml"))) or "nothing"
        raise _wrong(f"{path}: no such file; there is {there}")
    settings = read_yaml(path)
    if not isinstance(settings, Mapping):
        raise _wrong(f"{path} must hold a mapping, as `accelerate config` writes it")
    count = _checked(path, settings)
    is_deepspeed = settings.get("distributed_type") == "DEEPSPEED"
    problems = _indivisible(config, count)
    if is_deepspeed:
        problems += _unserved(path, settings.get("deepspeed_config") or {}, config)
    if problems:
        raise ConfigError(problems)
    if is_deepspeed and find_spec("deepspeed") is None:
        raise MissingPackage("deepspeed", f"{KEY}: {path}: distributed_type DEEPSPEED")
    return count


def _checked(path: str, settings: Mapping[str, Any]) -> int:
    """The number of processes of an accelerate configuration that MHT can work under."""
    kind, precision = settings.get("distributed_type", "NO"), settings.get("mixed_precision")
    count, machines = settings.get("num_processes"), settings.get("num_machines", 1)
    if kind not in KINDS:
        hint = (
            "; without a GPU, MULTI_GPU starts processes on the CPU" if kind == "MULTI_CPU" else ""
        )
        raise _wrong(f"{path}: distributed_type {kind!r} is not one of {', '.join(KINDS)}{hint}")
    if not isinstance(count, int) or count < 1 or (kind == "NO") != (count == 1):
        raise _wrong(f"{path}: num_processes {count!r} does not fit distributed_type {kind}")
    if precision not in (None, "no"):
        raise _wrong(f"{path}: mixed_precision {precision!r}: set 'no', model.dtype decides")
    if machines != 1:
        raise _wrong(f"{path}: num_machines {machines}: a stage starts processes on one machine")
    return count


def _unserved(path: str, told: Mapping[str, Any], config: Config) -> list[str]:
    """A line for each setting that can't be had under DeepSpeed."""
    from mht.config import deepspeed

    of_file = [f"{KEY}: {path}: {problem}" for problem in deepspeed.setting_problems(told)]
    return of_file + deepspeed.config_problems(config)


def _indivisible(config: Config, count: int) -> list[str]:
    """A line for each size of the training sections that the processes can't split."""
    from mht.config.variants import loops_of

    sizes = {"sft.batch_size": config.sft.batch_size} if config.sft.steps else {}
    for path, section in loops_of(config).items():
        sizes |= {f"{path}.{name}": size for name, size in section.split_sizes.items()}
    return [
        f"{path}: {size} can't be split among {count} processes ({KEY}: {config.base.accelerate}): "
        f"set a multiple of {count}"
        for path, size in sizes.items()
        if size % count
    ]


def _wrong(problem: str) -> ConfigError:
    return ConfigError([f"{KEY}: {problem}"])


def start_again(path: str) -> None:
    """Run this very command in the processes of an accelerate configuration, to their end.

    Raises:
        UserError: accelerate refuses the configuration.
        Failed: one of them failed.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    spec = sys.modules["__main__"].__spec__
    module = spec.name if spec else Path(sys.argv[0]).stem
    command = ["--config_file", path, "--main_process_port", "0", "-m", module, *sys.argv[1:]]
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # it tells at length
    os.environ[LAUNCHED] = "1"
    try:
        launch_command(launch_command_parser().parse_args(command))
    except ChildFailedError as error:
        raise _failed(error.failures) from None
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise Failed(f"{KEY}: terminated", 128 + error.sigval) from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{KEY}: {path}: {error}") from None


def _failed(failures: Mapping[int, Any]) -> Failed:
    """What to end with: the first process that says why, or else the first that failed."""
    ordered = sorted(failures.items(), key=lambda item: item[1].timestamp)
    for _, failure in ordered:
        told = failure.error_file_data.get("message")
        if isinstance(told, Mapping):
            return Failed(str(told["message"]), failure.exitcode)
    rank, first = ordered[0]
    return Failed(f"{KEY}: process {rank} ended with exit code {first.exitcode}", 1)


def tell_launcher(message: str) -> bool:
    """Leave word of this process's failure for the stage that has started it, if one has."""
    if not os.environ.get(LAUNCHED) or ERROR_FILE not in os.environ:
        return False
    reason = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
    Path(os.environ[ERROR_FILE]).write_text(json.dumps({"message": reason}), encoding="utf-8")
    return True
