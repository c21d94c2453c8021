"""The PPO step: its ratio check, its options, padding, and a reward that rises."""

import math
import statistics

import pytest
import torch

from mht import HybridTrainer
from mht.algorithms.ppo.ratio import RatioError
from mht.algorithms.ppo.scores import RunningStd
from mht.core.errors import UserError
from mht.losses import AdaptiveKL, FixedKL
from mht.optim.updater import Diverged
from mht.rewards import RewardError
from tests.support.ppo import (
    PROMPTS,
    SCORES,
    assess,
    ppo_of,
    ppo_step,
    sampled,
    weights,
    without_times,
)
from tests.support.training import (
    PAD,
    examples,
    hybrid_config,
    responses_of,
    rollout_of,
)

# -- the ratio --------------------------------------------------------------------------------


@pytest.mark.parametrize("unfrozen", [1, "all"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_ratio_is_1_before_any_update(tiny_model_dir, unfrozen, temperature):
    ppo = ppo_of(
        tiny_model_dir(layers=3),
        unfrozen=unfrozen,
        temperature=temperature,
        ratio_tolerance=2e-5,
        epochs=1,
        minibatch_size=8,
    )
    stats = ppo_step(ppo, sampled(ppo, ends=range(100, 140)), SCORES)  # stops if the ratio is not 1
    assert stats["policy/ratio_max"] == pytest.approx(1, abs=2e-5)
    assert stats["policy/clipfrac"] == 0
    assert stats["policy/approx_kl_nats"] == pytest.approx(0, abs=1e-8)
    assert stats["kl/k1_nats"] == pytest.approx(0, abs=1e-4)  # nothing has trained yet


@pytest.mark.parametrize("each", [1, 2])
def test_how_hard_a_prompt_is_counts_only_where_it_is_answered_once(tiny_model_dir, each):
    """PROMPTS has each prompt twice; both responses to the second one score 3 more."""
    harder = [s + 3.0 * (i % 4 == 1) for i, s in enumerate(SCORES)]
    trained = []
    for scores in (SCORES, harder):
        ppo = ppo_of(tiny_model_dir(), responses_per_prompt=each)
        stats = ppo_step(ppo, sampled(ppo), scores)
        assert stats["score/mean"] == pytest.approx(sum(scores) / 8)
        trained.append(weights(ppo))
    assert torch.allclose(*trained, atol=1e-6) == (each == 2)


def test_the_spread_of_the_scores_within_prompts(tiny_model_dir):
    """0 and 1, 0 and 2, 4 and 4, 1 and 7 have the variances .5, 2, 0 and 18."""
    ppo = ppo_of(tiny_model_dir(), responses_per_prompt=2)
    stats = ppo_step(ppo, sampled(ppo), [0.0, 0.0, 4.0, 1.0, 1.0, 2.0, 4.0, 7.0])
    assert stats["score/std_within_prompts"] == pytest.approx(math.sqrt((0.5 + 2 + 0 + 18) / 4))


def test_another_temperature_stops_the_run(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir(), temperature=1.0)
    before = weights(ppo)
    with pytest.raises(
        RuntimeError, match=r"\|ratio - 1\| .* ppo\.ratio_tolerance 0\.001"
    ) as error:
        ppo_step(ppo, sampled(ppo, temperature=0.8), SCORES)
    assert isinstance(error.value, RatioError)
    assert isinstance(error.value, UserError), "the stage shows it as one line"
    assert torch.equal(weights(ppo), before)


def test_a_policy_changed_in_between_stops_the_run(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir())
    rollout = sampled(ppo)
    with torch.no_grad():
        next(iter(ppo.policy.parameters())).mul_(1.2)
    with pytest.raises(RatioError):
        ppo_step(ppo, rollout, SCORES)


@pytest.mark.parametrize("scores", [SCORES[:7], [*SCORES, 1.0], [1.0]])
def test_scores_must_be_one_each(tiny_model_dir, scores):
    ppo = ppo_of(tiny_model_dir())
    with pytest.raises(RewardError, match=f"each of 8 responses, got {len(scores)}"):
        ppo_step(ppo, sampled(ppo), scores)


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_microbatches_add_up_to_the_minibatch(tiny_model_dir, unfrozen, size):
    """Eight rows at once, or some at a time: the same step, and the same figures."""
    settings = {"unfrozen": unfrozen, "optimizer": "sgd", "minibatch_size": 8, "ent_coef": 0.1}
    whole, parts = (
        ppo_of(tiny_model_dir(), lr=0.1, microbatch_size=n, **settings) for n in (None, size)
    )
    stats = [
        without_times(ppo_step(ppo, sampled(ppo, ends=range(100, 140)), SCORES))
        for ppo in (whole, parts)
    ]
    torch.testing.assert_close(weights(parts), weights(whole), atol=1e-6, rtol=1e-5)
    assert stats[1] == pytest.approx(stats[0], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_must_be_finite(tiny_model_dir, bad):
    ppo = ppo_of(tiny_model_dir())
    with pytest.raises(RewardError, match=str(bad)):
        ppo_step(ppo, sampled(ppo), [bad, *SCORES[1:]])


def test_divergence_is_told_and_changes_nothing(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir())
    rollout, before = sampled(ppo), weights(ppo)
    with pytest.raises(Diverged, match="lower the learning rate") as error:
        ppo_step(ppo, rollout, [1e38, -1e38] * 4)
    assert isinstance(error.value, UserError | FloatingPointError)
    assert torch.equal(weights(ppo), before)


# -- rewards and advantages -------------------------------------------------------------------


def assessed(ppo, rollout, scores=SCORES):
    return assess(ppo, rollout, scores)[0]


def test_scores_stand_at_the_last_token_and_advantages_are_white(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir(), kl_coef=0.0)
    rollout = sampled(ppo, ends=range(100, 140))
    assert len(set(rollout.lengths.tolist())) > 1
    experience = assessed(ppo, rollout)
    for row, length, score in zip(experience.rewards, rollout.lengths, SCORES, strict=True):
        assert row[length - 1] == score
        assert row.abs().sum() == abs(score)
    mask = rollout.response_mask
    assert experience.advantages[mask].mean().abs() < 1e-6
    assert experience.advantages[mask].std(unbiased=False) == pytest.approx(1, abs=1e-4)
    assert (experience.advantages[~mask] == 0).all()
    assert experience.returns[mask].std() > 0  # of before the whitening: gamma 1, values 0, lam .95
    last = experience.returns[torch.arange(8), rollout.lengths - 1]
    assert last.tolist() == pytest.approx(SCORES, abs=1e-6)


def test_the_penalty_is_kl_coef_times_the_estimate(tiny_model_dir):
    for kind in ("k1", "k2", "k3"):
        ppo = ppo_of(tiny_model_dir(), kl_coef=0.3, kl_estimator=kind)
        with torch.no_grad():
            for p in ppo.policy.model.parameters():
                p.mul_(1.05)
        rollout = sampled(ppo)
        experience = assessed(ppo, rollout, [0.0] * 8)
        d = experience.old_logprobs - experience.ref_logprobs
        assert d.abs().max() > 0.01
        estimate = {"k1": d, "k2": d**2 / 2, "k3": torch.exp(-d) - 1 + d}[kind]
        expected = -0.3 * estimate * rollout.response_mask
        torch.testing.assert_close(experience.rewards, expected, atol=1e-6, rtol=1e-4)


def test_missing_eos_penalty(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir(), kl_coef=0.0, missing_eos_penalty=0.75)
    rollout = sampled(ppo, ends=range(100, 140))
    assert 0 < rollout.ended.sum() < 8
    got = assessed(ppo, rollout).rewards.sum(1).tolist()
    ended = rollout.ended.tolist()
    assert got == pytest.approx([s - 0.75 * (not e) for s, e in zip(SCORES, ended, strict=True)])


def test_score_clip(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir(), kl_coef=0.0, score_clip=0.6)
    got = assessed(ppo, sampled(ppo)).rewards.sum(1).tolist()
    assert got == pytest.approx([min(max(s, -0.6), 0.6) for s in SCORES])


def test_score_norm_divides_by_the_running_std(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir(), kl_coef=0.0, score_norm=True)
    rollout = sampled(ppo)
    first = assessed(ppo, rollout).rewards.sum(1).tolist()
    assert first == pytest.approx([s / statistics.stdev(SCORES) for s in SCORES], rel=1e-5)
    more = [10 * s for s in SCORES]
    second = assessed(ppo, rollout, more).rewards.sum(1).tolist()
    assert second == pytest.approx([s / statistics.stdev(SCORES + more) for s in more], rel=1e-5)


def test_equal_scores_are_not_blown_up_by_score_norm():
    running, seen = RunningStd(), []
    for scores in ([1.0], [1.0, 1.0], [3.0]):
        running.update(torch.tensor(scores))
        seen.append(running.std)
    assert seen == [1.0, 1.0, pytest.approx(statistics.stdev([1, 1, 1, 3]))]


# -- padding and order ------------------------------------------------------------------------


@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_padding_changes_nothing_in_a_step(tiny_model_dir, unfrozen):
    seen, updated = [], []
    rollout = None
    for left, right, pad in ((0, 0, PAD), (3, 2, PAD), (1, 1, 99)):
        ppo = ppo_of(
            tiny_model_dir(layers=2), unfrozen=unfrozen, optimizer="sgd", ent_coef=0.01, lr=0.1
        )
        ppo.policy.value_head.weight.data.fill_(0.02)
        rollout = rollout or sampled(ppo, ends=range(100, 140))
        padded = rollout_of(PROMPTS, responses_of(rollout), left=left, right=right, pad=pad)
        seen.append(without_times(ppo_step(ppo, padded, SCORES)))
        updated.append(weights(ppo))
    for other in (1, 2):
        differing = {k for k in seen[0] if k.endswith("ended_share")}  # EOS here is any of 40
        for name in seen[0].keys() - differing:
            assert seen[other][name] == pytest.approx(seen[0][name], abs=2e-4, rel=1e-3), name
        torch.testing.assert_close(updated[other], updated[0], atol=1e-4, rtol=0)


def test_one_whole_minibatch_does_not_depend_on_its_order(tiny_model_dir):
    updated = []
    for seed in (0, 1):
        ppo = ppo_of(
            tiny_model_dir(), epochs=1, minibatch_size=8, optimizer="sgd", lr=0.1, seed=seed
        )
        ppo_step(ppo, sampled(ppo), SCORES)
        updated.append(weights(ppo))
    torch.testing.assert_close(*updated, atol=1e-5, rtol=0)


def test_every_response_is_seen_once_per_epoch(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir(), epochs=3, minibatch_size=4)
    experience = assessed(ppo, sampled(ppo))
    batches = list(ppo.updates.minibatches(experience))
    assert len(batches) == 6
    rows = [tuple(r) for b, _ in batches for r in responses_of(b.rollout)]
    assert sorted(rows) == sorted([tuple(r) for r in responses_of(experience.rollout)] * 3)


# -- learning ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("unfrozen", "lr"), [(1, 3e-2), ("all", 5e-3)])
def test_the_reward_rises(tiny_model_dir, unfrozen, lr):
    """30 steps on the share of tokens below 200, half of the vocabulary."""
    ppo = ppo_of(tiny_model_dir(), unfrozen=unfrozen, kl_coef=0.0, lr=lr, minibatch_size=8)
    shares = []
    for step in range(30):
        rollout = sampled(ppo, seed=step, prompts=PROMPTS * 4)
        below = (rollout.response_ids < 200) & rollout.response_mask
        scores = (below.sum(1) / rollout.lengths).tolist()
        shares.append(statistics.mean(scores))
        stats = ppo_step(ppo, rollout, scores)
    assert statistics.mean(shares[-5:]) > statistics.mean(shares[:3]) + 0.25, shares
    assert stats["kl/k1_nats"] > 1  # it has left the reference, as kl_coef 0 lets it


def test_the_kl_penalty_holds_the_policy_back(tiny_model_dir):
    kl = {}
    for coef in (0.0, 1.0):
        ppo = ppo_of(tiny_model_dir(), unfrozen=1, kl_coef=coef, lr=1e-2, minibatch_size=8)
        seen = []
        for step in range(12):
            rollout = sampled(ppo, seed=step, prompts=PROMPTS * 4)
            below = (rollout.response_ids < 200) & rollout.response_mask
            stats = ppo_step(ppo, rollout, (below.sum(1) / rollout.lengths).tolist())
            seen.append(stats["kl/k3_nats"])
        kl[coef] = statistics.mean(seen[-3:])
    assert kl[1.0] < kl[0.0] / 2


def test_the_value_head_learns_the_score(tiny_model_dir):
    ppo = ppo_of(
        tiny_model_dir(), kl_coef=0.0, lr=1e-2, vf_coef=1.0, value_clip_range=None, clip_range=1e-6
    )
    rollout = sampled(ppo)
    losses = [
        ppo_step(ppo, rollout_of(PROMPTS, responses_of(rollout)), [2.0] * 8)["value/loss"]
        for _ in range(8)
    ]
    assert losses[0] > 1.0
    assert losses[-1] < losses[0] / 5


def test_the_coefficient_moves_if_adaptive(tiny_model_dir):
    control = {"type": "adaptive", "target": 6.0, "horizon": 100}
    ppo = ppo_of(tiny_model_dir(), kl_coef=0.1, kl_control=control)
    assert isinstance(ppo.kl_control, AdaptiveKL)
    assert ppo_step(ppo, sampled(ppo), SCORES)["kl/coef"] == 0.1
    assert ppo.kl_control.value == pytest.approx(0.1 * (1 - 0.2 * 8 / 100))  # KL is 0, far below
    assert ppo_step(ppo, sampled(ppo), SCORES)["kl/coef"] == pytest.approx(0.1 * 0.984)
    fixed = ppo_of(tiny_model_dir(), kl_coef=0.1)
    ppo_step(fixed, sampled(fixed), SCORES)
    assert isinstance(fixed.kl_control, FixedKL)
    assert fixed.kl_control.value == 0.1


def test_target_kl_stops_the_epochs(tiny_model_dir):
    steps = {}
    for limit in (None, 1e-4, 1e-9):
        ppo = ppo_of(tiny_model_dir(), epochs=6, lr=1e-2, target_kl=limit)
        steps[limit] = ppo_step(ppo, sampled(ppo), SCORES)["optim/steps"]
    assert steps[None] == 12
    assert 1 <= steps[1e-9] <= steps[1e-4] < 12


@pytest.mark.parametrize("kind", ["linear", "cosine", "polynomial"])
def test_a_schedule_ends_although_its_epochs_were_stopped_early(
    tiny_model_dir, tiny_tokenizer, kind
):
    """The rate after each PPO step is that of a run which was not stopped."""
    rates = {}
    for limit in (None, 1e-9):
        config = hybrid_config(
            ppo_steps_per_cycle=3, epochs=4, target_kl=limit, scheduler={"type": kind}
        )
        trainer = HybridTrainer(
            tiny_model_dir(), tiny_tokenizer, examples(tiny_tokenizer), config=config, device="cpu"
        )
        steps, rates[limit] = [], []

        def log(stats, step, trainer=trainer, limit=limit, steps=steps):
            rates[limit].append(trainer.updater.lr)
            steps.append(stats.get("ppo/optim/steps"))

        trainer.train(log=log)
        assert trainer.updater.scheduler.last_epoch == config.optimizer_steps == 1 + 3 * 8
        assert (steps[1:] == [8.0] * 3) is (limit is None)
    assert rates[1e-9] == rates[None]
    assert rates[None][-1] == pytest.approx(0, abs=1e-6)


def test_a_smaller_batch_skips_only_its_own_steps(tiny_model_dir):
    for responses, planned in ((8, 12), (5, 12), (4, 6), (1, 6)):
        ppo = ppo_of(tiny_model_dir(), epochs=6, lr=1e-2, target_kl=1e-9, minibatch_size=4)
        rollout = sampled(ppo)
        ppo_step(ppo, rollout.rows(torch.arange(responses)), SCORES[:responses])
        assert ppo.updates.updater.scheduler.last_epoch == planned


def test_an_entropy_bonus_spreads_the_policy(tiny_model_dir):
    entropies = {}
    for coef in (0.0, 1.0):
        ppo = ppo_of(tiny_model_dir(), kl_coef=0.0, ent_coef=coef, lr=3e-3)
        for step in range(4):
            stats = ppo_step(ppo, sampled(ppo, seed=step), SCORES)
        entropies[coef] = stats["policy/entropy_nats"]
    assert entropies[1.0] > entropies[0.0] + 0.05


def test_dual_clip_reaches_the_loss(tiny_model_dir):
    """Half of the old logprobs are far too low: a ratio of e^3 against a negative advantage."""
    losses = {}
    for dual in (None, 1.5):
        ppo = ppo_of(tiny_model_dir(), dual_clip=dual)
        experience = assessed(ppo, sampled(ppo))
        loss, _ = ppo.updates.loss(
            type(experience)(**vars(experience) | {"old_logprobs": experience.old_logprobs - 3.0}),
            is_first=False,
        )
        losses[dual] = loss.item()
    assert losses[1.5] < losses[None] - 1


def test_gradients_are_clipped_and_their_norm_is_told(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir(), optimizer="sgd", lr=1.0, max_grad_norm=1e-3, epochs=1)
    before = weights(ppo)
    stats = ppo_step(ppo, sampled(ppo), [100 * s for s in SCORES])
    assert stats["optim/grad_norm"] > 1e-3
    assert (weights(ppo) - before).norm() <= 2 * 1e-3 * 1.01  # two steps at rate 1


def test_state_goes_on_where_it_was(tiny_model_dir):
    control = {"type": "adaptive", "target": 1.0, "horizon": 50}
    settings = {"kl_control": control, "score_norm": True}
    ppo, again = (ppo_of(tiny_model_dir(), **settings) for _ in range(2))
    ppo_step(ppo, sampled(ppo), SCORES)
    again.load_state_dict(ppo.state_dict())
    assert again.kl_control.value == ppo.kl_control.value != 0.05
    a, b = (x.assessment.shaping.running_std for x in (ppo, again))
    assert vars(a) == vars(b) and a.count == len(SCORES)
    assert torch.equal(again.generator.get_state(), ppo.generator.get_state())
