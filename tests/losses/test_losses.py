"""The maths of SFT and PPO: published oracles, hand-worked numbers, and what padding may not do."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mht.losses import (
    AdaptiveKL,
    FixedKL,
    clip_fraction,
    entropy,
    explained_variance,
    gae,
    kl_estimate,
    leave_one_out,
    masked_mean,
    policy_loss,
    token_logprobs,
    token_rewards,
    value_loss,
    whiten,
)

numbers = st.floats(-5, 5, allow_nan=False, width=32)
GARBAGE = [1e30, -1e30, math.inf, -math.inf, math.nan]


def mask_of(*lengths, width):
    return torch.arange(width)[None] < torch.tensor(lengths)[:, None]


def close(x, expected, tolerance=1e-6):
    torch.testing.assert_close(
        x, torch.tensor(expected, dtype=x.dtype), atol=tolerance, rtol=tolerance
    )


# -- oracles ----------------------------------------------------------------------------------


def test_gae_oracle():
    x = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    advantages, returns = gae(x, x, torch.ones(1, 4, dtype=torch.bool), gamma=0.9, lam=0.95)
    close(returns, [[0.65792, 0.7695, 0.9, 1.0]], 5e-6)
    close(advantages, [[0.65792, 0.7695, 0.9, 0.0]], 5e-6)  # returns - values


def nemo(**changes):
    given = {
        "logprobs": [[-1.6, -0.8, -1.1, -1.4], [-0.7, -1.4, -0.9, -1.2]],
        "old_logprobs": [[-1.0, -1.1, -0.8, -1.3], [-0.9, -1.0, -1.2, -0.8]],
        "advantages": [[1.2, -0.7, 0.4, 2.0], [-1.1, 0.6, 1.5, -0.3]],
    }
    tensors = {k: torch.tensor(v, dtype=torch.float64) for k, v in given.items()} | changes
    tensors["logprobs"].requires_grad_()
    return tensors | {"response_mask": mask_of(3, 2, width=4)}


def test_policy_loss_oracle():
    """NVIDIA NeMo-RL's golden numbers of the clipped loss and its gradient."""
    batch = nemo()
    loss = policy_loss(**batch, clip_range=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(0.18627018364195694, abs=1e-7)
    expected = [
        [-0.131714792, 0.188980233, -0.0592654575, 0.0],
        [0.268708606, -0.0804384054, 0.0, 0.0],
    ]
    close(batch["logprobs"].grad, expected, 1e-7)


def test_dual_clip_bounds_the_loss_of_negative_advantages():
    logprobs = torch.tensor([[math.log(10.0), math.log(10.0)]], requires_grad=True)
    advantages, mask = torch.tensor([[-2.0, 2.0]]), torch.ones(1, 2, dtype=torch.bool)
    plain = policy_loss(logprobs, torch.zeros(1, 2), advantages, mask, clip_range=0.2)
    assert plain.item() == pytest.approx((20 - 2.4) / 2)  # ratio 10 counts in full against -2
    bounded = policy_loss(
        logprobs, torch.zeros(1, 2), advantages, mask, clip_range=0.2, dual_clip=3.0
    )
    assert bounded.item() == pytest.approx((6 - 2.4) / 2)  # -A * c = 6
    bounded.backward()
    close(logprobs.grad, [[0.0, 0.0]])


# -- hand-worked ------------------------------------------------------------------------------


def test_masked_mean():
    x = torch.tensor([[1.0, 2.0, 50.0], [6.0, 70.0, 80.0]])
    assert masked_mean(x, mask_of(2, 1, width=3)).item() == 3.0
    assert masked_mean(x, torch.zeros(2, 3, dtype=torch.bool)).item() == 0.0


def test_whiten_is_centred_and_scaled_under_the_mask():
    x, mask = torch.tensor([[1.0, 2.0, 3.0], [6.0, -9.0, 1e6]]), mask_of(3, 1, width=3)
    white = whiten(x, mask)
    std = math.sqrt(3.5)  # of 1, 2, 3, 6 around 3
    close(white, [[-2 / std, -1 / std, 0.0], [3 / std, 0.0, 0.0]], 1e-5)


def test_whiten_of_equal_values_is_zero():
    assert whiten(torch.full((2, 3), 7.0), mask_of(3, 2, width=3)).abs().max() == 0


def test_leave_one_out_by_hand():
    """The third prompt has one response: it is compared with the mean of the other five, 3."""
    scores = torch.tensor([1.0, 4.0, 2.0, 6.0, 9.0, 2.0])
    close(leave_one_out(scores, torch.tensor([0, 1, 0, 1, 2, 0])), [-1, -2, 0.5, 2, 6, 0.5])
    close(leave_one_out(torch.tensor([5.0]), torch.tensor([0])), [5.0])


@given(st.lists(st.tuples(st.integers(0, 3), numbers), min_size=2, max_size=12), numbers)
def test_what_all_responses_to_a_prompt_have_in_common_is_taken_out(rows, shift):
    prompts, scores = (torch.tensor(column) for column in zip(*rows, strict=True))
    scores, several = scores.double(), prompts.bincount(minlength=4)[prompts] > 1
    before = leave_one_out(scores, prompts)
    after = leave_one_out(scores + shift * prompts, prompts)
    torch.testing.assert_close(after[several], before[several])
    sums = torch.zeros(4).double().index_add(0, prompts[several], before[several])
    torch.testing.assert_close(sums, torch.zeros(4).double())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("k1", [0.5, -1.0]), ("k2", [0.125, 0.5]), ("k3", [0.1065307, 0.7182818])],
)
def test_kl_estimates_by_hand(kind, expected):
    """k3 = exp(-d) - 1 + d: e^-.5 - .5 = .10653 and e - 2 = .71828."""
    logprobs, ref = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    close(kl_estimate(logprobs, ref, kind), expected)


def test_unknown_kl_estimator():
    with pytest.raises(ValueError, match="'k4'"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
def test_k3_is_never_negative(pairs):
    a, b = torch.tensor(pairs).T
    assert (kl_estimate(a, b, "k3") >= 0).all()


def test_kl_estimates_agree_with_the_kl_they_estimate():
    p, q = (torch.tensor(x).log_softmax(-1) for x in ([1.0, 0.2, -1.0], [0.3, 0.4, -0.2]))
    exact = (p.exp() * (p - q)).sum()
    for kind in ("k1", "k3"):  # the unbiased ones, in expectation over p
        torch.testing.assert_close((p.exp() * kl_estimate(p, q, kind)).sum(), exact)


def test_token_rewards():
    """The score stands at the last real token (EOS included), the penalty everywhere."""
    kl = torch.tensor([[0.5, 1.0, 2.0], [3.0, 9.0, 9.0]])
    rewards = token_rewards(torch.tensor([1.0, -1.0]), kl, mask_of(3, 1, width=3), 0.1)
    close(rewards, [[-0.05, -0.1, 0.8], [-1.3, 0.0, 0.0]])


def test_an_empty_response_gets_no_reward():
    rewards = token_rewards(torch.tensor([5.0]), torch.ones(1, 2), mask_of(0, width=2), 0.1)
    close(rewards, [[0.0, 0.0]])


def test_gae_without_discount_is_return_minus_value():
    rewards, values = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.5, -1.0, 3.0]])
    mask = mask_of(3, width=3)
    advantages, returns = gae(rewards, values, mask, gamma=1.0, lam=1.0)
    close(returns, [[7.0, 6.0, 4.0]])
    close(advantages, [[6.5, 7.0, 1.0]])
    one_step, _ = gae(rewards, values, mask, gamma=0.5, lam=0.0)
    close(one_step, [[1 - 0.5 - 0.5, 2 + 1.5 + 1, 1.0]])


def test_value_loss_by_hand():
    values = torch.tensor([[1.0, 0.0, 0.3]], requires_grad=True)
    old, returns = torch.tensor([[0.0, 0.0, 0.2]]), torch.tensor([[1.0, 2.0, 1.2]])
    mask = mask_of(3, width=3)
    unclipped = value_loss(values, old, returns, mask, clip_range=None)
    assert unclipped.item() == pytest.approx(0.5 * (0 + 4 + 0.81) / 3)
    loss = value_loss(values, old, returns, mask, clip_range=0.2)  # 1.0 counts as 0.2
    assert loss.item() == pytest.approx(0.5 * (0.64 + 4 + 0.81) / 3)
    loss.backward()
    close(values.grad, [[0.0, -2 / 3, -0.3]])  # a value that left the range has no gradient


def test_clip_fraction_and_explained_variance():
    logprobs = torch.tensor([[0.0, 0.5, -0.5, 9.0]])
    mask = mask_of(3, width=4)
    share = clip_fraction(logprobs, torch.zeros(1, 4), mask, clip_range=0.2)
    assert share.item() == pytest.approx(2 / 3)
    returns = torch.tensor([[1.0, 2.0, 3.0, 99.0]])
    assert explained_variance(returns, returns, mask).item() == 1.0
    assert explained_variance(torch.full((1, 4), 5.0), returns, mask).item() == pytest.approx(0)


def test_entropy_and_logprobs():
    logits = torch.tensor([[math.log(1.0), math.log(3.0)]])
    by_hand = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert entropy(logits).item() == pytest.approx(by_hand)
    assert token_logprobs(logits, torch.tensor([1])).item() == pytest.approx(math.log(0.75))
    halved = token_logprobs(logits, torch.tensor([1]), temperature=0.5)  # odds squared, 1 : 9
    assert halved.item() == pytest.approx(math.log(0.9))
    assert entropy(logits, temperature=1e6).item() == pytest.approx(math.log(2))


def test_logprobs_equal_log_softmax():
    logits, tokens = torch.randn(2, 5, 11), torch.randint(11, (2, 5))
    direct = functional.log_softmax(logits / 0.7, -1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(token_logprobs(logits, tokens, 0.7), direct)


def test_adaptive_kl():
    control = AdaptiveKL(0.2, target=6.0, horizon=1000)
    control.update(kl=6.3, n=100)  # 5% over: 1 + 0.05 * 0.1
    assert control.value == pytest.approx(0.2 * 1.005)
    control.update(kl=-50.0, n=100)  # far under: clipped to -0.2
    assert control.value == pytest.approx(0.2 * 1.005 * 0.98)
    control.update(kl=6.0, n=100)
    assert control.value == pytest.approx(0.2 * 1.005 * 0.98)


def test_fixed_kl_stays():
    control = FixedKL(0.2)
    control.update(kl=100.0, n=1000)
    assert control.value == 0.2


# -- padding ----------------------------------------------------------------------------------


@st.composite
def padded_batches(draw):
    """Two (B, R) tensors that differ at padding only, and their mask."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    lengths = draw(st.lists(st.integers(1, width), min_size=rows, max_size=rows))
    size = rows * width
    values = draw(st.lists(numbers, min_size=4 * size, max_size=4 * size))
    clean = torch.tensor(values, dtype=torch.float32).view(4, rows, width)
    mask = mask_of(*lengths, width=width)
    dirty = torch.where(mask, clean, draw(st.sampled_from(GARBAGE)))
    return clean, dirty, mask


def everything(x, mask):
    """Every function of the module on four (B, R) tensors."""
    logprobs, old, advantages, values = (row.clone().requires_grad_() for row in x)
    a = policy_loss(logprobs, old.detach(), advantages.detach(), mask, clip_range=0.2)
    b = value_loss(values, old.detach(), advantages.detach(), mask, clip_range=0.3)
    (a + b).backward()
    plain = x.detach()
    rewards = token_rewards(torch.arange(len(mask)).float(), plain[0], mask, 0.1)
    return [
        a.detach(),
        b.detach(),
        logprobs.grad,
        values.grad,
        rewards,
        masked_mean(plain[0], mask),
        whiten(plain[1], mask),
        *gae(plain[2], plain[3], mask, gamma=0.99, lam=0.9),
        clip_fraction(plain[0], plain[1], mask, clip_range=0.2),
        explained_variance(plain[3], plain[2], mask),
    ]


@settings(deadline=None, max_examples=60)
@given(padded_batches())
def test_padding_changes_nothing(batch):
    clean, dirty, mask = batch
    for a, b in zip(everything(clean, mask), everything(dirty, mask), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert torch.isfinite(b).all()


@settings(deadline=None, max_examples=30)
@given(padded_batches(), st.integers(1, 4))
def test_more_padding_changes_nothing(batch, extra):
    clean, _, mask = batch
    wide, wide_mask = functional.pad(clean, (0, extra), value=3.0), functional.pad(mask, (0, extra))
    width = mask.shape[1]
    for a, b in zip(everything(clean, mask), everything(wide, wide_mask), strict=True):
        torch.testing.assert_close(a, b[..., :width] if b.dim() else b)
