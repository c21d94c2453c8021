"""Sampling options, seeds per row, best-of-n, and what every strategy has in common."""

import itertools
import math

import pytest
import torch

from mht.core.errors import UserError
from mht.generation.decoding import BestOfN, Sampling, generate, prompt_examples
from mht.generation.decoding.best_of import kl_bound
from mht.generation.sampling.draw import draw, truncate_logits
from mht.generation.sampling.rollout import Responder
from mht.generation.sampling.seeds import RowSeeds, copies, row_seeds
from tests.support.training import EOS, PAD, TokenShare, examples, model_of, responses_of

TOKENS = 8


@pytest.fixture
def responder(tiny_model_dir, tiny_tokenizer):
    model = model_of(tiny_model_dir())
    return Responder(model, tiny_tokenizer, {"response_tokens": TOKENS, "temperature": 1.0})


# -- min-p ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("min_p", "kept"), [(0.0, {0, 1, 2, 3}), (0.3, {1, 2, 3}), (0.6, {1, 3}), (1.0, {1})]
)
def test_min_p_keeps_what_is_near_the_likeliest(min_p, kept):
    logits = torch.log(torch.tensor([[0.1, 0.4, 0.2, 0.3]]))
    left = truncate_logits(logits, min_p=min_p)
    assert set(torch.isfinite(left)[0].nonzero().flatten().tolist()) == kept
    drawn = draw(logits.repeat(2000, 1), temperature=1.0, min_p=min_p, generator=torch.Generator())
    assert set(drawn.tokens.tolist()) == kept


def test_min_p_is_of_the_distribution_at_the_temperature():
    """.4 and .1 are 4 to 1; at temperature 2 they are 2 to 1."""
    logits = torch.log(torch.tensor([[0.4, 0.1, 0.3, 0.2]])).repeat(2000, 1)
    hot = draw(logits, temperature=2.0, min_p=0.45, generator=torch.Generator())
    cold = draw(logits, temperature=1.0, min_p=0.45, generator=torch.Generator())
    assert set(hot.tokens.tolist()) == {0, 1, 2, 3}
    assert set(cold.tokens.tolist()) == {0, 2, 3}
    torch.testing.assert_close(cold.logprobs, logits.gather(1, cold.tokens[:, None])[:, 0])


# -- seeds ------------------------------------------------------------------------------------


def test_the_generator_is_splitmix64():
    """The published outputs for the seed 1234567."""
    numbers = RowSeeds([1234567, 5])
    got = [float(numbers.uniform(2)[0]) for _ in range(4)]
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
    ]
    assert got == [(x >> 11) / 2**53 for x in published]


def test_numbers_are_uniform_and_rows_are_not_alike():
    numbers = RowSeeds(row_seeds(0, [[i] for i in range(500)]))
    drawn = torch.cat([numbers.uniform(500) for _ in range(200)], 1)
    assert drawn.min() >= 0 and drawn.max() < 1
    shares = torch.histc(drawn, 20, 0, 1) / drawn.numel()
    assert (shares - 0.05).abs().max() < 5 * math.sqrt(0.05 * 0.95 / drawn.numel())
    between = torch.corrcoef(drawn)[~torch.eye(500, dtype=torch.bool)]
    along = torch.corrcoef(drawn.T)[~torch.eye(200, dtype=torch.bool)]
    assert between.abs().max() < 6 / math.sqrt(200)
    assert along.abs().max() < 6 / math.sqrt(500)


def test_part_of_the_rows_goes_on_where_it_was():
    whole, parts = RowSeeds([1, 2, 3]), RowSeeds([1, 2, 3])
    expected = [whole.uniform(3) for _ in range(3)]
    parts.uniform(3)
    some = parts.of(torch.tensor([2, 0]))
    assert torch.equal(some.uniform(2), expected[1][[2, 0]])
    assert torch.equal(some.of(torch.tensor([0])).uniform(1), expected[2][[2]])
    assert torch.equal(parts.of(torch.tensor([1])).uniform(1), expected[1][[1]])
    with pytest.raises(ValueError, match="3 rows have a seed, 2 want"):
        parts.uniform(2)


def test_seeds_follow_prompts_and_not_their_places():
    a, b, again = row_seeds(0, [[5, 6], [7], [5, 6]])
    assert row_seeds(0, [[7], [5, 6]]) == [b, a]
    assert len({a, b, again, row_seeds(1, [[7]])[0]}) == 4
    assert copies([a, b], 2)[::2] == [a, b] and len(set(copies([a, b], 3))) == 6
    assert copies([a, b], 3)[:2] == copies([a], 2)


def test_a_response_does_not_depend_on_its_batch(responder, tiny_tokenizer):
    rows = examples(tiny_tokenizer, 6)
    whole = generate(Sampling(), responder, rows, seed=3)
    parts = generate(Sampling(), responder, rows, seed=3, batch_size=4)
    back = generate(Sampling(), responder, rows[::-1], seed=3, batch_size=2)
    assert whole.tokens == parts.tokens == back.tokens[::-1]
    assert whole.computed_tokens == parts.computed_tokens == sum(map(len, whole.tokens))
    assert generate(Sampling(), responder, rows, seed=4).tokens != whole.tokens
    twice = generate(Sampling(), responder, [rows[0], rows[0]], seed=3)
    assert twice.tokens[0] == whole.tokens[0] != twice.tokens[1]


def test_every_row_may_have_a_limit_of_its_own(responder, tiny_tokenizer):
    from mht.data.examples.example import collate_prompts
    from mht.generation.sampling.decode import sample

    ids, mask = collate_prompts(examples(tiny_tokenizer, 4), PAD)
    limits = torch.tensor([1, 8, 3, 5])
    options = {"response_tokens": 8, "eos_ids": {EOS}, "pad_id": PAD}
    seeds = [1, 2, 3, 4]
    free = sample(responder.model, ids, mask, generator=RowSeeds(seeds), **options)
    cut = sample(responder.model, ids, mask, generator=RowSeeds(seeds), limits=limits, **options)
    assert responses_of(cut) == [
        row[:limit] for row, limit in zip(responses_of(free), limits.tolist(), strict=True)
    ]
    for row, end in zip(responses_of(cut), cut.ended.tolist(), strict=True):
        assert (row[-1] == EOS) == end


# -- best-of-n --------------------------------------------------------------------------------


def test_kl_bound_by_hand():
    assert kl_bound(1) == 0
    assert kl_bound(2) == pytest.approx(0.6931 - 0.5, abs=1e-4)
    assert kl_bound(16) == pytest.approx(2.7726 - 0.9375, abs=1e-4)


def test_kl_bound_is_one():
    """Two responses of 3/4 and 1/4, the second one better: its share is 1 - (3/4)^n."""
    for n in (1, 2, 4, 16):
        worse = 0.75**n
        kl = worse * math.log(worse / 0.75) + (1 - worse) * math.log((1 - worse) / 0.25)
        assert kl <= kl_bound(n) + 1e-12


def test_best_of_n_takes_the_best(responder, tiny_tokenizer):
    rows, reward = examples(tiny_tokenizer, 5), TokenShare()
    found = generate(BestOfN(4), responder, rows, reward=reward, seed=1, batch_size=2)
    assert [len(d) for d in found.drawn] == [4] * 5
    for sample, score, drawn, scores, row in zip(
        found.samples, found.scored.score, found.drawn, found.drawn_scores, rows, strict=True
    ):
        assert scores == reward.score(drawn)
        assert score == max(scores)
        assert sample == drawn[scores.index(score)]
        assert sample.prompt == row.prompt and sample.target == row.target
        assert len({s.response for s in drawn}) > 1
    assert found.scored.components["reward"] == found.scored.score
    assert found.figures == {"kl_bound_nats": pytest.approx(kl_bound(4))}
    for ids, sample in zip(found.tokens, found.samples, strict=True):
        assert tiny_tokenizer.decode(ids, skip_special_tokens=True) == sample.response
    again = generate(BestOfN(4), responder, rows[::-1], reward=reward, seed=1)
    assert again.tokens[::-1] == found.tokens


def test_more_responses_are_never_worse(responder, tiny_tokenizer):
    rows, reward = examples(tiny_tokenizer, 4), TokenShare()
    one = generate(Sampling(), responder, rows, reward=reward)
    scores = [generate(BestOfN(n), responder, rows, reward=reward).scored.score for n in (1, 3, 9)]
    assert scores[0] == one.scored.score
    for fewer, more in itertools.pairwise(scores):
        assert all(a <= b for a, b in zip(fewer, more, strict=True))
    assert sum(scores[2]) > sum(scores[0])


def test_best_of_n_needs_a_reward_and_a_number(responder, tiny_tokenizer):
    with pytest.raises(UserError, match="best-of-n is guided by a reward"):
        generate(BestOfN(2), responder, examples(tiny_tokenizer, 1))
    with pytest.raises(UserError, match="n should be at least 1, got 0"):
        BestOfN(0)


# -- prompts ----------------------------------------------------------------------------------


def test_prompts_are_tokenised_as_prepare_does_it(tiny_tokenizer, tiny_chat_tokenizer):
    plain, chat, without = (
        prompt_examples(tokenizer, ["the film"], chat=chat)[0].prompt_ids
        for tokenizer, chat in (
            (tiny_tokenizer, False), (tiny_chat_tokenizer, True), (tiny_tokenizer, True),
        )
    )  # fmt: skip
    assert plain == tiny_tokenizer("the film")["input_ids"]
    assert tiny_chat_tokenizer.decode(chat) == "<s>user\nthe film</s>\n<s>assistant\n"
    assert tiny_tokenizer.decode(without) == "the film\n"
