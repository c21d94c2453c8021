"""Limited context: nothing before the last k tokens matters, in scoring, writing and training."""

import pytest
import torch

from mht.core.errors import ModelError
from mht.generation.decoding import ValueGuided, generate
from mht.generation.sampling.decode import sample
from mht.generation.sampling.rollout import Responder
from mht.generation.sampling.seeds import RowSeeds
from mht.models.context import context_window, limit_context, windows
from mht.models.hf.logits import logits_at
from mht.models.logprobs import response_logprobs
from mht.models.policy import Policy
from mht.training.hybrid import HybridTrainer
from tests.support.training import (
    KINDS,
    PAD,
    examples,
    hybrid_config,
    model_of,
    responses_of,
    rollout_of,
)

K = 4
PROMPTS = [[40, 41, 42, 43, 44, 45], [50], [60, 61, 62]]
ENDS = set(range(100, 130))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def limited(folder, tokens=K):
    model = model_of(folder)
    limit_context(model, tokens)
    return model


def all_logits(model, ids):
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    return logits_at(model, everywhere, ids, everywhere)[0].view(*ids.shape, -1)


def write(model, left=0, **options):
    batch = rollout_of(PROMPTS * 4, [[9]] * 12, left=left)
    options = {"response_tokens": 14, "eos_ids": ENDS, "pad_id": PAD} | options
    numbers = RowSeeds(list(range(12)))
    return sample(model, batch.prompt_ids, batch.prompt_mask, generator=numbers, **options)


# -- what is seen -----------------------------------------------------------------------------


def test_windows_skip_padding_wherever_it_stands():
    ids = torch.tensor([[0, 5, 6, 7, 0], [8, 0, 9, 10, 11]])
    mask = ids != 0
    wanted = torch.tensor([[False, True, False], [True, False, True]])  # columns 2 to 4
    seen, real = windows(3, wanted, ids, mask)
    assert [row[keep].tolist() for row, keep in zip(seen, real, strict=True)] == [
        [5, 6, 7], [8, 9], [9, 10, 11]
    ]  # fmt: skip
    assert real[:, -1].all()  # left-padded
    narrow, _ = windows(99, wanted, ids, mask)
    assert narrow.shape == (3, 4)  # no wider than the longest text


@torch.no_grad()
def test_nothing_before_the_last_k_tokens_changes_a_logit(tiny_model_dir, kind):
    """With four layers, through which a mask of k tokens would let 4k of them through."""
    folder = tiny_model_dir(kind, layers=4)
    model = limited(folder)
    ids = torch.randint(4, 400, (3, 20), generator=torch.Generator().manual_seed(0))
    before = all_logits(model, ids)
    for t in (K, 11, 19):
        changed = ids.clone()
        changed[:, : t - K + 1] = torch.randint(4, 400, (3, t - K + 1))
        after = all_logits(model, changed)
        assert torch.equal(before[:, t:], after[:, t:]), "an earlier token shows"
        first = ids.clone()
        first[:, t - K + 1] = (first[:, t - K + 1] + 7) % 390 + 4
        later = all_logits(model, first)
        assert (before[:, t] != later[:, t]).any(1).all(), "the k-th token back does not show"
    assert not torch.allclose(before[:, K:], all_logits(model_of(folder), ids)[:, K:], atol=1e-2)


@torch.no_grad()
def test_a_window_as_long_as_the_text_is_the_model_itself(tiny_model_dir, kind):
    folder = tiny_model_dir(kind)
    ids = torch.randint(4, 400, (2, 12), generator=torch.Generator().manual_seed(0))
    whole = all_logits(model_of(folder), ids)
    torch.testing.assert_close(all_logits(limited(folder, 12), ids), whole, atol=1e-4, rtol=1e-4)


def test_padding_changes_nothing(tiny_model_dir):
    model = limited(tiny_model_dir())
    responses = [[70, 71, 72, 73, 74, 75], [80, 81], [90, 91, 92]]
    plain = response_logprobs(model, rollout_of(PROMPTS, responses), 1.0)
    padded = response_logprobs(model, rollout_of(PROMPTS, responses, left=3, right=2), 1.0)
    torch.testing.assert_close(padded[:, : plain.shape[1]], plain, atol=1e-5, rtol=0)


# -- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, K])
def test_what_is_written_is_what_is_scored(tiny_model_dir, kind, tokens):
    model = limited(tiny_model_dir(kind, layers=4), tokens)
    rollout = write(model, left=2, temperature=0.8)
    assert len(set(rollout.lengths.tolist())) > 1, "no row left the batch early"
    assert rollout.lengths.max() > K + 1
    forced = response_logprobs(model, rollout, 0.8)
    torch.testing.assert_close(rollout.logprobs, forced, atol=1e-4, rtol=0)


@torch.no_grad()
def test_greedy_tokens_follow_from_the_last_k(tiny_model_dir):
    folder = tiny_model_dir(layers=4)
    plain = model_of(folder)
    rollout = write(limited(folder), temperature=0, eos_ids=set())
    for prompt, response in zip(PROMPTS * 4, responses_of(rollout), strict=True):
        for place, token in enumerate(response):
            seen = torch.tensor([[*prompt, *response[:place]][-K:]])
            assert int(plain(input_ids=seen).logits[0, -1].argmax()) == token


def test_value_guidance_looks_through_the_window_too(tiny_model_dir, tiny_tokenizer):
    policy = Policy(limited(tiny_model_dir()))
    torch.nn.init.normal_(policy.value_head.weight)
    responder = Responder(policy.model, tiny_tokenizer, {"response_tokens": 9, "temperature": 1.0})
    rows = examples(tiny_tokenizer, 3)
    found = generate(ValueGuided(policy.value_head, beta=0.0, candidates=400), responder, rows)
    assert found.figures["kl_nats"] == pytest.approx(0, abs=1e-4)
    assert generate(ValueGuided(policy.value_head, 4.0), responder, rows).figures["kl_nats"] > 0


# -- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unfrozen", "head"), [("all", {}), (1, {}), (2, {"type": "branch", "num_layers": 1})]
)  # fmt: skip
def test_it_trains_and_is_saved(tiny_model_dir, tiny_tokenizer, tmp_path, unfrozen, head):
    """PPO's own check holds that the sampled probabilities are those that it trains on."""
    trainer = HybridTrainer(
        tiny_model_dir(layers=3),
        train_data=examples(tiny_tokenizer, 8),
        config=hybrid_config(value_head=head),
        num_layers_unfrozen=unfrozen,
        context_window=K,
    )
    before = {k: v.clone() for k, v in trainer.policy.model.state_dict().items()}
    figures = {}
    trainer.train(log=lambda stats, step: figures.update(stats))
    assert figures["ppo/policy/ratio_max"] >= 1
    after = trainer.policy.model.state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    trainer.save(tmp_path)
    again = HybridTrainer(tmp_path)
    assert context_window(again.policy.model) == context_window(again.policy.reference) == K
    ids = torch.randint(4, 400, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(
            all_logits(again.policy.model, ids), all_logits(trainer.policy.model, ids)
        )


def test_a_chain_of_order_one_learns_bigrams(tiny_model_dir, tiny_tokenizer):
    """SFT on a text where the token two back decides: order 1 can not know, order 2 can."""
    from mht.data.examples.example import Example

    text = [20, 30, 40, 21, 30, 41] * 4  # 40 or 41 after 30: as before it
    rows = [Example("0", "", "", text[:3], text[3:], {})] * 8

    def loss_of(window):
        trainer = HybridTrainer(
            tiny_model_dir(), train_data=rows, context_window=window, lrate=1e-2,
            config=hybrid_config(ppo_steps_per_cycle=0, reward=None, sft_batch_size=4),
        )  # fmt: skip
        losses = []
        trainer.train([(40, 0)], log=lambda stats, step: losses.append(stats["sft/loss"]))
        return losses[-1]

    one, two = loss_of(1), loss_of(2)
    assert two < 0.05
    # after 30, 40 and 41 are alike; after 40 and 41 comes 21 and 20, which order 1 knows
    assert one == pytest.approx(0.693 / 3, abs=0.06)


def test_no_window_at_all(tiny_model_dir):
    model = model_of(tiny_model_dir())
    assert context_window(model) is None
    with pytest.raises(ModelError, match="model.context_window: should be at least 1 or null"):
        limit_context(model, 0)
