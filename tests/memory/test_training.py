"""The memory in the trainer: what it is told and chooses, exact resume, and what is refused."""

import json

import numpy as np
import pytest
import torch

from mht.algorithms.sft import batch_loss
from mht.checks.watched import check_watched, files_of_training
from mht.config import HybridConfig
from mht.config.memory import MemoryConfig
from mht.core.component import build
from mht.core.errors import ConfigError
from mht.data.examples.example import collate_sft
from mht.models.loading import load_causal_lm
from mht.training.hybrid import HybridTrainer
from mht.training.practice import section_named
from mht.training.start_memory import StartError
from tests.support.jobs import Job, ends_the_same
from tests.support.training import TokenShare, examples, hybrid_config

ADAPTIVE = MemoryConfig(type="adaptive", capacity=20)


def trainer_of(tiny_model_dir, tiny_tokenizer, data=11, **changes):
    config = hybrid_config(**{"memory": ADAPTIVE, **changes})
    return HybridTrainer(
        tiny_model_dir(),
        tiny_tokenizer,
        examples(tiny_tokenizer, data) if data else None,
        config=config,
        num_layers_unfrozen=1,
        seed=3,
        device="cpu",
    )


@pytest.fixture
def trainer(tiny_model_dir, tiny_tokenizer):
    return lambda data=11, **changes: trainer_of(tiny_model_dir, tiny_tokenizer, data, **changes)


# -- what it is told --------------------------------------------------------------------------


def test_a_ppo_step_is_remembered_as_it_was_sampled(trainer):
    each = trainer()
    drawn = []
    draw = each.devices.draw
    each.devices.draw = lambda *args: drawn.append(draw(*args)) or drawn[-1]
    stats = each.next_step("ppo")
    memory, rollout = each.practice.memory, drawn[0]
    attempts = memory.attempts(memory.store.used)
    data = examples(each.tokenizer, 11)
    assert len(attempts) == 8
    for i, attempt in enumerate(attempts):
        keep = rollout.response_mask[i]
        assert attempt.response_ids == rollout.response_ids[i][keep].tolist()
        assert attempt.logprobs == rollout.logprobs[i][keep].tolist()
        assert attempt.prompt_ids == data[attempt.row].prompt_ids
        assert rollout.prompt_ids[i][rollout.prompt_mask[i]].tolist() == attempt.prompt_ids
        assert attempt.score == attempt.response.count("a") / max(len(attempt.response), 1)
        assert attempt.ended == bool(rollout.ended[i])
        assert attempt.step == 0
    assert stats["ppo/memory/responses"] == 8


def test_surprise_is_the_mean_absolute_advantage(trainer):
    each = trainer()
    seen = []
    assess = each.ppo.assess
    each.ppo.assess = lambda *args: seen.append(assess(*args)) or seen[-1]
    each.next_step("ppo")
    memory, experience = each.practice.memory, seen[0][0]
    surprises = [attempt.loss for attempt in memory.attempts(memory.store.used)]
    mask = experience.rollout.response_mask
    assert len(surprises) == len(mask) == 8
    for surprise, advantages, keep in zip(
        surprises, experience.returns - experience.old_values, mask, strict=True
    ):
        assert surprise == pytest.approx(advantages[keep].abs().mean().item())


@pytest.mark.parametrize("size", [None, 1, 3])
def test_the_prompts_of_an_sft_step_have_the_mean_loss_of_their_rows(
    trainer, tiny_model_dir, tiny_tokenizer, size
):
    each = trainer(microbatch_size=size)
    rows = each.practice.take_sft_rows()
    each.practice.positions = [0, 0]
    each.next_step("sft")
    model, pad = load_causal_lm(tiny_model_dir()), each.responder.pad_id
    record = each.practice.memory.records["sft_loss"]
    prompts = each.practice.memory.rows.numbers[rows]
    with torch.no_grad():
        alone = np.array(
            [batch_loss(model, collate_sft([e], pad)).item() for e in each.practice.examples(rows)]
        )
    assert len(set(prompts.tolist())) < len(rows), "some rows share a prompt"
    for prompt in set(prompts.tolist()):
        assert record[prompt] == pytest.approx(alone[prompts == prompt].mean(), abs=1e-4)
    assert np.isnan(np.delete(record, prompts)).all()


def test_the_loss_is_the_same_with_and_without_rows(trainer):
    """To the bit, and so are the weights after the step."""
    ends = []
    for memory in (MemoryConfig(), ADAPTIVE):
        each = trainer(memory=memory, microbatch_size=2)
        stats = each.next_step("sft")
        weights = torch.cat([p.detach().flatten() for p in each.policy.model.parameters()])
        ends.append((stats["sft/loss"], weights.numpy().tobytes()))
    assert ends[0] == ends[1]


# -- what it chooses --------------------------------------------------------------------------


def test_shares_of_the_batches_come_from_memory_and_the_rest_in_the_datas_order(trainer):
    each = trainer(memory=MemoryConfig(type="adaptive", prompts=0.25, rehearsal=0.5))
    plain = trainer(memory=MemoryConfig())
    first = each.practice.take_ppo_rows()
    assert first == plain.practice.take_ppo_rows(), "it knows nothing yet"
    each.practice.positions = [0, 0]
    each.next_step("ppo")
    memory = each.practice.memory
    memory.choose = lambda n, generator: [5, 9][:n]
    rows = each.practice.take_ppo_rows()
    assert rows[:2] == [5, 9]
    assert rows[2:] == plain.practice.take_ppo_rows()[:6]
    assert each.practice.positions == [0, 14]
    assert each.practice.take_sft_rows()[:2] == [5, 9]


def test_without_a_memory_nothing_is_kept_drawn_or_written(trainer, tmp_path):
    each = trainer(memory=MemoryConfig())
    before = json.dumps(each.practice.generator.bit_generator.state)
    each.train([(1, 2)])
    assert each.practice.memory is None
    assert json.dumps(each.practice.generator.bit_generator.state) == before
    each.save(tmp_path)
    assert not (tmp_path / "memory.parquet").exists()


# -- exact resume -----------------------------------------------------------------------------


class Remembering(Job):
    """A run with a memory; what it remembers is part of its outcome."""

    def run(self, *, kill_at=None):
        ended = super().run(kill_at=kill_at)
        if ended is None:
            return None
        self.last.practice.save(self.folder.parent)
        return ended, (self.folder.parent / "memory.parquet").read_bytes()


MEMORIES = {
    "full": ADAPTIVE,
    "spaced": MemoryConfig(type="adaptive", prompts=1.0, rehearsal=0.75),
}


@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
def test_a_killed_run_remembers_and_ends_the_same(tmp_path, tiny_model_dir, tiny_tokenizer, memory):
    def job(name):
        return Remembering(tmp_path / name, tiny_model_dir(), tiny_tokenizer, memory=memory)

    ends_the_same(job, 2, 4, 6)


# -- a memory to begin with -------------------------------------------------------------------


def beginning(path, **changes):
    return MemoryConfig(type="adaptive", capacity=20, start=str(path), **changes)


def test_a_run_begins_with_the_file_of_another(trainer, tmp_path):
    first = trainer()
    first.train([(1, 2)])
    first.save(tmp_path)
    second = trainer(memory=beginning(tmp_path / "memory.parquet", prompts=0.125))
    known = second.practice.memory.known.tolist()
    assert known == first.practice.memory.known.tolist()
    assert second.practice.memory.rows.numbers[second.practice.take_ppo_rows()[0]] in known


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temperature": 0.5}, "temperature was 1.0 and is 0.5"),
        ({"reward": TokenShare(letter="e")}, 'reward.letter was "a" and is "e"'),
        ({"adaptive": {"boxes": 3}}, "memory.adaptive.boxes was 5 and is 3"),
        ({"difficulty": {"easy": 0.2}}, "memory.difficulty.easy was 0.33 and is 0.2"),
        ({"data": 9}, "it remembers other training data (11 rows, here 9)"),
        ({"file": "none"}, "no such file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_path_of_the_setting(
    trainer, tmp_path, changes, said
):
    first = trainer()
    first.train([(1, 1)])
    first.save(tmp_path)
    own = {k: v for k, v in changes.items() if k in ("adaptive", "difficulty")}
    other = {k: v for k, v in changes.items() if k in ("temperature", "reward", "data")}
    path = tmp_path / changes.get("file", "memory.parquet")
    memory = build(MemoryConfig, {"type": "adaptive", "start": str(path), **own})
    with pytest.raises(ConfigError) as caught:
        trainer(memory=memory, **other)
    (problem,) = caught.value.problems
    assert problem.startswith(f"memory.start: {path}: ")
    assert said in problem


def test_shares_and_capacity_may_change(trainer, tmp_path):
    first = trainer()
    first.train([(1, 1)])
    first.save(tmp_path)
    memory = MemoryConfig(
        type="adaptive", start=str(tmp_path / "memory.parquet"), capacity=4, prompts=0.25
    )
    assert len(trainer(memory=memory).practice.memory.store) == 4


# -- what is refused --------------------------------------------------------------------------


def test_a_memory_needs_training_data(trainer):
    with pytest.raises(ConfigError, match="memory.type: adaptive remembers rows"):
        trainer(data=0)


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ({"type": "adaptve"}, "memory.type: unknown memory 'adaptve' (did you mean 'adaptive'?)"),
        ({"type": "adaptive", "adpative": {}}, "memory.adpative: no such option 'adpative' (did"),
        ({"type": "markov", "markov": {"stats": 1}}, "memory.markov.stats: no such option"),
        ({"type": "adaptive", "prompts": 1.5}, "memory.prompts: should be less than or equal to 1"),
        ({"type": "adaptive", "rehearsal": -0.5}, "memory.rehearsal: should be greater than or"),
        ({"type": "adaptive", "capacity": 0}, "memory.capacity: should be greater than 0"),
        (
            {"type": "adaptive", "prompts": 0.0, "rehearsal": 0.0},
            "memory.type: adaptive remembers attempts, but practises nothing: set prompts",
        ),
        (
            {"type": "adaptive", "prompts": 0.01},
            "memory.prompts: 0.01 of batch_size 8 is not one row: set 0, or 0.125 or more",
        ),
        (
            {"type": "adaptive", "difficulty": {"easy": 0.6, "hard": 0.6}},
            "memory.difficulty.hard: 0.6 with easy 0.6 is more than all rows",
        ),
        (
            {"type": "adaptive", "adaptive": {"floor": 0.6, "staleness": 0.6}},
            "memory.adaptive.floor: 0.6 with staleness 0.6 is more than the whole weight",
        ),
        ({"type": "adaptive", "prompt": 0.5}, "memory.prompt: no such option 'prompt' (did you"),
    ],
)
def test_settings_that_make_no_sense_are_refused(memory, said):
    plain = hybrid_config(batch_size=8).model_dump() | {"reward": TokenShare(), "memory": memory}
    with pytest.raises(ConfigError) as caught:
        build(HybridConfig, plain)
    assert any(problem.startswith(said) for problem in caught.value.problems), caught.value


def test_a_share_of_prompts_that_are_answered_several_times():
    memory = MemoryConfig(type="adaptive", prompts=0.2)
    plain = hybrid_config(batch_size=8).model_dump() | {"reward": TokenShare(), "memory": memory}
    said = "memory.prompts: 0.2 of batch_size / responses_per_prompt 2 is not one row"
    with pytest.raises(ConfigError, match=said):
        build(HybridConfig, plain | {"responses_per_prompt": 4})


def test_a_share_for_steps_that_there_are_none_of_is_refused():
    memory = MemoryConfig(type="adaptive", prompts=0.0, rehearsal=0.5)
    plain = hybrid_config().model_dump() | {"reward": TokenShare(), "memory": memory}
    with pytest.raises(ConfigError, match="memory.type: chooses nothing in PPO steps: set prompts"):
        build(HybridConfig, plain | {"sft_steps_per_cycle": 0})


def test_figures_have_the_same_names_at_every_step(trainer):
    """A csv has one column for each."""
    each, names = trainer(), {"sft": set(), "ppo": set()}
    for phase in ("sft", "ppo", "sft", "ppo"):
        stats = each.next_step(phase)
        names[phase].add(frozenset(name for name in stats if "/memory/" in name))
    assert all(len(found) == 1 for found in names.values())
    shares = [stats[f"ppo/memory/{kind}_share"] for kind in ("easy", "medium", "hard")]
    assert sum(shares) == pytest.approx(1)


def test_dvc_has_to_watch_the_memory_to_begin_with():
    settings = hybrid_config(memory=MemoryConfig(type="adaptive", start="data/local/m.parquet"))
    check_watched(files_of_training(settings, "ppo"), ("models/sft", "data/local"))
    with pytest.raises(ConfigError) as caught:
        check_watched(files_of_training(settings, "ppo"), ("models/sft",))
    (problem,) = caught.value.problems
    assert problem.startswith("ppo.memory.start: DVC does not watch data/local/m.parquet")


def test_the_section_is_named():
    with pytest.raises(ConfigError) as caught, section_named("baselines.sft_only"):
        raise StartError(["memory.start: it is damaged"])
    assert caught.value.problems == ["baselines.sft_only.memory.start: it is damaged"]
