"""The sections about the optimiser and its learning rate: which there are, and what each takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mht.config.choice import Choice
from mht.core.bounds import Decay, NonNegative, Positive, Rate, Share, Weight
from mht.core.component import refuse

Betas = Annotated[list[Decay], Field(min_length=2, max_length=2)]
Pair = Annotated[list[Rate], Field(min_length=2, max_length=2)]
Ramp = Literal["linear", "cosine", "1-sqrt"]

DECAY: dict[str, Any] = {"weight_decay": 0.0, "decay_norms_and_biases": True}
ADAM = {**DECAY, "betas": [0.9, 0.95], "eps": 1e-8}
LION = {**DECAY, "betas": [0.9, 0.99]}
WIDE = {**DECAY, "betas": [0.9, 0.999], "eps": 1e-8}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {**ADAM, "amsgrad": False},
    "adamw_8bit": ADAM,
    "paged_adamw_8bit": ADAM,
    "paged_adamw_32bit": ADAM,
    "adam": {**ADAM, "amsgrad": False},
    "lion": LION,
    "lion_8bit": LION,
    "paged_lion_8bit": LION,
    "adafactor": {**DECAY, "beta2_decay": -0.8, "d": 1.0},
    "sgd": {**DECAY, "momentum": 0.0, "dampening": 0.0, "nesterov": False},
    "rmsprop": {**DECAY, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False},
    "nadam": {**WIDE, "momentum_decay": 4e-3, "decoupled_weight_decay": False},
    "radam": {**WIDE, "decoupled_weight_decay": False},
    "adamax": WIDE,
    "adagrad": {**DECAY, "eps": 1e-10, "lr_decay": 0.0, "initial_accumulator_value": 0.0},
    "adadelta": {**DECAY, "rho": 0.9, "eps": 1e-6},
    "asgd": {**DECAY, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6},
    "rprop": {"etas": [0.5, 1.2], "step_sizes": [1e-6, 50.0]},
}
CLASSES = {  # the names of their classes, in torch.optim or in a package of PACKAGES
    "adamw": "AdamW",
    "adamw_8bit": "AdamW8bit",
    "paged_adamw_8bit": "PagedAdamW8bit",
    "paged_adamw_32bit": "PagedAdamW32bit",
    "adam": "Adam",
    "lion": "Lion",
    "lion_8bit": "Lion8bit",
    "paged_lion_8bit": "PagedLion8bit",
    "adafactor": "Adafactor",
    "sgd": "SGD",
    "rmsprop": "RMSprop",
    "nadam": "NAdam",
    "radam": "RAdam",
    "adamax": "Adamax",
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "asgd": "ASGD",
    "rprop": "Rprop",
}
BITS = [kind for kind in OPTIMIZERS if kind.endswith("bit")]
PACKAGES = {  # not in torch: the module, and what to `pip install`
    "lion": ("lion_pytorch", "lion-pytorch"),
    **dict.fromkeys(BITS, ("bitsandbytes.optim", "bitsandbytes")),
}


class OptimizerConfig(Choice):
    """The optimiser, by name, with its options: [the table](../howto/training.md#optimisers).

    Attributes:
        type: which one.
        weight_decay: decoupled where the optimiser has it so.
        decay_norms_and_biases: false spares parameters with fewer than two dimensions the decay.
        betas: of the moving averages of the gradient and of its square.
        eps: added to the denominator.
        amsgrad: divide by the largest second moment so far.
        momentum: of the step.
        dampening: of the gradient in the momentum.
        nesterov: look ahead by the momentum.
        alpha: decay of rmsprop's moving average; the power of asgd's falling rate.
        centered: divide by the standard deviation instead of the root mean square.
        rho: decay of adadelta's moving averages.
        beta2_decay: power of adafactor's second-moment decay.
        d: adafactor clips an update whose root mean square is larger.
        momentum_decay: of nadam's momentum.
        decoupled_weight_decay: as adamw has it.
        lr_decay: adagrad's rate falls as ``1 / (1 + lr_decay * step)``.
        initial_accumulator_value: adagrad's sum of squares begins here.
        lambd: decay of asgd's rate.
        t0: the step from which asgd averages.
        etas: rprop's factors, down and up.
        step_sizes: rprop's smallest and largest step.
    """

    choices: ClassVar[Mapping[str, Mapping[str, Any]]] = OPTIMIZERS

    type: Literal[
        "adamw",
        "adamw_8bit",
        "paged_adamw_8bit",
        "paged_adamw_32bit",
        "adam",
        "lion",
        "lion_8bit",
        "paged_lion_8bit",
        "adafactor",
        "sgd",
        "rmsprop",
        "nadam",
        "radam",
        "adamax",
        "adagrad",
        "adadelta",
        "asgd",
        "rprop",
    ] = "adamw"
    weight_decay: Weight | None = None
    decay_norms_and_biases: bool | None = None
    betas: Betas | None = None
    eps: Rate | None = None
    amsgrad: bool | None = None
    momentum: Share | None = None
    dampening: Share | None = None
    nesterov: bool | None = None
    alpha: Share | None = None
    centered: bool | None = None
    rho: Share | None = None
    beta2_decay: Annotated[float, Field(le=0)] | None = None
    d: Rate | None = None
    momentum_decay: Weight | None = None
    decoupled_weight_decay: bool | None = None
    lr_decay: Weight | None = None
    initial_accumulator_value: Weight | None = None
    lambd: Weight | None = None
    t0: Weight | None = None
    etas: Pair | None = None
    step_sizes: Pair | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> OptimizerConfig:
        if self.nesterov and (not self.momentum or self.dampening):
            refuse([("nesterov", "needs a momentum above 0 and no dampening")])
        low, high = self.etas or (0.5, 1.2)
        if not low < 1 < high:
            refuse([("etas", f"should be below 1 and above 1, got {self.etas}")])
        low, high = self.step_sizes or (0.0, 1.0)
        if low > high:
            refuse([("step_sizes", f"the smallest is above the largest, got {self.step_sizes}")])
        return self


WARM: dict[str, Any] = {"warmup_steps": None, "warmup_ratio": None}
FLOOR: dict[str, Any] = {"min_lr": None, "min_lr_rate": None}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "constant": {},
    "constant_with_warmup": WARM,
    "linear": WARM,
    "cosine": {**WARM, "num_cycles": 0.5},
    "cosine_with_restarts": {**WARM, "num_cycles": 1},
    "cosine_with_min_lr": {**WARM, "num_cycles": 0.5, **FLOOR},
    "cosine_warmup_with_min_lr": {**WARM, "num_cycles": 0.5, **FLOOR, "warmup_lr_rate": None},
    "polynomial": {**WARM, "lr_end": 1e-7, "power": 1.0},
    "inverse_sqrt": {**WARM, "timescale": None},
    "warmup_stable_decay": {
        **WARM,
        "decay_steps": None,
        "decay_ratio": None,
        "warmup_type": "linear",
        "decay_type": "cosine",
        "num_cycles": 0.5,
        "min_lr_rate": 0.0,
    },
}
ENDLESS = ("constant", "constant_with_warmup", "inverse_sqrt")  # need no number of steps


class SchedulerConfig(Choice):
    """The learning rate over the optimiser steps: [the table](../howto/training.md#schedules).

    Attributes:
        type: which one.
        warmup_steps: optimiser steps from 0 to the full rate; null is 0.
        warmup_ratio: the same as a share of all steps, rounded up.
        num_cycles: waves of the cosine, 0.5 is half a wave down to 0; how often
            cosine_with_restarts starts from the full rate.
        min_lr: the cosine ends here instead of at 0.
        min_lr_rate: the same as a share of the full rate.
        warmup_lr_rate: the warm-up begins at this share of the full rate; null at its first step's.
        lr_end: the polynomial ends here.
        power: of the polynomial; 1 is a straight line.
        timescale: steps after the warm-up until the inverse square root is at 0.71 of the full
            rate. By default it is the warm-up's number, or 10,000 without a warm-up.
        decay_steps: the last steps, over which the rate falls.
        decay_ratio: the same as a share of all steps, rounded up; null is 0.1.
        warmup_type: the way up.
        decay_type: the way down.
    """

    choices: ClassVar[Mapping[str, Mapping[str, Any]]] = SCHEDULERS

    type: Literal[
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "polynomial",
        "inverse_sqrt",
        "warmup_stable_decay",
    ] = "constant"
    warmup_steps: NonNegative | None = None
    warmup_ratio: Share | None = None
    num_cycles: Rate | None = None
    min_lr: Weight | None = None
    min_lr_rate: Share | None = None
    warmup_lr_rate: Share | None = None
    lr_end: Weight | None = None
    power: Rate | None = None
    timescale: Positive | None = None
    decay_steps: Positive | None = None
    decay_ratio: Share | None = None
    warmup_type: Ramp | None = None
    decay_type: Ramp | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> SchedulerConfig:
        two_ways = [("warmup_steps", "warmup_ratio"), ("decay_steps", "decay_ratio"), tuple(FLOOR)]
        refuse(
            (second, f"has the same meaning as {first}: set one of them to null")
            for first, second in two_ways
            if getattr(self, first) is not None and getattr(self, second) is not None
        )
        if self.type.endswith("min_lr") and self.min_lr is None and self.min_lr_rate is None:
            refuse([("min_lr", f"{self.type} needs it, or min_lr_rate")])
        if self.type == "cosine_with_restarts" and (self.num_cycles or 1) % 1:
            refuse([("num_cycles", f"should be a whole number, got {self.num_cycles}")])
        return self

    def warmup(self, steps: int) -> int:
        """Warm-up steps of a run of ``steps`` optimiser steps."""
        return self.warmup_steps or _share(self.warmup_ratio or 0.0, steps)

    def decay(self, steps: int) -> int:
        """Decay steps of warmup_stable_decay in a run of ``steps`` optimiser steps."""
        ratio = 0.1 if self.decay_ratio is None else self.decay_ratio
        return self.decay_steps or _share(ratio, steps)

    def misfits(self, lr: float, steps: int) -> list[tuple[str, str]]:
        """What does not fit the full rate and the number of optimiser steps: key and sentence.

        With 0 steps, nothing is scheduled and no number of steps is wrong.
        """
        found = []
        warmup, decay = self.warmup(steps), self.decay(steps)
        room = f"more than all {steps} optimiser steps: lower it"
        if 0 < steps < warmup:
            found.append(("warmup_steps", f"{warmup} are {room}"))
        elif self.type == "warmup_stable_decay" and 0 < steps < warmup + decay:
            key = "decay_ratio" if self.decay_steps is None else "decay_steps"
            found.append((key, f"{decay} steps and the warm-up's {warmup} are {room}"))
        ends = self.options
        for key in ("lr_end", "min_lr"):
            if ends.get(key) is not None and ends[key] >= lr:
                found.append((key, f"should be below the learning rate {lr:g}, got {ends[key]:g}"))
        return found


def _share(ratio: float, steps: int) -> int:
    """Rounded up, but not for the last bit: 0.1 of 30 is 3."""
    return math.ceil(round(ratio * steps, 6))
