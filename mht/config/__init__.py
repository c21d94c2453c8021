"""params.yaml as a whole, typed: each section's defaults and bounds, and what must fit together.

`load_config` checks the whole file before anything is loaded or trained, and reports every mistake
at once with its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    FieldSerializationInfo,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from mht.config.data import DataConfig, RewardModelConfig, SplitConfig
from mht.config.evaluation import BenchmarkConfig, DecodingConfig, EvaluateConfig, GuardConfig
from mht.config.fresh import FreshModel
from mht.config.optim import OptimizerConfig, SchedulerConfig
from mht.config.policy import LoRAConfig, ReferenceConfig
from mht.config.sft import SFTConfig
from mht.config.training import HybridConfig, KLControl
from mht.config.tuning import TuneConfig
from mht.config.variants import (
    BaselineConfig,
    UntrainedConfig,
    Variant,
    choice_problems,
    resolve_rows,
    row_problems,
    untrained_problems,
    variants_of,
    written_rows,
)
from mht.core.bounds import MOST_SEEDS, Label, Positive, Seed, Weight
from mht.core.component import Chosen, Section, build, refuse, registry
from mht.core.errors import ConfigError
from mht.core.plain import read_yaml

__all__ = [
    "BaseConfig",
    "BaselineConfig",
    "BenchmarkConfig",
    "Config",
    "DataConfig",
    "DecodingConfig",
    "EvaluateConfig",
    "GuardConfig",
    "HybridConfig",
    "KLControl",
    "LoRAConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ReferenceConfig",
    "RewardModelConfig",
    "SFTConfig",
    "SchedulerConfig",
    "SplitConfig",
    "TuneConfig",
    "UntrainedConfig",
    "Variant",
    "load_config",
    "read_yaml",
]


class BaseConfig(Section):
    """What all stages share.

    Attributes:
        seed: below 2**63; seeds every random number: the same seed gives the same outputs, on one
            type of processor with one number of threads.
        seeds: how many training seeds, ``seed`` and those that follow it. Every variant is trained
            and measured with each of them. Intervals and tests are then over seeds and prompts.
        experiment: the MLflow experiment; changes no result.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        accelerate: a file of configs/accelerate/, as `accelerate config` writes them. The training
            stages run in its processes, each on its rows of every batch. With null one process
            runs.
        checkpoint_every_s: seconds between two checkpoints of a training stage, from which a killed
            run goes on; 0 writes one after every step; changes no result.
    """

    seed: Seed = 0
    seeds: Annotated[int, Field(gt=0, le=MOST_SEEDS)] = 1
    experiment: Label = "mht"
    device: str = "auto"
    accelerate: str | None = None
    checkpoint_every_s: Weight = 60.0


def _name_or_fresh(value: Any) -> Any:
    fresh = registry("model")
    if isinstance(value, Mapping) or getattr(type(value), "registry", None) is fresh:
        return fresh.choose(value)
    if isinstance(value, str):
        return value
    raise ValueError("should be a name, a folder or the shape of a fresh model")


def _plain(name: Any) -> Any:
    return name if isinstance(name, str) else name.model_dump()


Fresh = Annotated[Any, Chosen("model")]
Name = Annotated[str | Fresh, PlainValidator(_name_or_fresh), PlainSerializer(_plain)]


class ModelConfig(Section):
    """The policy's starting point.

    Attributes:
        name: a bundled model ("smollm2-135m-instruct"), a hub name ("gpt2"), a folder, or the shape
            of a fresh model, such as {type: scratch, layers: 2}.
        revision: the hub revision to pin; ignored for the others.
        trust_remote_code: run code that comes with a hub model; off unless you ask.
        dtype: what the model computes in. In 16 bits what trains has float32 master weights;
            float16 needs a GPU. "auto" is bfloat16 where the device has units for it, else float32.
        gradient_checkpointing: drop the activations of the layers that train and compute them
            again for the gradients. Less memory, about a third more time, the same numbers.
        num_layers_unfrozen: how many of the top layers train, or "all". The layers below are
            shared with the reference model and their activations are computed once per rollout.
        lora: adapters train instead of those layers, and what is saved is merged; null trains the
            layers themselves.
        context_window: the number of preceding tokens from which each token is predicted, in
            training, scoring and generation. The work grows by this factor. With null it is the
            model's own context.
    """

    name: Name
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    gradient_checkpointing: bool = False
    num_layers_unfrozen: Positive | Literal["all"] = "all"
    lora: LoRAConfig | None = None
    context_window: Positive | None = None


class Config(Section):
    """The whole of params.yaml.

    Attributes:
        baselines: the variants that are trained, by name.
        untrained: the models that are measured as they are.
    """

    base: BaseConfig = BaseConfig()
    model: ModelConfig
    data: DataConfig
    reward_model: RewardModelConfig = RewardModelConfig()
    sft: SFTConfig
    ppo: HybridConfig
    baselines: dict[Label, BaselineConfig]
    untrained: dict[Label, UntrainedConfig] = Field(default_factory=dict)
    evaluate: EvaluateConfig
    benchmark: BenchmarkConfig
    tune: TuneConfig = Field(default=TuneConfig(), exclude=True)  # decides no result of a stage

    @field_validator("baselines", mode="before")
    @classmethod
    def _resolve_rows(cls, rows: Any, info: ValidationInfo) -> Any:
        return resolve_rows(rows, info.data.get("ppo"))

    @field_serializer("baselines")
    def _rows_as_written(self, rows: Any, info: FieldSerializationInfo) -> Any:
        return written_rows(rows, self.ppo, info.mode)

    @model_validator(mode="after")
    def _variants_exist(self) -> Config:
        refuse([*row_problems(self.baselines), *untrained_problems(self.untrained)])
        chosen = {"baseline": self.benchmark.baseline, "subject": self.benchmark.subject}
        for key, name in chosen.items():
            refuse(choice_problems(f"benchmark.{key}", name, list(self.variants)))
        return self

    @model_validator(mode="after")
    def _seeds_exist(self) -> Config:
        first = {"base.seed": self.base.seed}
        if isinstance(self.model.name, FreshModel):
            first["model.name.seed"] = self.model.name.seed
        refuse(
            (key, f"{self.base.seeds} seeds from it on are not all below 2**63, got {seed}")
            for key, seed in first.items()
            if seed + self.base.seeds > 2**63
        )
        return self

    @property
    def seeds(self) -> Sequence[int]:
        """The training seeds."""
        return range(self.base.seed, self.base.seed + self.base.seeds)

    def of_seed(self, seed: int) -> Config:
        """The same settings with a single training seed, that of a fresh model's weights moved too.

        Args:
            seed: one of ``seeds``.
        """
        model = self.model
        if isinstance(model.name, FreshModel):
            own = model.name.seed + seed - self.base.seed
            model = model.model_copy(update={"name": model.name.model_copy(update={"seed": own})})
        base = self.base.model_copy(update={"seed": seed, "seeds": 1})
        return self.model_copy(update={"base": base, "model": model})

    @property
    def variants(self) -> dict[str, Variant]:
        """All variants by name, in the order of tables."""
        return variants_of(self)

    def resolved(self) -> dict[str, Any]:
        """All settings as JSON-able data; rows that follow ``ppo`` have its settings too."""
        rows = {name: row.model_dump(mode="json") for name, row in self.baselines.items()}
        return {**self.model_dump(mode="json"), "baselines": rows}

    @property
    def optimizer_steps(self) -> dict[str, int]:
        """Optimiser steps of each variant, those of the model that it starts from included."""
        return {name: variant.optimizer_steps for name, variant in self.variants.items()}


def load_config(path: str | Path = "params.yaml") -> Config:
    """Read and check params.yaml.

    Raises:
        ConfigError: with every mistake and its path.
    """
    data = read_yaml(path)
    if not isinstance(data, Mapping):
        raise ConfigError(["the file must hold a mapping of sections"], str(path))
    return build(Config, data, source=str(path))
