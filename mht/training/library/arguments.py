"""The arguments of `HybridTrainer`, checked and loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mht.config import HybridConfig, LoRAConfig
from mht.core.component import build
from mht.core.errors import ConfigError, ModelError
from mht.core.model_files.checks import check_weights
from mht.core.model_files.folder import reading
from mht.generation.sampling.rollout import end_tokens
from mht.models.base import PolicyModel
from mht.models.hf.adapter import unwrapped
from mht.models.loading import load_causal_lm, load_tokenizer
from mht.models.precision import resolve_dtype
from mht.models.readers import policy_model
from mht.rewards import Reward, make_reward

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mht.data.examples.example import Example
    from mht.data.given.train_data import TrainData

RewardFn = Reward | Mapping[str, Any] | Callable[..., float]

SYNONYMS = {  # the arguments of HybridTrainer under the names of trl, transformers and others
    "base_model_name": "model model_name model_name_or_path pretrained_model_name_or_path model_id "
    "policy policy_model base_model name",
    "tokenizer": "processing_class processor tok",
    "train_data": "train_dataset dataset data examples training_data train_examples",
    "reward_fn": "reward rewards reward_funcs reward_func reward_function reward_model reward_spec",
    "optimizer_config": "optimizer optim optimizers optimizer_name",
    "scheduler_config": "scheduler lr_scheduler lr_scheduler_type",
    "lrate": "lr learning_rate learningrate",
    "batch_size": "per_device_train_batch_size train_batch_size batchsize bs",
    "config": "args settings ppo_config training_args",
    "num_layers_unfrozen": "unfrozen_layers num_unfrozen_layers",
    "lora": "peft_config lora_config",
    "context_window": "context context_length window",
    "seed": "random_seed random_state",
    "device": "device_map",
    "dtype": "torch_dtype precision",
}


def in_config(keyword: str) -> str:
    """A hint for a keyword that is a setting of `HybridConfig`; "" for any other keyword."""
    if keyword not in HybridConfig.model_fields:
        return ""
    return f": it is a setting, config=HybridConfig({keyword}=...)"


def as_model(given: Any, *, dtype: str, device: torch.device) -> PreTrainedModel:
    """The causal LM on its device, dropout off: loaded by name, or the one given.

    Raises:
        ModelError: it is no causal LM, can't be loaded, or is quantised.
    """
    if isinstance(given, str | Path):
        return load_causal_lm(given, dtype=resolve_dtype(dtype, device), device=device)
    given = unwrapped(given) if isinstance(given, torch.nn.Module) else given
    _check_causal(given)
    if getattr(given, "is_quantized", False):
        raise ModelError(
            "base_model_name: the model is quantised, and such weights do not train: load it "
            "without a quantization_config"
        )
    if any(p.is_meta for p in given.parameters()):
        raise ModelError(
            "base_model_name: the model has weights on the device 'meta': load it "
            "without device_map"
        )
    with reading("base_model_name: the model can't be trained"):
        check_weights(given)
    return given.to(device).eval()


def _check_causal(model: Any) -> None:
    from transformers import PreTrainedModel

    if isinstance(model, PolicyModel):
        return
    wanted = "base_model_name: needs a folder, a hub name or a loaded causal LM, got"
    if not isinstance(model, PreTrainedModel):
        is_module = isinstance(model, torch.nn.Module)
        raise ModelError(f"{wanted} {type(model).__name__ if is_module else model!r:.80}")
    if model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        raise ModelError(f"{wanted} a {type(model).__name__}")


def as_tokenizer(given: Any, model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The tokenizer given, or loaded by name; None loads the model's own.

    Raises:
        ModelError: it is no tokenizer, or can't be loaded.
    """
    if given is None or isinstance(given, str | Path):
        return load_tokenizer(model.name_or_path if given is None else given)
    if not hasattr(given, "eos_token_id") or not callable(given):
        raise ModelError(f"tokenizer: needs one, or a folder or hub name, got {given!r:.80}")
    return given


def data_reader(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, columns: Mapping[str, str] | None
) -> TrainData:
    """What makes examples of training data for a model.

    Raises:
        ConfigError: ``columns`` has something that is no role.
    """
    from mht.data.given.train_data import TrainData
    from mht.data.text.texts import Codec

    return TrainData(
        Codec(tokenizer, end_tokens(model, tokenizer)),
        pad_id=tokenizer.pad_token_id,
        vocabulary=policy_model(model).vocabulary,
        context=policy_model(model).context,
        columns=columns,
    )


def read_data(reader: TrainData, given: Any, *, is_main: bool) -> list[Example]:
    """The examples of training data, none for None; which columns were guessed is shown."""
    examples = [] if given is None else reader.read(given)
    if reader.guess and is_main:
        print(f"train_data: {reader.guess}", flush=True)
    return examples


def as_reward(reward: Any) -> Reward | Callable[..., float] | None:
    """A reward from its spec; a reward, a function or None is returned as it is.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(reward, Mapping):
        return make_reward(reward)
    if reward is None or callable(reward):
        return reward
    what = f"needs a reward, its spec as a dict, or a function, got {reward!r:.80}"
    raise ConfigError([f"reward_fn: {what}"])


def as_config(given: Any) -> HybridConfig:
    """The settings, given as such or as plain data; None takes the defaults without any step.

    Raises:
        ConfigError: they are none, or wrong.
    """
    if isinstance(given, HybridConfig):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError([f"config: needs a HybridConfig or a dict, got {type(given).__name__}"])
    none = {"cycles": 0, "sft_steps_per_cycle": 0, "ppo_steps_per_cycle": 0}
    return build(HybridConfig, none | dict(given or {}), path="config")


def as_lora(given: Any) -> LoRAConfig | None:
    """The settings of adapters, given as such or as plain data.

    Raises:
        ConfigError: they are none, or wrong.
    """
    if given is None or isinstance(given, LoRAConfig):
        return given
    if not isinstance(given, Mapping):
        what = f'needs a dict such as {{"r": 8, "alpha": 16}}, got {type(given).__name__}'
        raise ConfigError([f"model.lora: {what}"])
    return build(LoRAConfig, given, path="model.lora")


def check_numbers(**given: Any) -> None:
    """Arguments that should be whole numbers are.

    Raises:
        ConfigError: with each that is not.
    """
    wrong = {
        name: value
        for name, value in given.items()
        if not isinstance(value, int) or isinstance(value, bool)
    }
    if wrong:
        raise ConfigError(
            [
                f"{name}: should be a whole number, got {value!r:.60}"
                for name, value in wrong.items()
            ]
        )


def as_rate(given: Any) -> float:
    """A learning rate.

    Raises:
        ConfigError: it is no finite number, 0 or more.
    """
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or not math.isfinite(given) or given < 0:
        raise ConfigError([f"lrate: should be a finite number, 0 or more, got {given!r}"])
    return float(given)


def with_batch_size(config: HybridConfig, batch_size: int | None) -> HybridConfig:
    """The settings with another batch size of SFT and PPO steps; None leaves them as they are.

    Raises:
        ConfigError: it is no whole number, or does not fit.
    """
    if batch_size is None:
        return config
    check_numbers(batch_size=batch_size)
    if batch_size < 1:
        raise ConfigError([f"batch_size: should be at least 1, got {batch_size}"])
    if batch_size % config.responses_per_prompt:
        what = f"does not hold responses_per_prompt {config.responses_per_prompt} of each"
        raise ConfigError([f"batch_size: {batch_size} {what}: set a multiple of it"])
    minibatch = config.minibatch_size
    changed = {
        "batch_size": batch_size,
        "sft_batch_size": batch_size,
        "minibatch_size": minibatch if batch_size % minibatch == 0 else batch_size,
    }
    return config.model_copy(update=changed)
