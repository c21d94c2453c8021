"""Algorithms from an installed package, named as phases in params.yaml."""

import pytest
import torch

from mht.algorithms.batch import Batch, Examples
from mht.algorithms.pairs import best_and_worst
from mht.config import HybridConfig
from mht.core.component import build
from mht.core.errors import ConfigError, UserError
from mht.core.records import Rollout
from mht.data.examples.example import collate_sft
from mht.training.hybrid import HybridTrainer
from tests.support.jobs import Job, ends_the_same
from tests.support.plugins import Toy
from tests.support.training import PAD, examples, hybrid_config, rollout_of

pytest_plugins = ["tests.support.plugins"]

CODE = '''
import torch

from mht.algorithms.base import Algorithm, Learner, LossLearner
from mht.algorithms.batch import Outcome


class BestHalf(Algorithm):
    """SFT on the best of each batch's responses, and on examples beside them."""

    needs = frozenset({"examples", "rollouts"})
    share: float = 0.5

    def learner(self, trainee):
        return BestHalfLearner(trainee, self.share)


class BestHalfLearner(LossLearner):
    def __init__(self, trainee, share):
        super().__init__(trainee)
        self.share, self.steps, self.sum = share, 0, torch.zeros(2)

    def loss(self, batch):
        given = batch.rollouts
        scores = torch.tensor(given.scores())
        best = scores >= scores.quantile(1 - self.share)
        logprobs = self.trainee.policy.score(given.rollout).logprobs
        mask = given.rollout.response_mask & best[:, None]
        self.steps += 1
        self.sum += torch.tensor([1.0, float(scores.mean())])
        figures = {
            "examples": float(len(batch.examples)),
            "rollouts": float(len(given)),
            "best": float(best.sum()),
            "made": float(self.steps),
            "sum": float(self.sum[1]),
        }
        return -logprobs[mask].mean(), figures

    def state_dict(self):
        return {"steps": self.steps, "inner": {"sum": self.sum}}

    def load_state_dict(self, state):
        self.steps, self.sum = state["steps"], state["inner"]["sum"].clone()


class Preference(Algorithm):
    """DPO (arXiv:2305.18290) on the best and the worst response to each prompt."""

    needs = frozenset({"pairs"})
    beta: float = 0.1
    repeats: int = 2

    def updates(self, config):
        return self.repeats

    def learner(self, trainee):
        return PreferenceLearner(self, trainee)


class PreferenceLearner(Learner):
    def __init__(self, options, trainee):
        self.options, self.trainee = options, trainee

    def step(self, batch):
        assert batch.examples is None and batch.rollouts is None
        losses = []
        for _ in range(self.options.repeats):
            loss = self.loss(batch.pairs)
            losses.append(float(loss))
            self.trainee.updater.step(loss)
        margin = float(batch.pairs.margins.mean())
        return Outcome({"loss": losses[0], "margin": margin, "pairs": float(len(batch.pairs))})

    def loss(self, pairs):
        policy, gains = self.trainee.policy, []
        for rollout in (pairs.chosen, pairs.rejected):
            ref = policy.ref_logprobs(rollout)
            gains.append((policy.score(rollout).logprobs - ref).sum(1))
        return -torch.nn.functional.logsigmoid(self.options.beta * (gains[0] - gains[1])).mean()
'''
TOY = Toy(
    "acme_algorithms",
    CODE,
    {"algorithm": {"best_half": "BestHalf", "preference": "Preference"}},
    row={
        "sft_steps_per_cycle": 0,
        "ppo_steps_per_cycle": 0,
        "responses_per_prompt": 2,
        "phases": [{"sft": 1}, {"quarter": 1}, {"preference": 1}, {"ppo": 1}, {"sft": 1}],
        "algorithms": {"quarter": {"type": "best_half", "share": 0.25}},
    },
)


def test_algorithms_from_outside_are_phases_of_the_pipeline(toy_rows):
    """By its type and by a name of its own, between the built-in ones."""
    sft, best, pairs, ppo = (
        toy_rows.curve("acme_algorithms", name) for name in ("sft", "quarter", "preference", "ppo")
    )
    assert [row["step"] for row in sft] == [1, 5, 6, 10]
    assert [row["step"] for row in (*best, *pairs, *ppo)] == [2, 7, 3, 8, 4, 9]
    assert [row["quarter/made"] for row in best] == [1, 2]
    assert all(row["quarter/rollouts"] == 8 and row["quarter/examples"] == 16 for row in best)
    assert all(2 <= row["quarter/best"] < 8 for row in best)
    assert all(1 <= row["preference/pairs"] <= 4 for row in pairs), "equal prompts are one pair"
    assert all(row["preference/margin"] > 0 for row in pairs)
    assert all(row["ppo/policy/ratio_max"] < 10 for row in ppo)
    final = toy_rows.json("metrics/acme_algorithms.json")
    assert final["quarter/loss"] > 0 and final["validation/score"]


def test_its_steps_count_for_the_schedule(site):
    settings = {
        "cycles": 3, "phases": [{"sft": 2}, {"preference": 1}, {"sft": 1}],
        "responses_per_prompt": 2, "reward": {"type": "length_window", "min": 1, "max": 3},
    }  # fmt: skip
    config = build(HybridConfig, settings)
    assert config.plan == [(("sft", 2), ("preference", 1), ("sft", 1))] * 3
    assert config.steps == (9, 3)
    assert config.optimizer_steps == 3 * (3 + 2)


def test_its_state_is_in_the_checkpoints(site, tmp_path, tiny_model_dir, tiny_tokenizer):
    plan = [[{"best_half": 2}, {"ppo": 1}], [{"best_half": 1}, {"sft": 1}]]

    def job(name):
        return Job(tmp_path / name, tiny_model_dir(), tiny_tokenizer, plan=plan)

    ends_the_same(job, *range(1, 9))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"phases": [{"best_hlf": 1}]},
         "phases[0]: unknown algorithm 'best_hlf' (did you mean 'best_half'?)"),
        ({"phases": [{"sft": 1, "ppo": 1}]},
         "phases[0]: is one algorithm and its steps, as in {sft: 6}, got"),
        ({"phases": [{"sft": 1}], "sft_steps_per_cycle": 2},
         "phases: sft_steps_per_cycle and ppo_steps_per_cycle are set too"),
        ({"phases": [{"mine": 1}], "algorithms": {"mine": {"type": "best_half", "shar": 1.0}}},
         "algorithms.mine.shar: no such option 'shar' (did you mean 'share'?)"),
        ({"phases": [{"sft": 1}], "algorithms": {"ppo": {"type": "best_half"}}},
         "algorithms.ppo: the name is taken"),
        ({"phases": [{"preference": 1}], "reward": {"type": "jaccard"}},
         "responses_per_prompt: pairs are made of a prompt's responses: set at least 2"),
        ({"phases": [{"best_half": 1}]}, ": steps of best_half need a reward"),
        ({"curriculum": {"type": "linear"}, "sft_steps_per_cycle": 1},
         "curriculum: set mix"),
    ],
)  # fmt: skip
def test_a_wrong_phase_is_refused(site, changes, problem):
    with pytest.raises(ConfigError) as caught:
        build(HybridConfig, {"cycles": 1, **changes}, path="ppo")
    assert any(line.startswith(f"ppo.{problem}".replace("ppo.:", "ppo:"))
               for line in caught.value.problems), caught.value.problems  # fmt: skip


def test_phases_are_what_the_short_form_means(tiny_model_dir, tiny_tokenizer):
    seen = []
    for settings in (
        {"sft_steps_per_cycle": 2, "ppo_steps_per_cycle": 1},
        {"sft_steps_per_cycle": 0, "ppo_steps_per_cycle": 0, "phases": [{"sft": 2}, {"ppo": 1}]},
    ):
        config = hybrid_config(**settings)
        trainer = HybridTrainer(
            tiny_model_dir(), tiny_tokenizer, examples(tiny_tokenizer), config=config, device="cpu"
        )
        trainer.train()
        seen.append([p.detach().clone() for p in trainer.policy.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


@pytest.mark.parametrize(
    "plan", [[5], [(1, 2, 3)], [[{"sft": "two"}]], ["sft"], [[{"nothing": 1}]]]
)
def test_a_plan_that_is_none_is_refused(tiny_model_dir, tiny_tokenizer, plan):
    trainer = HybridTrainer(
        tiny_model_dir(), tiny_tokenizer, examples(tiny_tokenizer), device="cpu"
    )
    with pytest.raises(UserError, match="plan: a cycle is|unknown algorithm 'nothing'"):
        trainer.train(plan)


# -- the records ------------------------------------------------------------------------------


def test_pairs_are_of_one_prompt():
    """Prompts [5] with scores 0.1, 0.9 and [6] with 0.3, 0.3."""
    rollout = rollout_of([[5], [6], [5], [6]], [[10, 2], [11, 2], [12, 2], [13, 2]])
    pairs = best_and_worst(rollout, [0.1, 0.3, 0.9, 0.3])
    assert pairs.chosen.response_ids[:, 0].tolist() == [12, 11]
    assert pairs.rejected.response_ids[:, 0].tolist() == [10, 13]
    assert pairs.margins.tolist() == pytest.approx([0.8, 0.0])
    assert isinstance(pairs.chosen, Rollout)


def test_a_process_gets_its_rows_of_each_part(tiny_tokenizer):
    batch = collate_sft(examples(tiny_tokenizer, 4), PAD)
    own, share = Batch(Examples(batch)).share(lambda count: slice(count // 2, count))
    assert share == 0.5
    assert torch.equal(own.examples.tensors["labels"], batch["labels"][2:])
