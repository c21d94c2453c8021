"""MHT, the Modular HybridTrainer: SFT and PPO in one alternating loop, rewards composed in YAML.

The names below are the library's face. Each is imported on first use, so that `import mht` takes
milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mht.config import load_config as load_config
    from mht.data.text.sample import Sample as Sample
    from mht.optim.optimizers import make_optimizer as make_optimizer
    from mht.optim.optimizers import make_scheduler as make_scheduler
    from mht.rewards import make_reward as make_reward
    from mht.training.hybrid import HybridTrainer as HybridTrainer

__version__ = "0.1.0"

_HOMES = {
    "HybridTrainer": "mht.training.hybrid",
    "Sample": "mht.data.text.sample",
    "load_config": "mht.config",
    "make_optimizer": "mht.optim.optimizers",
    "make_reward": "mht.rewards",
    "make_scheduler": "mht.optim.optimizers",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mht' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next look-up doesn't come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
