"""The fitted critic: least squares by hand, no response judged by itself, state, PPO with it."""

from dataclasses import astuple

import pytest
import torch
from torch.testing import assert_close

from mht.models.policy import Policy
from mht.models.value.files import VALUE_HEAD_FILE
from mht.models.value.heads import LinearHead
from mht.models.value.ridge import Fit, Moments
from tests.support.ppo import PROMPTS, SCORES, assess, ppo_on, ppo_step, sampled
from tests.support.training import critic, model_of, responses_of, rollout_of

RIDGE = critic(type="ridge", shrinkage=1.0, decay=0.5)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def critic_of(width=3, **changes):
    config = RIDGE.model_copy(update=changes)
    return config.fit(LinearHead(width).requires_grad_(False))


# -- least squares ------------------------------------------------------------------------------


def test_a_line_by_hand():
    """x of mean 1 and spread 1, y = 1 + 2 x: of the slope n / (n + shrinkage) is left."""
    known = Moments.of(torch.tensor([[0.0], [2.0], [0.0], [2.0]]), torch.tensor([1.0, 5, 1, 5]))
    for shrinkage, slope in ((1e-12, 2.0), (4.0, 1.0), (12.0, 0.5)):
        weight, bias = Fit.to(known, shrinkage).line
        assert_close(weight, torch.tensor([slope], dtype=torch.float64))
        assert_close(bias, torch.tensor(3.0 - slope, dtype=torch.float64))  # through the means


def test_little_shrinkage_is_least_squares():
    x, y = numbers(40, 5) * torch.tensor([1e-2, 1, 1, 30, 1]) + 7, numbers(40, seed=1)
    weight, bias = Fit.to(Moments.of(x, y), 1e-9).line
    ones = torch.ones(40, 1, dtype=torch.float64)
    best = torch.linalg.lstsq(torch.cat([x, ones], 1), y[:, None]).solution[:, 0]
    assert_close(torch.cat([weight, bias[None]]), best, atol=1e-6, rtol=1e-6)


def test_units_of_a_feature_do_not_matter():
    x, y = numbers(30, 4), numbers(30, seed=1)
    units = torch.tensor([1e-3, 1.0, 50.0, -2.0], dtype=torch.float64)
    weight, bias = Fit.to(Moments.of(x, y), 10.0).line
    other, its_bias = Fit.to(Moments.of(x * units + 3, y), 10.0).line
    assert_close(x @ weight + bias, (x * units + 3) @ other + its_bias)


def test_a_feature_that_never_varies_says_nothing():
    x, y = numbers(30, 3), numbers(30, seed=1)
    x[:, 1] = 8.1
    weight, bias = Fit.to(Moments.of(x, y), 1.0).line
    assert weight[1] == 0
    without, same = Fit.to(Moments.of(x[:, [0, 2]], y), 1.0).line
    assert_close(torch.cat([weight[[0, 2]], bias[None]]), torch.cat([without, same[None]]))


def test_a_single_state_gives_its_own_return():
    weight, bias = Fit.to(Moments.of(numbers(1, 3), torch.tensor([0.7])), 1.0).line
    assert not weight.any()
    assert bias == pytest.approx(0.7)


def test_moments_add_up():
    x, y = numbers(10, 3), numbers(10, seed=1)
    whole = Moments.of(x, y)
    for a, b in zip(
        astuple(Moments.of(x[:4], y[:4]) + Moments.of(x[4:], y[4:])), astuple(whole), strict=True
    ):
        assert_close(a, b)
    twice = Moments.of(torch.cat([x, x]), torch.cat([y, y]))
    for a, b in zip(astuple(whole.scaled(2.0)), astuple(twice), strict=True):
        assert_close(a, b)


# -- the critic ---------------------------------------------------------------------------------


def rollout_like(rows=8, width=5, features=3, seed=0):
    lengths = torch.tensor([1 + (3 * i + seed) % width for i in range(rows)])
    mask = torch.arange(width)[None] < lengths[:, None]
    hidden = numbers(rows, width, features, seed=seed).float()
    returns = hidden @ torch.tensor([1.0, -2.0, 0.5]) + 3
    return hidden, returns, mask


def test_no_response_is_judged_by_what_became_of_it():
    """Whatever its own returns, its values stay; those of the others do not."""
    hidden, returns, mask = rollout_like()
    first = rollout_like(seed=1)

    def values(returns):
        critic = critic_of()
        critic.values(*first)
        return critic.values(hidden, returns, mask)

    before = values(returns)
    for row in range(len(mask)):
        changed = returns.clone()
        changed[row] += 100
        after = values(changed)
        assert_close(after[row], before[row], atol=1e-4, rtol=0)
        others = mask.clone()
        others[row] = False
        assert ((after - before)[others].abs() > 1e-2).all()


@pytest.mark.parametrize("groups", [[0, 0, 0, 0, 1, 1, 1, 1], [2, 0, 1, 0, 2, 2, 1, 2]])
def test_no_group_is_judged_by_what_became_of_it(groups):
    """A fit without the whole group, as if solved again; groups may differ in size."""
    hidden, returns, mask = rollout_like()
    returns = returns + numbers(*returns.shape, seed=9).float()
    groups = torch.tensor(groups)
    found = critic_of(shrinkage=1e-6).values(hidden, returns, mask, groups)
    for group in range(int(groups.max()) + 1):
        own = groups == group
        rest = mask & ~own[:, None]
        weight, bias = Fit.to(Moments.of(hidden[rest], returns[rest]), 1e-9).line
        expected = hidden[own].double() @ weight + bias
        assert_close(
            found[own], torch.where(mask[own], expected, 0.0).float(), atol=1e-3, rtol=1e-3
        )
    assert not found[~mask].any()


def test_a_group_each_is_what_no_groups_are():
    rollout = rollout_like()
    groups = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert_close(critic_of().values(*rollout, groups), critic_of().values(*rollout))


def test_each_is_judged_by_a_fit_to_all_others():
    """The same number as from leaving its states out and solving again, in the same units."""
    hidden, returns, mask = rollout_like()
    hidden, returns = hidden.double(), returns.double() + numbers(*returns.shape, seed=9)
    fit = Fit.to(Moments.of(hidden[mask], returns[mask]), 3.0)
    found = fit.without_own(hidden, returns, mask)
    penalty = torch.diag(torch.tensor([3.0, 3.0, 3.0, 0.0], dtype=torch.float64))
    for row in range(len(mask)):
        others = mask.clone()
        others[row] = False
        x, own = (
            torch.cat([(hidden[m] - fit.mean) * fit.unit, torch.ones(int(m.sum()), 1)], 1)
            for m in (others, mask & ~others)
        )
        coefficients = torch.linalg.solve(x.T @ x + penalty, x.T @ returns[others])
        assert_close(found[row][mask[row]], own @ coefficients)


def test_it_finds_a_linear_value_and_padding_is_zero():
    critic = critic_of(shrinkage=1e-6)
    hidden, returns, mask = rollout_like()
    found = critic.values(hidden, returns, mask)
    assert_close(found[mask], returns[mask], atol=1e-4, rtol=1e-4)
    assert not found[~mask].any()
    others, theirs, _ = rollout_like(seed=5)
    assert_close(critic.head(others), theirs, atol=1e-4, rtol=1e-4)


def test_padding_is_not_learnt_from():
    hidden, returns, mask = rollout_like()
    odd_hidden, odd_returns = (
        torch.where(mask[..., None], hidden, 1e6),
        torch.where(mask, returns, -1e6),
    )
    a, b = critic_of(), critic_of()
    assert torch.equal(a.values(hidden, returns, mask), b.values(odd_hidden, odd_returns, mask))
    assert torch.equal(a.head.weight, b.head.weight)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_past_rollouts_fade(decay):
    """Of two rollouts, what is known is the second and this share of the first."""
    critic = critic_of(decay=decay)
    first, second = rollout_like(), rollout_like(seed=1)
    second = (second[0], -second[1], second[2])
    known = []
    for hidden, returns, mask in (first, second):
        critic.values(hidden, returns, mask)
        known.append(Moments.of(hidden[mask], returns[mask]))
    weight, bias = Fit.to(known[0].scaled(decay) + known[1], 1.0).line
    assert_close(critic.head.weight[0], weight.float())
    assert_close(critic.head.bias[0], bias.float())


def test_a_lone_response_has_nothing_but_the_past():
    critic = critic_of()
    hidden, returns, mask = rollout_like(rows=1)
    assert not critic.values(hidden, returns, mask).any()  # the head says 0 at first
    head = critic.head(hidden)
    assert head.any()
    expected = torch.where(mask, head, 0.0)
    assert_close(critic.values(hidden, returns + 50, mask), expected)


def test_state_is_all_that_it_knows():
    critic, again = critic_of(), critic_of()
    again.load_state_dict(critic.state_dict())  # of one that knows nothing
    assert again.past is None
    critic.values(*rollout_like())
    again.load_state_dict({k: v.clone() for k, v in critic.state_dict().items()})
    assert torch.equal(again.head.weight, critic.head.weight)
    later = rollout_like(seed=2)
    assert torch.equal(again.values(*later), critic.values(*later))


# -- in PPO -------------------------------------------------------------------------------------


def test_no_loss_trains_it_and_it_knows_prompts_at_once(tiny_model_dir):
    """The score is the prompt's alone. A head that a loss trains says 0 of the first rollout."""
    config = critic(type="ridge", shrinkage=10.0)
    policy = Policy(model_of(tiny_model_dir()), 1, value_head=config)
    head = set(policy.value_head.parameters())
    assert not head & set(policy.parameters())
    ppo = ppo_on(policy, kl_coef=0.0, value_head=config)
    by_prompt = [float(p[0] == 50) for p in PROMPTS]
    stats = ppo_step(ppo, sampled(ppo, prompts=PROMPTS * 4), by_prompt * 4)
    assert stats["value/explained_variance"] > 0.3
    assert policy.value_head.weight.any()
    assert all(p.grad is None for p in head)


def test_kept_hidden_states_are_those_of_a_pass(tiny_model_dir):
    """A rollout from elsewhere, without them, is judged as the same one that was sampled here."""
    policies = [Policy(model_of(tiny_model_dir()), 1, value_head=RIDGE) for _ in range(2)]
    ours, theirs = (ppo_on(policy, value_head=RIDGE) for policy in policies)
    rollout = sampled(ours)
    assert rollout.hidden is not None
    bare = rollout_of(PROMPTS, responses_of(rollout))
    assert bare.hidden is None
    kept, _ = assess(ours, rollout, SCORES)
    found, _ = assess(theirs, bare, SCORES)
    assert kept.old_values.any()
    assert_close(found.old_values, kept.old_values, atol=1e-3, rtol=1e-3)


def test_its_file_is_that_of_a_linear_head(tiny_model_dir, tiny_tokenizer, tmp_path):
    policy = Policy(model_of(tiny_model_dir()), 1, value_head=RIDGE)
    ppo = ppo_on(policy, value_head=RIDGE)
    ppo_step(ppo, sampled(ppo), SCORES)
    policy.save(tmp_path, tiny_tokenizer)
    assert (tmp_path / VALUE_HEAD_FILE).is_file()
    for config in (critic(), RIDGE):
        again = Policy(model_of(tiny_model_dir()), 1, value_head=config)
        assert again.load_value_head(tmp_path)
        assert torch.equal(again.value_head.weight, policy.value_head.weight)
