"""The n-gram model against numbers worked by hand, and as a strategy."""

import math

import pytest
import torch

from mht.core.errors import UserError
from mht.generation.decoding import NGramSampling, generate
from mht.generation.decoding.ngram_model import NGram
from mht.generation.sampling.rollout import Responder
from tests.support.training import EOS, TokenShare, examples, model_of

A, B, C, D = range(4)
# "a b a c" after a START: bigrams Sa, ab, ba, ac, once each. Kinds of bigrams that end in a, b, c:
# 2, 1, 1 of 4. With a discount of 1/2, and 1/2 * 3/4 of the unigrams' mass for all 4 tokens alike:
UNIGRAMS = [1.5 / 4 + 0.375 / 4, 0.5 / 4 + 0.375 / 4, 0.5 / 4 + 0.375 / 4, 0.375 / 4]
# after a: b and c once of 2, and 1/2 * 2/2 for the unigrams
AFTER_A = [u / 2 + own for u, own in zip(UNIGRAMS, (0, 0.25, 0.25, 0), strict=True)]


@pytest.fixture
def bigrams():
    return NGram.fit([[A, B, A, C]], vocabulary=4, order=2, discount=0.5)


def test_hand_worked_bigrams(bigrams):
    assert UNIGRAMS == [0.46875, 0.21875, 0.21875, 0.09375]
    for context, expected in (([A], AFTER_A), ([B, A], AFTER_A), ([C], UNIGRAMS), ([D], UNIGRAMS)):
        assert bigrams.probabilities(context).tolist() == pytest.approx(expected)
    # after b: a once of 1, and 1/2 for the unigrams
    after_b = [u / 2 + own for u, own in zip(UNIGRAMS, (0.5, 0, 0, 0), strict=True)]
    assert bigrams.probabilities([B]).tolist() == pytest.approx(after_b)


def test_hand_worked_logprobs_and_perplexity(bigrams):
    # START a: a once of 1; then a b, and b b, which was never seen
    chances = [0.5 + 0.46875 / 2, 0.25 + 0.21875 / 2, 0.21875 / 2]
    expected = [math.log(p) for p in chances]
    assert bigrams.logprobs([A, B, B]) == pytest.approx(expected)
    assert bigrams.logprobs([A, B, B], start=2) == pytest.approx(expected[2:])
    assert bigrams.perplexity([[A, B, B]]) == pytest.approx(math.prod(chances) ** (-1 / 3))
    assert bigrams.perplexity([[A, B], [A]]) == pytest.approx(
        (chances[0] ** 2 * chances[1]) ** (-1 / 3)
    )


def test_the_highest_order_counts_how_often_the_lower_ones_in_how_many_contexts():
    model = NGram.fit([[A, B, A, B, A, C]], vocabulary=4, order=2, discount=0.5)
    # a b twice, a c once; kinds: Sa, ab, ba, ac: the unigrams are as above
    expected = [1.0 / 3 * u + own for u, own in zip(UNIGRAMS, (0, 0.5, 0.5 / 3, 0), strict=True)]
    assert model.probabilities([A]).tolist() == pytest.approx(expected)


def test_an_order_of_one_has_no_context():
    model = NGram.fit([[A, A, B]], vocabulary=3, order=1, discount=0.6)
    expected = [1.4 / 3 + 0.4 / 3, 0.4 / 3 + 0.4 / 3, 0.4 / 3]
    for context in ([], [B], [A, B]):
        assert model.probabilities(context).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_are_ones_whatever_the_context(order):
    generator = torch.Generator().manual_seed(order)
    texts = torch.randint(0, 9, (30, 12), generator=generator).tolist()
    model = NGram.fit(texts, vocabulary=12, order=order)
    for context in ([], [1], [11, 3], texts[0][:7], [10] * 6):
        whole = model.probabilities(context)
        assert whole.sum().item() == pytest.approx(1)
        assert (whole > 0).all()
        each = [math.exp(model.logprobs([*context, t], len(context))[0]) for t in range(12)]
        assert each == pytest.approx(whole.tolist())
    assert model.perplexity(texts) < 12  # of what it has seen


def test_a_longer_context_helps_where_there_is_one():
    texts = [[0, 1, 2, 0, 1, 3] * 3] * 2  # what follows 1 depends on what stands two before
    perplexities = [
        NGram.fit(texts, vocabulary=4, order=order).perplexity(texts) for order in (1, 2, 4)
    ]
    assert perplexities[0] > perplexities[1] > perplexities[2]


def test_what_is_no_ngram_model():
    for options in ({"order": 0}, {"discount": 1.0}, {"discount": 0.0}):
        with pytest.raises(UserError, match="an order of at least 1 and a discount"):
            NGram.fit([[1]], vocabulary=4, **options)
    with pytest.raises(UserError, match="no token"):
        NGram.fit([[]], vocabulary=4)


# -- as a strategy ----------------------------------------------------------------------------


@pytest.fixture
def responder(tiny_model_dir, tiny_tokenizer):
    return Responder(
        model_of(tiny_model_dir()), tiny_tokenizer, {"response_tokens": 9, "temperature": 1.0}
    )


def test_responses_follow_the_model(responder, tiny_tokenizer):
    rows = examples(tiny_tokenizer, 3)
    text = tiny_tokenizer("the film is")["input_ids"]
    model = NGram.fit(
        [[*text, 40, EOS]] * 3 + [[*text, 41, EOS]], vocabulary=len(tiny_tokenizer), order=3
    )
    many = [rows[0]] * 400
    found = generate(NGramSampling(model), responder, many, reward=TokenShare())
    chances = model.probabilities(rows[0].prompt_ids)
    for token in (40, 41):
        share = sum(ids[0] == token for ids in found.tokens) / 400
        assert share == pytest.approx(float(chances[token]), abs=0.1)
    assert len(found.scored.score) == 400
    assert all(EOS not in ids[:-1] and len(ids) <= 9 for ids in found.tokens)
    assert {ids[-1] == EOS for ids in found.tokens} == {True, False}
    back = generate(NGramSampling(model), responder, many[:20] + rows[1:], batch_size=3)
    assert back.tokens[:20] == found.tokens[:20]


def test_greedy_responses_are_the_likeliest(responder, tiny_tokenizer):
    responder.decoding["temperature"] = 0
    row = examples(tiny_tokenizer, 1)[0]
    target = row.target_ids[:8]
    model = NGram.fit([[*row.prompt_ids, *target, EOS]], vocabulary=len(tiny_tokenizer), order=5)
    (tokens,) = generate(NGramSampling(model), responder, [row]).tokens
    assert tokens == [*target, EOS][:9]
