"""Metropolis-Hastings: on a vocabulary of four its samples are those of exact enumeration."""

import itertools
import random
import warnings
from functools import cache

import pytest
import torch

from mht import make_reward
from mht.core.errors import UserError
from mht.core.records import Rollout
from mht.generation.decoding import MCMC, Sampling, generate
from mht.generation.decoding.mcmc import Chains, ModelProposal, prefixes
from mht.generation.decoding.ngram import NGramProposal
from mht.generation.decoding.ngram_model import NGram
from mht.generation.sampling.rollout import Responder
from mht.generation.sampling.seeds import RowSeeds
from mht.models.logprobs import response_logprobs
from tests.support.training import TokenShare, examples, model_of

END, PADDING, LIMIT = 0, 1, 3  # PAD is a word like the others: masks decide
PROMPT = [3, 1, 2]
HOT, STEPS = 1.0, 15  # after which the chains have forgotten their start: distance below .01


class Toy:
    """What the strategies ask of a responder, around a model of four tokens; without texts."""

    eos_ids, pad_id = {END}, PADDING

    def __init__(self, temperature=1.0):
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=4,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
            initializer_range=0.5,
        )
        self.model = LlamaForCausalLM(config).eval().requires_grad_(False)
        self.decoding = {"response_tokens": LIMIT, "temperature": temperature}


def responses():
    """All 40: up to three tokens, an END stops."""
    words = [w for w in range(4) if w != END]
    ended = [(*head, END) for n in range(LIMIT) for head in itertools.product(words, repeat=n)]
    return ended + list(itertools.product(words, repeat=LIMIT))


def as_rollout(rows, prompt=PROMPT):
    lengths = torch.tensor([len(r) for r in rows])
    ids = torch.tensor([[*r, *[PADDING] * (LIMIT - len(r))] for r in rows])
    mask = torch.arange(LIMIT)[None] < lengths[:, None]
    prompts = torch.tensor([[PADDING, *prompt]] * len(rows))  # one column of padding
    real = torch.ones_like(prompts, dtype=torch.bool)
    real[:, 0] = False
    return Rollout(prompts, real, ids, mask, torch.tensor([r[-1] == END for r in rows]))


@cache
def score_of(response):
    """Any number, from the response alone."""
    return random.Random(str(response)).gauss(0, 1)


def rows_of(rollout):
    pairs = zip(rollout.response_ids.tolist(), rollout.lengths.tolist(), strict=True)
    return [tuple(ids[:length]) for ids, length in pairs]


def target(toy, tilt):
    """Exact probabilities of all responses under ``p(x) exp(score / tilt)``."""
    every = responses()
    logprobs = response_logprobs(toy.model, as_rollout(every), toy.decoding["temperature"]).sum(1)
    torch.testing.assert_close(logprobs.exp().sum(), torch.tensor(1.0), atol=1e-5, rtol=0)
    tilted = logprobs.double() + torch.tensor([score_of(r) for r in every]).double() / tilt
    return dict(zip(every, tilted.softmax(0).tolist(), strict=True))


def walked(toy, proposal, *, chains, steps, tilt=HOT, seed=0):
    """Chains after some steps, each begun with a draw from the model."""
    numbers = RowSeeds([seed * chains + i for i in range(chains)])
    empty = as_rollout([(END,)] * chains)
    limits = torch.full((chains,), LIMIT)
    start = ModelProposal(toy).draw(empty.prompt_ids, empty.prompt_mask, limits, numbers)
    made = Chains(
        start,
        proposal,
        lambda rollout: [score_of(r) for r in rows_of(rollout)],
        score_temperature=tilt,
        limit=LIMIT,
        pad_id=PADDING,
        numbers=numbers,
    )
    return made, [rows_of(made.state) for _ in range(steps) if made.step()]


def shares(rows):
    return {r: rows.count(r) / len(rows) for r in set(rows)}


def distance(found, exact):
    """Total variation."""
    return sum(abs(found.get(r, 0) - p) for r, p in exact.items()) / 2


def chi_square(rows, exact):
    """p-value of independent draws; responses expected less than five times are taken together."""
    from scipy.stats import chisquare

    common = [r for r, p in exact.items() if p * len(rows) >= 5]
    counts = [rows.count(r) for r in common]
    expected = [exact[r] * len(rows) for r in common]
    rest = len(rows) - sum(expected)
    if rest > 5:
        counts, expected = [*counts, len(rows) - sum(counts)], [*expected, rest]
    total = sum(expected)
    return chisquare(counts, [e * sum(counts) / total for e in expected]).pvalue


@pytest.fixture(scope="module")
def ngram():
    """Of many of the model's own responses, at temperature 1."""
    exact = target(Toy(), 1e9)
    texts = random.Random(0).choices(list(exact), weights=exact.values(), k=1000)
    return NGram.fit([[*PROMPT, *t] for t in texts], vocabulary=4, order=3)


@pytest.mark.parametrize(
    ("kind", "temperature", "count"),
    [("model", 1.0, 1500), ("model", 0.7, 1500), ("ngram", 0.8, 600)],
)
def test_samples_are_those_of_exact_enumeration(kind, temperature, count, ngram):
    toy = Toy(temperature)
    exact = target(toy, HOT)
    proposal = ModelProposal(toy) if kind == "model" else NGramProposal(ngram, toy)
    chains, states = walked(toy, proposal, chains=count, steps=STEPS)
    last = states[-1]  # one state a chain: independent draws
    assert set(last) <= set(exact)
    assert distance(shares(last), exact) < 2.5 / count**0.5
    assert chi_square(last, exact) > 0.01
    assert 0.1 < chains.accepted < 0.9
    # the same test tells the target from the model's own distribution, and from another tilt
    assert chi_square(last, target(toy, 1e9)) < 1e-6
    assert chi_square(last, target(toy, 2 * HOT)) < 1e-6
    assert chi_square(last, target(toy, HOT / 2)) < 1e-6


def test_the_lengths_in_the_ratio_matter(monkeypatch):
    """Without |x| / |y| the chains would settle elsewhere, and the test above would see it."""
    toy = Toy()
    exact = target(toy, HOT)
    monkeypatch.setattr(torch.Tensor, "log", _log_without_lengths(torch.Tensor.log))
    _, states = walked(toy, ModelProposal(toy), chains=1500, steps=STEPS)
    monkeypatch.undo()
    assert chi_square(states[-1], exact) < 1e-6


def _log_without_lengths(log):
    """Of lengths, whole numbers above 0, the log is 0."""

    def changed(x):
        whole = x.dtype == torch.float64 and bool((x >= 1).all())
        return torch.zeros_like(x) if whole else log(x)

    return changed


def test_a_chain_visits_what_it_should_in_the_long_run():
    """A hundred chains, all their later states counted."""
    toy = Toy()
    _, states = walked(toy, ModelProposal(toy), chains=100, steps=60)
    later = [r for rows in states[20:] for r in rows]
    assert distance(shares(later), target(toy, HOT)) < 0.04


def test_without_a_tilt_every_proposal_of_equal_length_is_taken():
    toy = Toy()
    made, states = walked(toy, ModelProposal(toy), chains=500, steps=10, tilt=1e9)
    assert distance(shares(states[-1]), target(toy, 1e9)) < 0.1
    assert made.accepted > 0.8


def test_prefixes_are_prompts_and_what_is_kept():
    rollout = as_rollout([(2, 3, END), (3, END), (1, 2, 3)])
    ids, mask = prefixes(rollout, torch.tensor([2, 0, 1]))
    kept = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
    assert kept == [[*PROMPT, 2, 3], PROMPT, [*PROMPT, 1]]
    assert ids.shape[1] == 5 and mask[:, -1].all()


# -- with texts -------------------------------------------------------------------------------


@pytest.fixture
def responder(tiny_model_dir, tiny_tokenizer):
    model = model_of(tiny_model_dir())
    return Responder(model, tiny_tokenizer, {"response_tokens": 8, "temperature": 1.0})


def test_the_strategy_raises_the_score(responder, tiny_tokenizer):
    rows, reward = examples(tiny_tokenizer, 6), TokenShare()
    plain = generate(Sampling(), responder, rows, reward=reward)
    strategy = MCMC(steps=16, score_temperature=0.02, burn_in=4, thin=3)
    found = generate(strategy, responder, rows, reward=reward, batch_size=5)
    assert sum(found.scored.score) > 2 * sum(plain.scored.score)
    assert [len(d) for d in found.drawn] == [4] * 6  # steps 5, 8, 11 and 14
    assert [reward.score(d) for d in found.drawn] == found.drawn_scores
    assert 0 < found.figures["acceptance_rate"] < 1
    assert found.computed_tokens > sum(map(len, found.tokens))
    for ids, sample in zip(found.tokens, found.samples, strict=True):
        assert tiny_tokenizer.decode(ids, skip_special_tokens=True) == sample.response


def test_a_chain_depends_on_its_own_prompt_and_seed(responder, tiny_tokenizer):
    rows, reward = examples(tiny_tokenizer, 5), TokenShare()
    strategy = MCMC(steps=5, score_temperature=0.1)
    whole = generate(strategy, responder, rows, reward=reward, seed=2)
    back = generate(strategy, responder, rows[::-1], reward=reward, seed=2, batch_size=2)
    assert whole.tokens == back.tokens[::-1]


def test_scores_that_depend_on_the_batch_are_warned_of(responder, tiny_tokenizer):
    rows, strategy = examples(tiny_tokenizer, 5), MCMC(steps=1)
    whitened = {"type": "length_window", "min": 3, "max": 4, "postprocess": [{"type": "whiten"}]}
    with pytest.warns(UserWarning, match="depend on the rest of the batch .* no fixed target"):
        generate(strategy, responder, rows, reward=make_reward(whitened))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(strategy, responder, rows, reward=TokenShare())
        generate(strategy, responder, rows[:1], reward=TokenShare())


def test_ngram_proposals_with_texts(responder, tiny_tokenizer):
    rows = examples(tiny_tokenizer, 4)
    texts = [e.prompt_ids + e.target_ids for e in rows]
    ngram = NGram.fit(texts, vocabulary=len(tiny_tokenizer))
    strategy = MCMC(steps=4, proposal=ngram)
    found = generate(strategy, responder, rows, reward=TokenShare())
    assert 0 <= found.figures["acceptance_rate"] <= 1
    responder.decoding["min_p"] = 0.1
    with pytest.raises(UserError, match="n-gram proposals the model can't be truncated"):
        generate(strategy, responder, rows, reward=TokenShare())


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"steps": 0}, "steps and thin should be at least 1"),
        ({"steps": 3, "burn_in": 3}, "burn_in less than steps"),
        ({"thin": 0}, "thin 0"),
        ({"score_temperature": 0.0}, "score_temperature should be above 0"),
    ],
)
def test_what_does_not_make_a_chain(options, what):
    with pytest.raises(UserError, match=what):
        MCMC(**options)


def test_greedy_decoding_makes_no_chain(responder, tiny_tokenizer):
    responder.decoding["temperature"] = 0
    with pytest.raises(UserError, match="temperature 0 proposes the same"):
        generate(MCMC(), responder, examples(tiny_tokenizer, 1), reward=TokenShare())
