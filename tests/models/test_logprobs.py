"""Log-probabilities from hidden states, with their gradients, and packed weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mht.models import logprobs as head_module
from mht.models.fast import packed as packed_module
from mht.models.fast.packed import pack, packed_linear, packed_linears
from mht.models.hf.model import has_plain_head
from mht.models.logprobs import linear_logprobs
from tests.support.training import KINDS, model_of

TEMPERATURE = 0.7


def inputs(*, count=5, width=4, vocabulary=11, bias=False, head_trains=False):
    torch.manual_seed(0)
    hidden = torch.randn(count, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, width, dtype=torch.float64, requires_grad=head_trains)
    offset = torch.randn(vocabulary, dtype=torch.float64, requires_grad=head_trains)
    tokens = torch.randint(vocabulary, (count,))
    return hidden, weight, offset if bias else None, tokens


def direct(hidden, weight, bias, tokens):
    logits = functional.linear(hidden, weight, bias) / TEMPERATURE
    distribution = torch.distributions.Categorical(logits=logits)
    return distribution.log_prob(tokens), distribution.entropy()


@pytest.fixture
def small_chunks(monkeypatch):
    """So that five rows are several visits."""
    monkeypatch.setattr(head_module, "_chunk_rows", lambda device, vocabulary: 2)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("head_trains", [False, True])
def test_values_are_those_of_the_whole_softmax(bias, head_trains):
    args = inputs(bias=bias, head_trains=head_trains)
    got = linear_logprobs(*args, temperature=TEMPERATURE, with_entropy=True)
    for value, expected in zip(got, direct(*args), strict=True):
        torch.testing.assert_close(value, expected)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("head_trains", [False, True])
def test_gradients_are_right(bias, head_trains, with_entropy):
    hidden, weight, offset, tokens = inputs(bias=bias, head_trains=head_trains)

    def figures(hidden, weight, offset):
        logprobs, entropies = linear_logprobs(
            hidden, weight, offset, tokens, temperature=TEMPERATURE, with_entropy=with_entropy
        )
        return (logprobs, entropies) if with_entropy else logprobs

    assert torch.autograd.gradcheck(figures, (hidden, weight, offset))


def test_an_impossible_token_costs_the_others_nothing():
    hidden, weight, _, tokens = inputs(bias=False)
    bias = torch.zeros(len(weight), dtype=torch.float64)
    impossible = next(i for i in range(len(weight)) if i not in tokens)
    bias[impossible] = -torch.inf
    logprobs, entropies = linear_logprobs(hidden, weight, bias, tokens, with_entropy=True)
    (logprobs.sum() + entropies.sum()).backward()
    assert torch.isfinite(entropies).all()
    assert torch.isfinite(hidden.grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_heads_that_squash_their_logits_are_found_out(tiny_model_dir, kind):
    assert has_plain_head(model_of(tiny_model_dir(kind))) == (kind != "gemma2")


# -- packed weights ---------------------------------------------------------------------------


@pytest.fixture
def pack_all(monkeypatch):
    monkeypatch.setattr(packed_module, "SMALLEST", 1)
    if pack(torch.randn(8, 8)) is None:
        pytest.skip("this build of torch packs no weights")


@pytest.mark.usefixtures("pack_all")
@pytest.mark.parametrize("shape", [(7, 24), (2, 3, 24), (1, 24)])
@pytest.mark.parametrize("transpose", [False, True])
@torch.no_grad()
def test_a_packed_product_is_the_product(shape, transpose):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(40, 24), torch.randn(40), torch.randn(shape)
    stored = weight.t().contiguous() if transpose else weight
    for b in (None, bias):
        got = packed_linear(x, pack(stored, transpose=transpose), b)
        torch.testing.assert_close(got, functional.linear(x, weight, b), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("pack_all")
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_on_packed_weights_says_the_same(tiny_model_dir, kind):
    model = model_of(tiny_model_dir(kind))
    ids = torch.arange(12).view(2, 6) + 20
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        with packed_linears(model):
            assert any("forward" in vars(m) for m in model.modules())
            packed = model(input_ids=ids).logits
        assert not any("forward" in vars(m) for m in model.modules())
        torch.testing.assert_close(packed, plain, atol=1e-5, rtol=1e-5)
        with packed_linears(model):
            assert torch.equal(model(input_ids=ids).logits, packed)


@pytest.mark.usefixtures("pack_all")
@torch.no_grad()
def test_training_between_two_uses_is_seen():
    """The fused optimiser does not bump a tensor's version; ``.data`` never does."""
    layer = nn.Linear(16, 16)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    x = torch.randn(4, 16)
    with packed_linears(layer):
        layer(x)
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    layer.weight.data[0, 0] += 1
    with packed_linears(layer):
        torch.testing.assert_close(layer(x), functional.linear(x, layer.weight, layer.bias))


@pytest.mark.usefixtures("pack_all")
@torch.no_grad()
def test_frozen_weights_are_packed_once():
    weight = torch.randn(16, 16)
    first = pack(weight)
    assert pack(weight) is first
    weight += 1
    assert pack(weight) is not first


@pytest.mark.usefixtures("pack_all")
def test_packed_weights_are_refused_where_gradients_flow():
    with pytest.raises(RuntimeError, match="no_grad"), packed_linears(nn.Linear(4, 4)):
        pass
