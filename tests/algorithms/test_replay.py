"""Replay: importance weights, rollouts of different widths, and past responses in the update."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mht.algorithms.ppo.replay import FIGURES, Replayed, replayed
from mht.config import HybridConfig
from mht.core.component import build
from mht.core.errors import ConfigError, UserError
from mht.devices.base import indivisible
from mht.generation.sampling.rollout import concatenated, trimmed, widened
from mht.losses import effective_share, importance_weights, policy_loss, value_loss, whiten
from mht.memory.base import Attempt
from mht.models.loading import load_causal_lm
from mht.training.hybrid import HybridTrainer
from tests.support.jobs import Job, ends_the_same
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
from tests.support.training import EOS, PAD, STATEFUL, examples, hybrid_config, rollout_of

numbers = st.floats(-5, 0, allow_nan=False, width=32)
rows = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=2, max_size=2)
EVERYWHERE = torch.ones(2, 3, dtype=torch.bool)


# -- the weights ------------------------------------------------------------------------------


def test_weights_by_hand():
    """.6/.3, .9/.1 cut at 4, .1/.2; padding is 1 whatever it holds."""
    now = torch.tensor([[0.6, 0.9, 0.1, 0.5]]).log()
    then = torch.tensor([[0.3, 0.1, 0.2, 0.0]]).log()
    mask = torch.tensor([[True, True, True, False]])
    weights = importance_weights(now, then, mask, max_weight=4.0)
    torch.testing.assert_close(weights, torch.tensor([[2.0, 4.0, 0.5, 1.0]]))
    assert effective_share(weights, mask).item() == pytest.approx(6.5**2 / (3 * 20.25))


@given(rows)
@settings(max_examples=25, deadline=None)
def test_what_the_present_policy_sampled_weighs_exactly_1(logprobs):
    logprobs = torch.tensor(logprobs)
    weights = importance_weights(logprobs, logprobs, EVERYWHERE, max_weight=1.0)
    assert (weights == 1).all()
    assert effective_share(weights, EVERYWHERE) == 1


@given(rows, rows, st.floats(1, 10))
@settings(max_examples=25, deadline=None)
def test_weights_are_cut_off_and_carry_no_gradient(now, then, limit):
    now, then = torch.tensor(now, requires_grad=True), torch.tensor(then)
    weights = importance_weights(now, then, EVERYWHERE, max_weight=limit)
    assert not weights.requires_grad
    whole = torch.exp(now.detach() - then)
    torch.testing.assert_close(weights, whole.clamp(max=limit))
    assert 0 < effective_share(weights, EVERYWHERE) <= 1 + 1e-6


def loss_of(logits, actions, advantages, *, proximal, weights=None):
    """PPO's loss of a batch of single tokens from one distribution."""
    logprobs = torch.log_softmax(logits, 0)[actions][:, None]
    old = proximal.log()[actions][:, None]
    return policy_loss(
        logprobs,
        old,
        advantages[actions][:, None],
        torch.ones(len(actions), 1, dtype=torch.bool),
        clip_range=0.2,
        weights=None if weights is None else weights[actions][:, None],
    )


@pytest.mark.parametrize("behaviour", [[0.2, 0.8], [0.5, 0.5], [0.95, 0.05]])
def test_the_gradient_of_a_bandit_is_unbiased(behaviour):
    """Two tokens, enumerated: replay's expected gradient is that of fresh samples.

    Truncated at 1 it is not: what the present policy would rather do counts too little.
    """
    proximal, behaviour = torch.tensor([0.7, 0.3]).double(), torch.tensor(behaviour).double()
    advantages = torch.tensor([1.5, -0.5]).double()

    def expected(sampler, weights=None):
        logits = proximal.log().clone().requires_grad_()
        for action in (0, 1):
            loss = loss_of(
                logits,
                torch.tensor([action]),
                advantages,
                proximal=proximal,
                weights=weights,
            )
            (sampler[action] * loss).backward()
        return logits.grad

    fresh = expected(proximal)
    both = torch.ones(1, 2, dtype=torch.bool)
    pair = proximal.log()[None], behaviour.log()[None]
    exact = importance_weights(*pair, both, max_weight=math.inf)[0]
    torch.testing.assert_close(expected(behaviour, exact), fresh)
    truncated = importance_weights(*pair, both, max_weight=1.0)[0]
    is_on_policy = torch.equal(behaviour, proximal)
    assert torch.allclose(expected(behaviour, truncated), fresh) == is_on_policy
    # by hand, at the proximal policy: d/dlogit_0 of -sum_a p_a A_a is -p_0 p_1 (A_0 - A_1)
    assert fresh[0].item() == pytest.approx(-0.7 * 0.3 * 2.0)


def test_weighted_losses_by_hand():
    """A ratio of 1 leaves -A times the weight, over the number of tokens and not of weights."""
    mask = torch.tensor([[True, True, False]])
    zeros, advantages = torch.zeros(1, 3), torch.tensor([[1.0, -3.0, 7.0]])
    weights = torch.tensor([[2.0, 0.5, 9.0]])
    loss = policy_loss(zeros, zeros, advantages, mask, clip_range=0.2, weights=weights)
    assert loss.item() == pytest.approx((-2.0 + 1.5) / 2)
    returns = torch.tensor([[1.0, 2.0, 5.0]])
    loss = value_loss(zeros, zeros, returns, mask, clip_range=None, weights=weights)
    assert loss.item() == pytest.approx(0.5 * (2 * 1 + 0.5 * 4) / 2)


@given(rows, rows, rows)
@settings(max_examples=25, deadline=None)
def test_weights_of_1_change_nothing(new, old, advantages):
    new, old, advantages = map(torch.tensor, (new, old, advantages))
    ones = torch.ones(2, 3)
    for loss, options in (
        (policy_loss, {"clip_range": 0.2, "dual_clip": 3.0}),
        (value_loss, {"clip_range": 0.2}),
    ):
        plain = loss(new, old, advantages, EVERYWHERE, **options)
        assert torch.equal(loss(new, old, advantages, EVERYWHERE, weights=ones, **options), plain)


def test_whitened_like_others():
    """Mean 2 and standard deviation 1 of the others; their padding does not count."""
    others = torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[True, True, False]])
    x, mask = torch.tensor([[2.0], [5.0], [7.0]]), torch.tensor([[True], [True], [False]])
    torch.testing.assert_close(
        whiten(x, mask, like=others), torch.tensor([[0.0], [3.0], [0.0]]), atol=1e-6, rtol=0
    )


@given(rows)
@settings(max_examples=25, deadline=None)
def test_whitened_like_themselves(x):
    x, mask = torch.tensor(x), torch.tensor([[True, True, False], [True, True, True]])
    assert torch.equal(whiten(x, mask, like=(x, mask)), whiten(x, mask))


# -- rollouts of different widths -------------------------------------------------------------


def with_figures(rollout):
    """Something in every column, told by its token: the trunk's two features, logprobs."""
    ids = rollout.input_ids[:, :-1].float()
    mask = rollout.attention_mask[:, :-1]
    trunk = torch.where(mask, ids, 0.0)[..., None].expand(-1, -1, 2)
    logprobs = torch.where(rollout.response_mask, -rollout.response_ids.float(), 0.0)
    return type(rollout)(**vars(rollout) | {"trunk": trunk, "logprobs": logprobs})


def test_concatenated_rows_are_padded_on_their_sides():
    short = with_figures(rollout_of([[5, 6]], [[7, 8, 2]]))
    long = with_figures(rollout_of([[10, 11, 12, 13], [14]], [[15], [16]]))
    both = concatenated(short, long, pad_id=PAD)
    assert both.prompt_ids.tolist() == [[PAD, PAD, 5, 6], [10, 11, 12, 13], [PAD, PAD, PAD, 14]]
    assert both.response_ids.tolist() == [[7, 8, 2], [15, PAD, PAD], [16, PAD, PAD]]
    expected = with_figures(rollout_of([[5, 6], [10, 11, 12, 13], [14]], [[7, 8, 2], [15], [16]]))
    for name in ("prompt_mask", "response_mask", "ended", "logprobs"):
        assert torch.equal(getattr(both, name), getattr(expected, name)), name
    mask = both.attention_mask
    read = mask[:, :-1] & mask[:, 1:]  # nothing is predicted from a row's last token
    assert torch.equal(both.trunk[read], expected.trunk[read])


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_padding_before_a_concatenation_changes_nothing(a, b, c, d):
    first = with_figures(rollout_of([[5, 6], [9]], [[7, 8, 2], [4]]))
    second = with_figures(rollout_of([[10, 11, 12]], [[15]]))
    plain = trimmed(concatenated(first, second, pad_id=PAD))
    padded = trimmed(
        concatenated(
            widened(first, left=a, right=b, pad_id=PAD),
            widened(second, left=c, right=d, pad_id=PAD),
            pad_id=PAD,
        )
    )
    for name, values in vars(plain).items():
        other = getattr(padded, name)
        assert (values is None and other is None) or torch.equal(values, other), name


def test_what_one_rollout_does_not_know_the_whole_does_not():
    bare = rollout_of([[5]], [[7]])
    assert concatenated(with_figures(bare), bare).logprobs is None


# -- in the update ----------------------------------------------------------------------------


def memory_of(share=0.5, **changes):
    return {"type": "adaptive", "replay": {"share": share, **changes}}


def past_of(ppo, *, seed=7, drift=0.0, scores=None, prompts=PROMPTS, ages=None):
    """Responses that the policy sampled before ``drift`` moved its weights."""
    rollout = sampled(ppo, seed=seed, ends=range(100, 140), prompts=prompts)
    if drift:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in ppo.policy.model.parameters():
                if p.requires_grad:
                    p.add_(drift * torch.randn(p.shape, generator=generator))
    rollout = replace(rollout, trunk=None, entropies=None, hidden=None)
    return Replayed(rollout, scores or SCORES, ages or [1.0] * len(prompts))


def test_without_past_rows_nothing_changes(tiny_model_dir):
    """A share of 0, or nothing to replay yet: the same step to the bit."""
    plain = ppo_of(tiny_model_dir())
    seen = without_times(ppo_step(plain, sampled(plain), SCORES))
    for share in (0.0, 0.5):
        ppo = ppo_of(tiny_model_dir(), memory=memory_of(share))
        stats = without_times(ppo_step(ppo, sampled(ppo), SCORES))
        assert torch.equal(weights(ppo), weights(plain))
        replay = {k: stats.pop(k) for k in list(stats) if k.startswith("replay/")}
        assert stats == seen
        assert replay == (dict.fromkeys(FIGURES, 0.0) if share else {})


def test_fresh_rows_are_assessed_as_without_past_ones(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir(), memory=memory_of(), score_norm=True)
    past = past_of(ppo, drift=0.01, scores=[9.0] * 8)
    rollout, running = sampled(ppo), ppo.assessment.shaping.running_std
    state = dict(vars(running))
    alone, figures = assess(ppo, rollout, SCORES)
    std = running.std
    vars(running).update(state)
    both, more = assess(ppo, rollout, SCORES, past)
    assert running.std == std, "past scores are not counted again"
    assert {k: v for k, v in more.items() if k not in FIGURES} == {
        k: v for k, v in figures.items() if k not in FIGURES
    }
    width = alone.advantages.shape[1]
    for name in ("old_logprobs", "old_values", "rewards", "advantages", "returns"):
        assert torch.equal(getattr(both, name)[:8, :width], getattr(alone, name)), name
    assert (both.weights[:8] == 1).all()
    assert both.rewards[8:].sum(1).tolist() == pytest.approx(
        [9.0 / std] * 8, abs=2.0
    )  # KL's part aside


def test_past_rows_of_the_same_policy_weigh_1_and_are_as_fresh_ones(tiny_model_dir):
    """Replaying the very rollout: the same logprobs, values, rewards and advantages again."""
    ppo = ppo_of(tiny_model_dir(layers=2), unfrozen=1, memory=memory_of())
    ppo.policy.value_head.weight.data.fill_(0.02)
    past = past_of(ppo)
    rollout = replace(sampled(ppo, seed=7, ends=range(100, 140)))
    both, stats = assess(ppo, rollout, SCORES, past)
    for name in ("old_logprobs", "old_values", "ref_logprobs", "rewards", "advantages", "returns"):
        values = getattr(both, name)
        torch.testing.assert_close(values[8:], values[:8], atol=1e-4, rtol=1e-4, msg=name)
    mask = rollout.response_mask
    torch.testing.assert_close(
        both.weights[8:][mask], torch.ones(int(mask.sum())), atol=1e-5, rtol=0
    )
    assert stats["replay/rows"] == 8
    assert stats["replay/kl_nats"] == pytest.approx(0, abs=1e-8)
    assert stats["replay/effective_share"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_weights_are_of_the_sampling_logprobs(tiny_model_dir, unfrozen):
    """The policy has moved; the ratio check of the first minibatch holds for all rows."""
    ppo = ppo_of(
        tiny_model_dir(layers=2),
        unfrozen=unfrozen,
        ratio_tolerance=1e-4,
        memory=memory_of(max_weight=1.05),
    )
    past = past_of(ppo, drift=0.02, ages=[1.0, 3.0] * 4)
    rollout = past.rollout
    with torch.no_grad():
        now = ppo.policy.score(rollout).logprobs
    mask = rollout.response_mask
    ratio = torch.exp(now - rollout.logprobs)[mask]
    fresh = sampled(ppo)
    both, stats = assess(ppo, fresh, SCORES, past)
    torch.testing.assert_close(
        both.weights[8:, : mask.shape[1]][mask], ratio.clamp(max=1.05), atol=1e-4, rtol=1e-4
    )
    assert stats["replay/ratio_max"] == pytest.approx(ratio.max().item(), rel=1e-3)
    assert ratio.max() > 1.05
    share = (ratio > 1.05).float().mean().item()
    assert stats["replay/truncated_share"] == pytest.approx(share, abs=0.03)
    assert stats["replay/weight_mean"] == pytest.approx(
        ratio.clamp(max=1.05).mean().item(), rel=1e-3
    )
    assert stats["replay/staleness_steps"] == 2
    assert stats["replay/kl_nats"] > 0
    assert (both.value_weights[8:] == 0).all(), "values are learnt from fresh rows"
    before = weights(ppo)
    stats = ppo_step(ppo, fresh, SCORES, past)
    assert stats["optim/steps"] == 4, "as many as without replay"
    assert not torch.equal(weights(ppo), before)


def test_a_mean_of_value_losses_is_the_fresh_rows(tiny_model_dir):
    """One minibatch of all rows: the value head moves as if there were no past rows."""
    moved = []
    for with_past in (False, True):
        ppo = ppo_of(
            tiny_model_dir(),
            optimizer="sgd",
            lr=0.1,
            epochs=1,
            minibatch_size=8,
            max_grad_norm=1e9,
            memory=memory_of(),
        )
        past = past_of(ppo) if with_past else None
        ppo_step(ppo, sampled(ppo), SCORES, past)
        moved.append(ppo.policy.value_head.weight.detach().clone())
    assert moved[0].abs().max() > 0
    torch.testing.assert_close(moved[1], moved[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_microbatches_add_up_with_past_rows(tiny_model_dir, unfrozen, size):
    settings = {"unfrozen": unfrozen, "optimizer": "sgd", "minibatch_size": 4, "lr": 0.1}
    outcomes = []
    for n in (None, size):
        ppo = ppo_of(tiny_model_dir(), microbatch_size=n, memory=memory_of(), **settings)
        past = past_of(ppo, drift=0.02)
        stats = without_times(ppo_step(ppo, sampled(ppo, ends=range(100, 140)), SCORES, past))
        outcomes.append((weights(ppo), stats))
    torch.testing.assert_close(outcomes[1][0], outcomes[0][0], atol=1e-6, rtol=1e-5)
    assert outcomes[1][1] == pytest.approx(outcomes[0][1], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_padding_changes_nothing_in_a_replay(tiny_model_dir, unfrozen):
    outcomes = []
    for left, right, pad in ((0, 0, PAD), (3, 2, 99)):
        ppo = ppo_of(
            tiny_model_dir(layers=2), unfrozen=unfrozen, optimizer="sgd", lr=0.1, memory=memory_of()
        )
        past = past_of(ppo, drift=0.02)
        wide = widened(past.rollout, left=left, right=right, pad_id=pad)
        stats = ppo_step(ppo, sampled(ppo), SCORES, replace(past, rollout=wide))
        outcomes.append((weights(ppo), without_times(stats)))
    torch.testing.assert_close(outcomes[1][0], outcomes[0][0], atol=1e-5, rtol=1e-4)
    assert outcomes[1][1] == pytest.approx(outcomes[0][1], rel=1e-3, abs=1e-5)


def test_each_minibatch_has_its_part_of_the_past(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir(), epochs=3, minibatch_size=4, memory=memory_of(0.25))
    past = past_of(ppo, prompts=PROMPTS[:2], scores=[0.0, 1.0])
    both, _ = assess(ppo, sampled(ppo), SCORES, past)
    batches = [batch for batch, _ in ppo.updates.minibatches(both, 8)]
    assert [len(batch.rollout) for batch in batches] == [5] * 6
    replayed = [b for batch in batches for b in (batch.value_weights[:, 0] == 0).tolist()]
    assert sum(replayed) == 6, "each of the two once an epoch"


UNWEIGHABLE = {
    "none": (lambda r: {"logprobs": None}, "8 past responses came without them"),
    "nan": (lambda r: {"logprobs": r.logprobs * math.nan}, "8 of 8 have none that is finite"),
}


@pytest.mark.parametrize(("change", "said"), UNWEIGHABLE.values(), ids=UNWEIGHABLE.keys())
def test_without_sampling_logprobs_nothing_is_replayed(tiny_model_dir, change, said):
    ppo = ppo_of(tiny_model_dir(), memory=memory_of())
    past, before = past_of(ppo), weights(ppo)
    past = replace(past, rollout=replace(past.rollout, **change(past.rollout)))
    with pytest.raises(UserError, match=said) as caught:
        ppo_step(ppo, sampled(ppo), SCORES, past)
    assert str(caught.value).startswith("ppo.memory.replay.share: ")
    assert torch.equal(weights(ppo), before)


def test_past_scores_must_be_finite(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir(), memory=memory_of())
    with pytest.raises(UserError, match="finite score each"):
        ppo_step(ppo, sampled(ppo), SCORES, past_of(ppo, scores=[math.nan] * 8))


def test_the_kl_controller_counts_fresh_rows_alone(tiny_model_dir):
    coefs = []
    for with_past in (False, True):
        control = {"type": "adaptive", "target": 0.1, "horizon": 20}
        ppo = ppo_of(tiny_model_dir(), kl_control=control, memory=memory_of())
        past = past_of(ppo, scores=[50.0] * 8)
        stats = ppo_step(ppo, sampled(ppo), SCORES, past if with_past else None)
        coefs.append((ppo.kl_control.value, stats["score/mean"], stats["response/length_tokens"]))
    assert coefs[0] == coefs[1]


def test_replay_of_good_responses_makes_them_likelier(tiny_model_dir):
    """All fresh scores alike: what is learnt is from the past, the good up and the bad down."""
    ppo = ppo_of(
        tiny_model_dir(), kl_coef=0.0, vf_coef=0.0, optimizer="sgd", lr=0.5, memory=memory_of()
    )
    past = past_of(ppo, scores=[3.0, -3.0] * 4)
    rollout = past.rollout
    fresh = sampled(ppo, seed=1)

    def likelihood():
        with torch.no_grad():
            return ppo.policy.score(rollout).logprobs.sum(1)

    before = likelihood()
    ppo_step(ppo, fresh, [0.01, -0.01] * 4, past)
    gained = likelihood() - before
    assert gained[::2].mean() > gained[1::2].mean() + 0.01


# -- from the memory --------------------------------------------------------------------------


def attempt(prompt, response, *, step=3, **changes):
    known = {
        "row": 0, "prompt": "", "response": "", "target": "", "prompt_ids": prompt,
        "response_ids": response, "logprobs": [-0.5 * (1 + i) for i in range(len(response))],
        "ended": response[-1] == EOS, "score": 1.5, "loss": 0.0, "step": step,
    }  # fmt: skip
    return Attempt(**known | changes)


def replayed_now(attempts):
    items = [{"number": i} for i in range(len(attempts))]
    return replayed(attempts, items, step=5, pad_id=PAD, device=torch.device("cpu"))


def test_attempts_become_rows_token_by_token():
    past = replayed_now([attempt([5, 6, 7], [8, EOS]), attempt([9], [10, 11, 12], step=1)])
    expected = rollout_of([[5, 6, 7], [9]], [[8, EOS], [10, 11, 12]])
    for name in ("prompt_ids", "prompt_mask", "response_ids", "response_mask", "ended"):
        found, wanted = getattr(past.rollout, name), getattr(expected, name)
        assert found.dtype == wanted.dtype and torch.equal(found, wanted), name
    assert past.rollout.logprobs.tolist() == [[-0.5, -1.0, 0.0], [-0.5, -1.0, -1.5]]
    assert past.rollout.logprobs.dtype == torch.float32
    assert past.ages == [2.0, 4.0]
    assert past.scores == [1.5, 1.5]


def test_an_attempt_without_its_logprobs_is_refused():
    with pytest.raises(UserError, match="1 of 2 were remembered without them") as caught:
        replayed_now([attempt([5], [8]), attempt([5], [8, 9], logprobs=[])])
    assert "ppo.memory.start" in str(caught.value)


# -- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "mini", "rows"), [(0.5, 4, 2), (0.25, 4, 1), (0.3, 8, 2)])
def test_rows_of_a_minibatch(share, mini, rows):
    config = hybrid_config(memory=memory_of(share), minibatch_size=mini)
    assert config.replayed_per_minibatch == rows
    assert list(config.split_sizes.values()) == [4, 8, mini, rows]
    off = hybrid_config(memory=memory_of(share) | {"type": "none"}, minibatch_size=mini)
    assert off.replayed_per_minibatch == 0
    assert list(off.split_sizes.values()) == [4, 8, mini]


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        (
            memory_of(0.1),
            "ppo.memory.replay.share: 0.1 of minibatch_size 4 is less than half a row",
        ),
        (memory_of(1.5), "ppo.memory.replay.share: should be less than or equal to 1, got 1.5"),
        (memory_of(max_weight=0.5), "ppo.memory.replay.max_weight: should be greater than or"),
        (memory_of(staleness=0), "ppo.memory.replay.staleness: should be greater than"),
        (memory_of(age=3), "ppo.memory.replay.age: no such option 'age'"),
        (
            {"type": "adaptive", "rehearsal": 0.0, "own_responses": {"share": 0.5}},
            "ppo.memory.own_responses.share: 0.5 of rehearsed rows, but there are none: set",
        ),
    ],
)
def test_mistakes_are_told_with_their_path(memory, said):
    steps = {"cycles": 0, "sft_steps_per_cycle": 1, "ppo_steps_per_cycle": 1}
    data = {**steps, "minibatch_size": 4, "memory": memory}
    with pytest.raises(ConfigError) as caught:
        build(HybridConfig, data, path="ppo")
    assert said in str(caught.value)


def test_past_responses_are_not_compared_within_prompts():
    data = {"cycles": 0, "sft_steps_per_cycle": 1, "ppo_steps_per_cycle": 1}
    data |= {"memory": memory_of(0.5), "responses_per_prompt": 4}
    with pytest.raises(ConfigError, match="memory.replay.share: a past response is compared with"):
        build(HybridConfig, data, path="ppo")


def test_rows_that_processes_can_not_share_are_refused_before_anything_loads():
    sizes = hybrid_config(memory=memory_of(0.25)).split_sizes
    problems = indivisible({f"ppo.{name}": size for name, size in sizes.items()}, 2)
    assert problems == [
        "ppo.memory.replay.share (rows of a minibatch): 1 can't be split among 2 processes: set a "
        "multiple of 2"
    ]


# -- in a run ---------------------------------------------------------------------------------


def trainer_of(folder, tokenizer, *, seed=3, **changes):
    memory = memory_of(0.5, staleness=2) | changes.pop("memory", {})
    unfrozen, lora = changes.pop("unfrozen", 1), changes.pop("lora", None)
    model = load_causal_lm(folder, dtype=changes.pop("dtype", "float32"))
    config = hybrid_config(**{"memory": memory, "kl_control": STATEFUL["kl_control"]} | changes)
    return HybridTrainer(
        model,
        tokenizer,
        examples(tokenizer, 11),
        config=config,
        num_layers_unfrozen=unfrozen,
        lora=lora,
        seed=seed,
        device="cpu",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"unfrozen": "all"},
        {"lora": {"r": 2}, "microbatch_size": 3},
        {"dtype": "bfloat16"},
        {"value_head": {"type": "branch", "num_layers": 1}},
    ],
    ids=str,
)
def test_each_step_replays_the_young(tiny_model_dir, tiny_tokenizer, changes):
    trainer = trainer_of(tiny_model_dir(layers=2), tiny_tokenizer, **changes)
    seen = [trainer.next_step("ppo") for _ in range(4)]
    assert [s["ppo/replay/rows"] for s in seen] == [0, 4, 4, 4]
    ages = [s["ppo/replay/staleness_steps"] for s in seen]
    assert ages[1] == 1 and all(1 <= age <= 2 for age in ages[2:])
    assert all(s.keys() == seen[0].keys() for s in seen), "curves need every step"
    assert seen[1]["ppo/replay/kl_nats"] > 0
    assert len(trainer.practice.memory.store) == 32, "what is replayed is not remembered again"


def test_sft_steps_do_not_age_a_response(tiny_model_dir, tiny_tokenizer):
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer, memory={"rehearsal": 0.0})
    for phase in ("ppo", "sft", "sft", "sft"):
        trainer.next_step(phase)
    assert trainer.next_step("ppo")["ppo/replay/staleness_steps"] == 1


def test_replay_looks_at_each_rows_references(tiny_model_dir, tiny_tokenizer):
    """A reference with a ``where`` finds the rows of the data that replayed prompts are of."""
    reference = {"model": str(tiny_model_dir(seed=1)), "kl_coef": 0.1, "where": {"number": [0, 3]}}
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer, references={"other": reference})
    trainer.next_step("ppo")
    past = trainer.practice.draw_past(PAD, trainer.policy.device)
    prompts = {tuple(e.prompt_ids): e.item for e in examples(tiny_tokenizer, 6)}
    for ids, mask, item in zip(
        past.rollout.prompt_ids, past.rollout.prompt_mask, past.items, strict=True
    ):
        assert item["number"] % 6 == prompts[tuple(ids[mask].tolist())]["number"]
    assert trainer.next_step("ppo")["ppo/replay/rows"] == 4


def test_a_killed_run_with_replay_ends_the_same(tmp_path, tiny_model_dir, tiny_tokenizer):
    own = {"share": 0.5, "min_quantile": 0.5}
    memory = memory_of(0.5, staleness=2) | {"own_responses": own}

    def job(name):
        return Job(tmp_path / name, tiny_model_dir(), tiny_tokenizer, memory=memory)

    whole = ends_the_same(job, 4, 7)
    replayed_rows = [row["ppo/replay/rows"] for _, row in whole[1] if "ppo/replay/rows" in row]
    assert replayed_rows == [0, 4, 4]
