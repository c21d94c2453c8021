"""The training loop: cycles of SFT steps and PPO steps on one set of weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from mht.algorithms.base import Learner, Trainee
from mht.algorithms.batch import Stats
from mht.algorithms.mixes.base import Moment
from mht.algorithms.ppo.step import PPO
from mht.algorithms.sft import SFT
from mht.config import HybridConfig, LoRAConfig, OptimizerConfig, SchedulerConfig
from mht.config.cycles import steps_of
from mht.core.keywords import explain_keywords
from mht.core.progress import track
from mht.devices.make import make_devices
from mht.generation.sampling.rollout import Responder
from mht.models.context import limit_context
from mht.models.embeddings import mean_embeddings
from mht.models.policy import Policy
from mht.models.recompute import recompute_layers
from mht.models.references import References
from mht.optim.masters import Masters
from mht.optim.optimizers import make_optimizer, make_scheduler
from mht.optim.updater import Updater
from mht.rewards import Reward
from mht.training.feed import Feed
from mht.training.figures import headline
from mht.training.library import arguments
from mht.training.library.arguments import SYNONYMS, RewardFn
from mht.training.library.single_steps import SingleSteps
from mht.training.practice import Practice
from mht.training.resume.parts import Attributes, RandomNumbers, Weights, updater_parts
from mht.training.resume.state import Stateful
from mht.training.schedule import as_plan, schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mht.training.resume.checkpoint import Checkpoints

Log = Callable[[Stats, int], None]


class HybridTrainer(SingleSteps):
    """Trains one policy by SFT and PPO in turn.

    Started by `accelerate launch`, every process makes the same calls with the same, whole batches
    and computes its own rows. Sizes are of the whole run.

    Args:
        base_model_name: a folder, a hub name, or a loaded causal LM.
        tokenizer: None loads the model's own. Its PAD must differ from its EOS.
        train_data: rows to walk through in `train`: a `datasets.Dataset`, a pandas DataFrame, a
            list of dicts or of prepared examples. Their columns hold ``input_ids`` and ``labels``,
            or texts or ``messages`` under the field's usual names.
        reward_fn: a reward, its spec as plain data, or a function
            ``(response, target, prompt=..., item=...) -> float``.
        optimizer_config: such as ``{"OPTIMIZER": "adamw"}``; None takes ``config``'s.
        scheduler_config: such as ``{"SCHEDULER": "linear", "NUM_TRAINING_STEPS": 20000,
            "NUM_WARMUP_STEPS": 1000}``; None takes ``config``'s.
        lrate: None takes ``config.lr``.
        batch_size: prompts per PPO step and examples per SFT step; None takes ``config``'s.
        config: the schedule and PPO's settings; None takes the defaults without any step.
        num_layers_unfrozen: how many of the top layers train, or "all".
        lora: adapters that train in place of those layers, such as ``{"r": 8, "alpha": 16}``.
        context_window: the number of preceding tokens from which each token is predicted; None
            leaves the model as it is.
        seed: of data order, sampling and minibatches.
        device: "auto", "cpu", "cuda"...
        dtype: what the model computes in, where it is loaded here: "float32", "bfloat16",
            "float16" (on a GPU) or "auto". A loaded model keeps its own. In 16 bits what trains
            has float32 master weights.
        gradient_checkpointing: compute activations again for the gradients instead of keeping
            them: less memory, more time.

    Attributes:
        policy: the model, its value head and its reference.
        devices: this process among those that train; ``devices.is_main`` in one of them.
        step: SFT and PPO steps made so far.

    Raises:
        UserError: the model, the tokenizer or a setting is wrong.
    """

    @explain_keywords("HybridTrainer", arguments.in_config, **SYNONYMS)
    def __init__(
        self,
        base_model_name: str | Path | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
        train_data: Any = None,
        reward_fn: RewardFn | None = None,
        optimizer_config: OptimizerConfig | Mapping[str, Any] | None = None,
        scheduler_config: SchedulerConfig | Mapping[str, Any] | None = None,
        lrate: float | None = None,
        batch_size: int | None = None,
        *,
        config: HybridConfig | Mapping[str, Any] | None = None,
        num_layers_unfrozen: int | Literal["all"] = "all",
        lora: LoRAConfig | Mapping[str, Any] | None = None,
        context_window: int | None = None,
        seed: int = 0,
        device: str = "auto",
        dtype: str = "float32",
        gradient_checkpointing: bool = False,
        columns: Mapping[str, str] | None = None,
    ):
        layers = 0 if num_layers_unfrozen == "all" else num_layers_unfrozen
        arguments.check_numbers(
            seed=seed, num_layers_unfrozen=layers, context_window=context_window or 0
        )
        config = arguments.as_config(config)
        self.config = arguments.with_batch_size(config, batch_size)
        self.lr = config.lr if lrate is None else arguments.as_rate(lrate)
        self.devices = make_devices(device)
        self.devices.check(self.config.split_sizes)
        torch.manual_seed(seed)
        model = arguments.as_model(base_model_name, dtype=dtype, device=self.devices.device)
        if context_window is not None:
            limit_context(model, context_window)
        self.tokenizer = arguments.as_tokenizer(tokenizer, model)
        self.devices.start_alike(model)
        self.reader = arguments.data_reader(model, self.tokenizer, columns)
        examples = arguments.read_data(self.reader, train_data, is_main=self.devices.is_main)
        prompts = [example.prompt_ids for example in examples]
        places = mean_embeddings(model, prompts) if self.config.memory.groups_prompts else None
        self.policy = Policy(
            model,
            num_layers_unfrozen,
            lora=arguments.as_lora(lora),
            value_head=config.value_head,
            heads=config.heads,
        )
        if isinstance(base_model_name, str | Path):
            self.policy.load_heads(base_model_name)
        self.devices.spread(self.policy, self.config)
        self.masters = Masters(self.policy.parameters())
        if isinstance(base_model_name, str | Path):
            self.masters.read(model, base_model_name)
        if gradient_checkpointing:
            recompute_layers(model)
        self.responder = Responder(model, self.tokenizer, config.decoding, self.policy.trunk)
        self.reward = arguments.as_reward(reward_fn if reward_fn is not None else config.reward)
        self.generator = torch.Generator(device=model.device).manual_seed(seed)
        self.updater = self._make_updater(optimizer_config, scheduler_config)
        references = (
            References(config.references, self.policy, self.tokenizer)
            if config.references
            else None
        )
        self.trainee = Trainee(self.policy, self.updater, self.config, seed, references)
        self.learners: dict[str, Learner] = {}
        for name in ("sft", "ppo", *steps_of(config.plan)):
            self.learner(name)
        self.sft = cast(SFT, self.learners["sft"])
        self.ppo = cast(PPO, self.learners["ppo"])
        self.practice = Practice(
            examples,
            self.config,
            seed,
            self.tokenizer,
            self.reward if isinstance(self.reward, Reward) else None,
            places,
        )
        if examples and references is not None:
            references.check([example.item for example in examples])
        self.feed = Feed(
            self.practice, self.responder, self.devices, self.generator, self.reward, config.mix
        )
        self.step = 0

    def learner(self, name: str) -> Learner:
        """The learner that makes the steps of an algorithm; the same at every call.

        Raises:
            ConfigError: there is no such algorithm.
        """
        if name not in self.learners:
            self.learners[name] = self.config.algorithm(name).learner(self.trainee)
        return self.learners[name]

    def _make_updater(self, optimizer_config: Any, scheduler_config: Any) -> Updater:
        optimizer = make_optimizer(self.masters, optimizer_config or self.config.optimizer, self.lr)
        clip = self.config.max_grad_norm
        optimizer = self.devices.share(optimizer, self.policy, clip)
        steps = self.config.optimizer_steps or (None if scheduler_config else 0)
        scheduler = make_scheduler(optimizer, scheduler_config or self.config.scheduler, steps)
        scaler = (
            torch.amp.GradScaler(self.policy.device.type) if self.masters.needs_loss_scale else None
        )
        return Updater(self.masters, optimizer, scheduler, clip, scaler, self.devices)

    # -- the loop ---------------------------------------------------------------------------

    @explain_keywords(
        "HybridTrainer.train",
        plan="steps cycles schedule epochs",
        log="callback callbacks logger on_step",
        checkpoints="resume resume_from_checkpoint checkpoint",
    )
    def train(
        self,
        plan: Sequence[Any] | None = None,
        log: Log | None = None,
        after_cycle: Callable[[int], Stats] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Run the cycles.

        Args:
            plan: for each cycle its SFT and PPO steps, ``(6, 1)``, or its phases, ``[{"sft": 6},
                {"ppo": 1}]``; None takes the config's.
            log: called with the figures of every step, and its number from 1 on; with several
                processes in each, with the figures of the whole batch.
            after_cycle: called with the number of each cycle that has ended, from 1 on, and with 0
                before the first; what it returns is logged too.
            checkpoints: written on the way; a killed run resumes from the last one.
        """
        plan = self.config.plan if plan is None else as_plan(plan)
        counts = steps_of(plan)
        for name in counts:
            self.learner(name)
        parts, total = schedule(plan), sum(counts.values())
        done = checkpoints.resume(self) if checkpoints else 0
        if done and self.devices.is_main:
            print(f"resumed after step {self.step}", flush=True)
        with track(range(total), "training") as bar:
            bar.advance(sum(part.is_step for part in parts[:done]))
            for number, part in enumerate(parts[done:], done + 1):
                stats: Stats = {}
                if part.phase is not None:
                    stats = self.next_step(part.phase, of=total)
                elif after_cycle:
                    stats = after_cycle(part.cycle)
                bar.advance(part.is_step)
                bar.figures(**headline(stats))
                if stats and log:
                    log(stats, self.step)
                if checkpoints:
                    checkpoints.offer(self, number)

    @property
    def states(self) -> dict[str, Stateful]:
        """Everything that changes in training, by name: the content of a checkpoint."""
        policy, masters = self.policy, self.masters
        parts: dict[str, Stateful] = {
            "model": Weights("model", policy.model, masters),
            **{f"{n}_head": Weights(f"{n}_head", h, masters) for n, h in policy.heads.items()},
            **updater_parts(self.updater),
            "random": RandomNumbers(self.devices, responses=self.generator),
            "practice": self.practice,
            "mix": self.config.mix,
            "trainer": Attributes(self, "step"),
            **{f"algorithms.{name}": learner for name, learner in self.learners.items()},
        }
        return parts | ({"reward": self.reward} if isinstance(self.reward, Reward) else {})

    def next_step(self, phase: str, *, of: int | None = None) -> Stats:
        """One step of an algorithm on the next of the training data; its figures.

        Args:
            phase: the algorithm's name.
            of: steps of the whole run, for the mix; None takes the settings'.
        """
        began = time.perf_counter()
        steps = sum(steps_of(self.config.plan).values()) if of is None else of
        moment, needs = Moment(phase, self.step, steps), self.config.needs(phase)
        with self.feed.given(needs, moment) as (batch, given):
            outcome = self.learner(phase).step(batch)
        stats = outcome.stats | self.feed.remember(given, outcome, moment)
        seconds = time.perf_counter() - began
        stats |= {"time/step_s": seconds, "time/tokens_per_s": given.tokens / seconds}
        self.step += 1
        return {f"{phase}/{name}": value for name, value in stats.items()}

    def save(self, folder: str | Path) -> None:
        """Write policy, tokenizer and value head in the Hugging Face layout, and the memory.

        What trains is written in float32, frozen weights in the bits that they compute in. With
        several processes all call this, and the main one writes.
        """
        weights = self.devices.weights(self.policy) or self.masters.weights(self.policy)
        self.devices.on_main(lambda: self.policy.save(folder, self.tokenizer, weights))
        self.devices.on_main(lambda: self.practice.save(folder))
