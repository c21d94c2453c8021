"""The alternating loop: cycles of SFT steps and PPO steps on one set of weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from mht.algorithms.ppo.step import PPO, Stats
from mht.algorithms.sft import SFT
from mht.config import HybridConfig, LoRAConfig, OptimizerConfig, SchedulerConfig
from mht.core.errors import UserError
from mht.core.keywords import explain_keywords
from mht.core.progress import track
from mht.core.records import Scored
from mht.data.examples.example import collate_prompts, collate_sft
from mht.data.text.sample import Sample
from mht.devices.make import make_devices
from mht.generation.sampling.rollout import Responder
from mht.models.context import limit_context
from mht.models.embeddings import mean_embeddings
from mht.models.policy import Policy
from mht.models.recompute import recompute_layers
from mht.models.references import References
from mht.optim.masters import Masters
from mht.optim.optimizers import Updater, make_optimizer, make_scheduler
from mht.rewards import Reward
from mht.training.background import background
from mht.training.figures import headline, text_stats
from mht.training.library import arguments
from mht.training.library.arguments import SYNONYMS, RewardFn
from mht.training.library.single_steps import SingleSteps
from mht.training.parts import Attributes, RandomNumbers, Weights, updater_parts
from mht.training.practice import Practice
from mht.training.schedule import Phase, Plan, schedule
from mht.training.state import Stateful

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mht.training.checkpoint import Checkpoints

Log = Callable[[Stats, int], None]


class HybridTrainer(SingleSteps):
    """Trains one policy by SFT and PPO in turn.

    Started by `accelerate launch`, every process makes the same calls with the same, whole batches
    and computes its rows of them; sizes are of the whole run.

    Args:
        base_model_name: a folder, a hub name, or a loaded causal LM.
        tokenizer: None loads the model's own. Its PAD must differ from its EOS.
        train_data: rows to walk through in `train`: a `datasets.Dataset`, a pandas DataFrame, a
            list of dicts or of prepared examples; their columns hold ``input_ids`` and ``labels``,
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
        context_window: each token is predicted from the last so many alone; None leaves the model
            as it is.
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
            model, num_layers_unfrozen, lora=arguments.as_lora(lora), value_head=config.value_head
        )
        if isinstance(base_model_name, str | Path):
            self.policy.load_value_head(base_model_name)
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
        minibatches = torch.Generator().manual_seed(seed + 1)
        self.sft = SFT(model, self.updater, self.config)
        references = (
            References(config.references, self.policy, self.tokenizer)
            if config.references
            else None
        )
        self.ppo = PPO(self.policy, self.updater, self.config, minibatches, references)
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
        self.step = 0

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
        plan: Plan | None = None,
        log: Log | None = None,
        after_cycle: Callable[[int], Stats] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Run the cycles.

        Args:
            plan: SFT and PPO steps of each cycle; None takes the config's.
            log: called with the figures of every step, and its number from 1 on; with several
                processes in each, with the figures of the whole batch.
            after_cycle: called with the number of each cycle that has ended, from 1 on, and with 0
                before the first; what it returns is logged too.
            checkpoints: written on the way; a run that was killed goes on from the last one.
        """
        plan = self.config.plan if plan is None else plan
        log = log or (lambda stats, step: None)
        parts = schedule(plan)
        done = checkpoints.resume(self) if checkpoints else 0
        if done and self.devices.is_main:
            print(f"resumed after step {self.step}", flush=True)
        with track(range(sum(map(sum, plan))), "training") as bar:
            bar.advance(sum(part != "end" for part, _ in parts[:done]))
            for part, cycle in parts[done:]:
                if part == "end":
                    stats = after_cycle(cycle) if after_cycle else {}
                else:
                    stats = self.next_step(part)
                    bar.advance()
                bar.figures(**headline(stats))
                if stats:
                    log(stats, self.step)
                done += 1
                if checkpoints:
                    checkpoints.offer(self, done)

    @property
    def states(self) -> dict[str, Stateful]:
        """All that changes while it trains, by name: what a checkpoint holds."""
        policy, masters = self.policy, self.masters
        parts: dict[str, Stateful] = {
            "model": Weights("model", policy.model, masters),
            "value_head": Weights("value_head", policy.value_head, masters),
            **updater_parts(self.updater),
            "ppo": self.ppo,
            "random": RandomNumbers(
                self.devices, responses=self.generator, minibatches=self.ppo.generator
            ),
            "practice": self.practice,
            "trainer": Attributes(self, "step"),
        }
        parts |= {"critic": self.ppo.critic} if self.ppo.critic is not None else {}
        return parts | ({"reward": self.reward} if isinstance(self.reward, Reward) else {})

    def next_step(self, phase: Phase) -> Stats:
        """One SFT or PPO step on the next of the training data; its figures."""
        stats = self._next_sft_step() if phase == "sft" else self._next_ppo_step()
        self.step += 1
        return stats

    def _next_sft_step(self) -> Stats:
        began = time.perf_counter()
        own = self.practice.own_responses()
        rows = self.practice.sft_rows(len(own))
        examples = [*self.practice.as_examples(own), *self.practice.examples(rows)]
        batch = collate_sft(examples, self.responder.pad_id)
        each: list[float] | None = [] if self.practice.memory else None
        loss = self.sft.step(batch, each)
        figures = self.practice.rehearsed(rows, (each or [])[len(own) :], self.step, own)
        seconds = time.perf_counter() - began
        tokens = float(batch["attention_mask"].sum())
        return {
            "sft/loss": loss,
            "sft/optim/lr": self.sft.lr,
            **{f"sft/{name}": v for name, v in (self.updater.figures() | figures).items()},
            "sft/time/step_s": seconds,
            "sft/time/tokens_per_s": tokens / seconds,
        }

    def _next_ppo_step(self) -> Stats:
        began = time.perf_counter()
        rows = self.practice.ppo_rows()
        examples = self.practice.examples(rows)
        prompts = collate_prompts(examples, self.responder.pad_id)
        rollout = self.devices.draw(self.responder, *prompts, self.generator)
        sampled = time.perf_counter()
        samples = self.responder.samples(rollout, examples)
        past = self.practice.past(self.responder.pad_id, self.policy.device)
        items = [example.item for example in examples]
        with self._scoring(samples) as result:
            stats = self.ppo.step(rollout, lambda: result()[0].score, items, past)
        scored, scoring_s = result()
        stats |= text_stats(samples, scored)
        surprises = self.ppo.surprises
        stats |= self.practice.tried(rows, rollout, samples, scored.score, surprises)
        stats |= {
            "time/sample_s": sampled - began,
            "time/reward_s": scoring_s,  # on a GPU beside the assessment, which waits for it
            "time/step_s": time.perf_counter() - began,
            "time/tokens_per_s": float(rollout.lengths.sum()) / (time.perf_counter() - began),
        }
        return {f"ppo/{name}": value for name, value in stats.items()}

    @contextmanager
    def _scoring(self, samples: list[Sample]) -> Iterator[Callable[[], tuple[Scored, float]]]:
        """The main process's scoring, beside a GPU's passes that need no score; its seconds."""
        devices = self.devices
        with background(
            lambda: self._scored(samples) if devices.is_main else Scored([]), devices.device
        ) as result:
            yield cache(lambda: devices.on_main(result))

    def _scored(self, samples: list[Sample]) -> Scored:
        if self.reward is None:
            raise UserError("PPO steps need a reward: give HybridTrainer a reward_fn")
        if isinstance(self.reward, Reward):
            return self.reward.evaluate(samples)
        score = self.reward
        return Scored(
            [float(score(s.response, s.target, prompt=s.prompt, item=s.item)) for s in samples]
        )

    def save(self, folder: str | Path) -> None:
        """Write policy, tokenizer and value head in the Hugging Face layout, and the memory.

        What trains is written in float32, frozen weights in the bits that they compute in. With
        several processes all call this, and the main one writes.
        """
        weights = self.devices.weights(self.policy) or self.masters.weights(self.policy)
        self.devices.on_main(lambda: self.policy.save(folder, self.tokenizer, weights))
        self.devices.on_main(lambda: self.practice.save(folder))
