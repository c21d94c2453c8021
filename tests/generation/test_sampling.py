"""Sampling: the distribution, the ends, the shrinking batch, the recorded trunk, the texts."""

import pytest
import torch

from mht.core.errors import DataError, ModelError
from mht.core.records import distinct
from mht.data.examples.example import Example
from mht.generation.sampling.decode import sample
from mht.generation.sampling.draw import draw, truncate_logits
from mht.generation.sampling.rollout import Responder, end_tokens, pad_token, trimmed
from mht.models.context import limit_context
from mht.models.hf.cache import SizedLayer, sized_cache
from mht.models.logprobs import response_logprobs
from mht.models.policy import Policy
from tests.support.training import EOS, KINDS, PAD, examples, model_of, responses_of, rollout_of

PROMPTS = [[40, 41, 42, 43], [50], [60, 61], [70, 71, 72]]
TOKENS = 12


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def batch_of(prompts=PROMPTS, left=0):
    rollout = rollout_of(prompts, [[9]] * len(prompts), left=left)
    return rollout.prompt_ids, rollout.prompt_mask


def write(model, prompts=PROMPTS, *, left=0, seed=0, **options):
    options = {"response_tokens": TOKENS, "eos_ids": {EOS}, "pad_id": PAD} | options
    generator = torch.Generator().manual_seed(seed)
    return sample(model, *batch_of(prompts, left), generator=generator, **options)


def ends_at_different_steps(model):
    """EOS ids for which greedy responses end at several lengths, one of them not at all."""
    free = responses_of(write(model, temperature=0, eos_ids=set()))
    common = {t for row in free for t in row[1:9]}
    for chosen in sorted(common):
        ends = [row.index(chosen) if chosen in row else None for row in free]
        if len(set(ends)) >= 3 or (None in ends and len(set(ends)) == 2):
            return {chosen}
    raise AssertionError("the tiny model never says anything that ends one row before another")


# -- distribution -----------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_logprobs_are_the_teacher_forced_ones(tiny_model_dir, kind, temperature):
    """Past the sliding window of gemma2 (16 tokens) too, and with rows that end early."""
    model = model_of(tiny_model_dir(kind, layers=4))
    ends = set(range(100, 130))
    rollout = write(model, temperature=temperature, left=3, response_tokens=30, eos_ids=ends)
    assert len(set(rollout.lengths.tolist())) > 1, "no row left the batch early"
    forced = response_logprobs(model, rollout, temperature)
    torch.testing.assert_close(rollout.logprobs, forced, atol=1e-4, rtol=0)
    assert (rollout.logprobs[~rollout.response_mask] == 0).all()


def test_a_rollout_keeps_what_a_pass_of_its_own_would_say(tiny_model_dir, kind):
    """Values and entropies as scored afterwards, also for rows that end early."""
    policy = Policy(model_of(tiny_model_dir(kind, layers=4)), 2)
    torch.nn.init.normal_(policy.value_head.weight)
    ends = set(range(100, 130))
    rollout = write(policy.model, temperature=0.7, left=3, eos_ids=ends, trunk=policy.trunk)
    kept = policy.sampled_scores(rollout, temperature=0.7)
    scored = policy.score(rollout, temperature=0.7, with_entropy=True)
    for name in ("logprobs", "values", "entropies"):
        torch.testing.assert_close(
            getattr(kept, name), getattr(scored, name).detach(), atol=1e-4, rtol=1e-4
        )


def test_draws_follow_the_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).repeat(20_000, 1)
    generator = torch.Generator().manual_seed(0)
    for temperature in (1.0, 0.5, 2.0):
        drawn = draw(logits, temperature=temperature, generator=generator).tokens
        shares = torch.bincount(drawn, minlength=4) / len(drawn)
        wanted = (logits[0] / temperature).softmax(-1)
        torch.testing.assert_close(shares, wanted, atol=0.015, rtol=0)


def test_draws_follow_the_distribution_over_a_large_vocabulary():
    """Several blocks of the vocabulary, the last one cut short, and tokens that are impossible."""
    torch.manual_seed(0)
    logits = torch.randn(700)
    logits[::3] = -torch.inf
    drawn = draw(logits.repeat(40_000, 1), temperature=1.0, generator=torch.Generator())
    shares = torch.bincount(drawn.tokens, minlength=700) / 40_000
    wanted = logits.softmax(-1)
    assert (shares[::3] == 0).all()
    assert (shares - wanted).abs().max() < 5 * (wanted.max() / 40_000).sqrt()
    groups = torch.arange(700) // 70
    by_group = torch.zeros(10).index_add_(0, groups, shares - wanted)
    assert by_group.abs().max() < 0.012  # five standard errors of a share of .1


def test_what_a_draw_says_of_its_distribution():
    logits = torch.tensor([[0.0, 2.0, -1.0, -torch.inf], [5.0, 5.0, 5.0, 5.0]])
    drawn = draw(logits, temperature=0.5, top_k=1, generator=torch.Generator())
    expected = (logits / 0.5).log_softmax(-1)
    picked = expected.gather(1, drawn.tokens[:, None]).squeeze(1)
    torch.testing.assert_close(drawn.logprobs, picked)
    entropies = torch.distributions.Categorical(logits=logits / 0.5).entropy()
    torch.testing.assert_close(drawn.entropies, entropies)


def test_top_k_and_top_p_supports():
    logits = torch.log(torch.tensor([[0.1, 0.4, 0.2, 0.3]])).repeat(4000, 1)
    generator = torch.Generator().manual_seed(0)

    def support(**options):
        drawn = draw(logits, temperature=1.0, generator=generator, **options).tokens
        return set(drawn.tolist())

    assert support() == {0, 1, 2, 3}
    assert support(top_k=1) == {1}
    assert support(top_k=2) == {1, 3}
    assert support(top_k=99) == {0, 1, 2, 3}
    assert support(top_p=0.39) == {1}
    assert support(top_p=0.65) == {1, 3}
    assert support(top_p=0.75) == {1, 2, 3}
    assert support(top_p=1e-9) == {1}
    assert support(top_k=3, top_p=0.75) == {1, 3}  # of the three left, .44 + .33 is enough


def test_truncation_keeps_the_odds_of_what_is_left():
    kept = truncate_logits(torch.tensor([[1.0, 3.0, 2.0, 0.0]]), top_k=3, top_p=0.999)
    assert kept.tolist() == [[1.0, 3.0, 2.0, -torch.inf]]


def test_the_seed_decides(tiny_model_dir):
    model = model_of(tiny_model_dir())
    first, same, other = (write(model, seed=seed).response_ids for seed in (5, 5, 6))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_greedy_draws_nothing_from_the_generator(tiny_model_dir):
    model = model_of(tiny_model_dir())
    a, b = (write(model, temperature=0, seed=seed).response_ids for seed in (1, 2))
    assert torch.equal(a, b)


# -- ends -------------------------------------------------------------------------------------


def test_greedy_equals_transformers_generate(tiny_model_dir, kind):
    model = model_of(tiny_model_dir(kind, layers=4))
    ends = ends_at_different_steps(model)
    ids, mask = batch_of(left=2)
    theirs = model.generate(
        input_ids=ids,
        attention_mask=mask.long(),
        max_new_tokens=TOKENS,
        do_sample=False,
        eos_token_id=list(ends),
        pad_token_id=PAD,
    )[:, ids.shape[1] :]
    mine = write(model, left=2, temperature=0, eos_ids=ends)
    assert mine.response_ids.tolist() == theirs.tolist()


def test_the_shrinking_batch_writes_what_each_row_writes_alone(tiny_model_dir, kind):
    model = model_of(tiny_model_dir(kind, layers=4))
    ends = ends_at_different_steps(model)
    together = write(model, left=3, temperature=0, eos_ids=ends)
    alone = [write(model, [p], temperature=0, eos_ids=ends) for p in PROMPTS]
    assert len(set(together.lengths.tolist())) > 1
    assert responses_of(together) == [responses_of(a)[0] for a in alone]
    assert together.ended.tolist() == [bool(a.ended) for a in alone]
    for row, one in zip(together.logprobs, alone, strict=True):
        got = row[: one.logprobs.shape[1]]
        torch.testing.assert_close(got, one.logprobs[0], atol=1e-4, rtol=0)


def test_eos_is_included_and_what_follows_is_padding(tiny_model_dir):
    model = model_of(tiny_model_dir())
    ends = set(range(4, 200))  # every second token or so ends a response
    rollout = write(model, PROMPTS * 8, eos_ids=ends, response_tokens=3)
    assert 0 < rollout.ended.sum() < len(rollout)
    for row, ended in zip(responses_of(rollout), rollout.ended.tolist(), strict=True):
        assert all(t not in ends for t in row[:-1])
        assert (row[-1] in ends) == ended
        assert ended or len(row) == 3
    assert (rollout.response_ids[~rollout.response_mask] == PAD).all()
    assert rollout.response_ids.shape[1] == rollout.lengths.max()


def test_prompts_that_are_read_once_are_answered_as_if_each_row_had_read_its_own(
    tiny_model_dir, kind
):
    """Among them one that is on its own, one that is longer, and a padded copy of another."""
    policy = Policy(model_of(tiny_model_dir(kind, layers=4)), 2)
    prompts = [PROMPTS[i] for i in (1, 0, 1, 2, 0, 1)]
    ends = set(range(100, 130))
    each, shared = (
        write(
            policy.model, prompts, left=2, temperature=0.8, eos_ids=ends, trunk=policy.trunk,
            share_prompts=share,
        )
        for share in (False, True)
    )  # fmt: skip
    assert responses_of(each) == responses_of(shared)
    rows = responses_of(each)
    assert len({tuple(rows[i]) for i in (0, 2, 5)}) == 3, "copies of a prompt drew alike"
    for name in ("logprobs", "entropies", "hidden"):
        torch.testing.assert_close(getattr(each, name), getattr(shared, name), atol=1e-4, rtol=1e-4)
    real = each.attention_mask[:, :-1]
    torch.testing.assert_close(each.trunk[real], shared.trunk[real], atol=1e-4, rtol=1e-4)
    assert len(set(each.lengths.tolist())) > 1, "no row left the batch early"


def test_prompts_read_once_by_a_model_without_a_cache(tiny_model_dir):
    model = model_of(tiny_model_dir())
    limit_context(model, 3)
    prompts = [PROMPTS[i] for i in (0, 3, 0)]
    each, shared = (write(model, prompts, left=1, share_prompts=s) for s in (False, True))
    assert responses_of(each) == responses_of(shared)


def test_which_prompts_are_the_same():
    ids = torch.tensor([[7, 1, 2], [3, 4, 5], [8, 1, 2], [0, 0, 9], [3, 4, 5]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 1, 1], [0, 0, 1], [1, 1, 1]]).bool()
    read, which = distinct(ids, mask)
    assert [sorted({0: [0, 2], 1: [1, 4], 3: [3]}[int(i)]) for i in read[which]] == [
        [0, 2], [1, 4], [0, 2], [3], [1, 4],
    ]  # fmt: skip
    assert len(read) == 3


def test_no_eos_at_all(tiny_model_dir):
    rollout = write(model_of(tiny_model_dir()), eos_ids=set(), response_tokens=1)
    assert rollout.lengths.tolist() == [1, 1, 1, 1]
    assert not rollout.ended.any()


# -- cache ------------------------------------------------------------------------------------


def test_the_sized_cache_changes_no_bit(tiny_model_dir, kind, monkeypatch):
    from transformers import DynamicCache

    model = model_of(tiny_model_dir(kind, layers=4))
    options = {"left": 3, "response_tokens": 30, "eos_ids": set(range(100, 130))}
    ours = write(model, **options)
    monkeypatch.setattr(
        "mht.models.hf.cache.sized_cache", lambda model, _: DynamicCache(config=model.config)
    )
    theirs = write(model, **options)
    assert len(set(ours.lengths.tolist())) > 1
    assert torch.equal(ours.response_ids, theirs.response_ids)
    assert torch.equal(ours.logprobs, theirs.logprobs)
    assert torch.equal(ours.hidden, theirs.hidden)


def test_memory_is_taken_once(tiny_model_dir, kind):
    """Where attention sees everything; a sliding window's layer is transformers' own."""
    model = model_of(tiny_model_dir(kind, layers=4))
    cache = sized_cache(model, 6)
    sized = [layer for layer in cache.layers if isinstance(layer, SizedLayer)]
    assert len(sized) == (2 if kind == "gemma2" else 4)
    places = set()
    for rows in (3, 2, 1):
        model(input_ids=torch.full((rows, 2), 40), past_key_values=cache, use_cache=True)
        places |= {layer.keys.data_ptr() for layer in sized}
        cache.batch_select_indices(torch.arange(1, rows))
    assert len(places) == len(sized)


def test_rows_of_the_cache_that_go_on():
    layer, keys = SizedLayer(4), torch.arange(12.0).view(3, 1, 2, 2)
    layer.update(keys, -keys)
    layer.batch_select_indices(torch.tensor([2, 0]))
    assert torch.equal(layer.keys, keys[[2, 0]]) and torch.equal(layer.values, -keys[[2, 0]])
    layer.batch_select_indices(torch.tensor([1, 1, 0]))
    assert torch.equal(layer.keys, keys[[0, 0, 2]])
    seen, _ = layer.update(keys + 1, keys)
    assert torch.equal(seen, torch.cat([keys[[0, 0, 2]], keys + 1], 2))
    with pytest.raises(ValueError, match="room for 4 positions, not 5"):
        layer.update(keys[:, :, :1], keys[:, :, :1])


# -- trunk ------------------------------------------------------------------------------------


def test_the_trunk_recorded_while_sampling_is_the_one_recomputed(tiny_model_dir, kind):
    policy = Policy(model_of(tiny_model_dir(kind, layers=4)), 1)
    policy.value_head.weight.data.normal_()
    ends = set(range(100, 130))
    rollout = write(policy.model, left=2, response_tokens=20, eos_ids=ends, trunk=policy.trunk)
    assert len(set(rollout.lengths.tolist())) > 1
    width = rollout.input_ids.shape[1] - 1
    assert rollout.trunk.shape == (len(PROMPTS), width, 32)
    bare = rollout_of(PROMPTS, responses_of(rollout))
    recorded, computed = rollout, policy.with_trunk(bare)
    refs = [policy.ref_logprobs(r) for r in (recorded, computed, bare)]
    for ref in refs[1:]:
        torch.testing.assert_close(refs[0], ref, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        policy.score(recorded).values, policy.score(computed).values, atol=1e-4, rtol=1e-4
    )


def test_trimmed_and_rows_change_no_number(tiny_model_dir, kind):
    policy = Policy(model_of(tiny_model_dir(kind, layers=4)), 2)
    rollout = write(
        policy.model, left=5, response_tokens=20, eos_ids=set(range(100, 140)), trunk=policy.trunk
    )
    order = rollout.lengths.argsort()[:2]  # the shortest
    part = trimmed(rollout.rows(order))
    assert part.prompt_ids.shape[1] == max(len(PROMPTS[i]) for i in order)
    assert part.response_ids.shape[1] == part.lengths.max()
    assert part.trunk.shape[1] == part.input_ids.shape[1] - 1
    whole = policy.score(rollout).logprobs[order, : part.response_ids.shape[1]]
    torch.testing.assert_close(policy.score(part).logprobs, whole, atol=1e-5, rtol=0)


# -- Responder --------------------------------------------------------------------------------


@pytest.fixture
def responder(tiny_model_dir, tiny_tokenizer):
    model = model_of(tiny_model_dir())
    return Responder(model, tiny_tokenizer, {"response_tokens": 5, "temperature": 1.0})


def test_responses_and_their_texts(responder, tiny_tokenizer):
    rows = examples(tiny_tokenizer, 3)
    rollout = responder.respond(rows, torch.Generator().manual_seed(0))
    samples = responder.samples(rollout, rows)
    assert [(s.prompt, s.target, s.item) for s in samples] == [
        (e.prompt, e.target, e.item) for e in rows
    ]
    for tokens, s in zip(responses_of(rollout), samples, strict=True):
        assert s.response == tiny_tokenizer.decode(tokens, skip_special_tokens=True)
        assert s.full == s.prompt + s.response


@pytest.mark.parametrize("side", ["left", "right"])
def test_rebuild_takes_prompts_padded_on_either_side(responder, side):
    prompts = [[40, 41, 42], [50]]
    rows = [
        [PAD] * (4 - len(p)) + p if side == "left" else p + [PAD] * (4 - len(p)) for p in prompts
    ]
    responses = torch.tensor([[70, EOS, PAD, PAD], [80, 81, PAD, PAD]])
    rollout = responder.rebuild(torch.tensor(rows), responses)
    expected = rollout_of(prompts, [[70, EOS], [80, 81]], left=1)
    for name in ("prompt_ids", "prompt_mask", "response_ids", "response_mask", "ended"):
        assert torch.equal(getattr(rollout, name), getattr(expected, name)), name


def test_rebuild_knows_a_sampled_pad_and_what_follows_an_eos(responder):
    """A PAD between tokens was written by the policy; tokens after the first EOS were not."""
    responses = torch.tensor([[70, PAD, 71, PAD], [80, EOS, 81, EOS]])
    rollout = responder.rebuild(torch.tensor([[40], [50]]), responses)
    assert rollout.lengths.tolist() == [3, 2]
    assert rollout.ended.tolist() == [False, True]


def test_prompts_that_can_not_be_continued(responder):
    generator = torch.Generator()
    with pytest.raises(DataError, match="prompt 1 of the batch has no token"):
        responder.draw(torch.tensor([[5], [PAD]]), torch.tensor([[True], [False]]), generator)
    long = Example("0", "", "", [5] * 252, [5], {})
    with pytest.raises(DataError, match="252 tokens and response_tokens 5 .* context of 256"):
        responder.respond([long], generator)
    fits = Example("0", "", "", [5] * 251, [5], {})
    assert len(responder.respond([fits], generator)) == 1


def test_end_and_padding_tokens(tiny_model_dir, tiny_tokenizer):
    model = model_of(tiny_model_dir())
    model.generation_config.eos_token_id = [EOS, 17]
    assert end_tokens(model, tiny_tokenizer) == {EOS, 17}
    assert pad_token(tiny_tokenizer, {EOS}) == PAD
    with pytest.raises(ModelError, match="'<pad>' as padding and as EOS"):
        pad_token(tiny_tokenizer, {EOS, PAD})
