"""What is measured of a policy: against the model called directly, and against itself."""

import pytest
import torch
from torch.nn import functional

from mht.data.text.sample import Sample
from mht.evaluation.evaluator import (
    evaluate_policy,
    model_columns,
    response_logprobs,
    reward_columns,
)
from mht.generation.sampling.answers import generate, target_nll
from mht.generation.sampling.rollout import Responder
from mht.models.policy import Policy
from mht.rewards import make_reward
from mht.training.validation import Validation
from tests.support.training import TokenShare, examples, model_of, responses_of

DECODING = {"response_tokens": 8, "temperature": 1.0}


def direct_nats(model, prompt, target):
    """Cross-entropy of the target's tokens by the model called on the bare text."""
    ids = torch.tensor([prompt + target])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return functional.cross_entropy(logits, torch.tensor(target), reduction="sum").item()


@pytest.fixture
def policy(tiny_model_dir):
    return model_of(tiny_model_dir(layers=2, seed=1))


@pytest.fixture
def responder(policy, tiny_tokenizer):
    return Responder(policy, tiny_tokenizer, DECODING)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_target_nll_is_the_cross_entropy(tiny_model_dir, tiny_tokenizer, kind, batch_size):
    model, rows = model_of(tiny_model_dir(kind)), examples(tiny_tokenizer)
    nats, counts = target_nll(model, rows, 3, batch_size=batch_size)
    assert counts == [float(len(e.target_ids)) for e in rows]
    assert nats == pytest.approx(
        [direct_nats(model, e.prompt_ids, e.target_ids) for e in rows], 1e-4
    )


def test_generate_is_repeatable_and_covers_every_prompt(responder, tiny_tokenizer):
    rows = examples(tiny_tokenizer, 5)
    runs = [generate(responder, rows, batch_size=2, seed=3) for _ in range(2)]
    texts = [[s.response for _, batch in run for s in batch] for run in runs]
    assert texts[0] == texts[1]
    assert [s.prompt for _, batch in runs[0] for s in batch] == [e.prompt for e in rows]
    other = generate(responder, rows, batch_size=2, seed=4)
    assert [s.response for _, batch in other for s in batch] != texts[0]


def test_the_kl_of_the_base_to_itself_is_0(policy, responder, tiny_tokenizer):
    answered = generate(responder, examples(tiny_tokenizer), batch_size=4, seed=0)
    columns = model_columns(policy, answered, 1.0)
    assert columns["kl_nats"] == pytest.approx([0.0] * 6, abs=1e-4)
    assert columns["response_length"] == columns["tokens_generated"]


def test_model_columns_by_the_model_called_directly(
    policy, responder, tiny_tokenizer, tiny_model_dir
):
    base, rows = model_of(tiny_model_dir(layers=2)), examples(tiny_tokenizer)
    answered = generate(responder, rows, batch_size=4, seed=0)
    columns = model_columns(base, answered, 1.0)
    responses = [r for rollout, _ in answered for r in responses_of(rollout)]
    under = {
        name: [direct_nats(m, e.prompt_ids, r) for e, r in zip(rows, responses, strict=True)]
        for name, m in (("base", base), ("policy", policy))
    }
    assert columns["nll_generated"] == pytest.approx(under["base"], rel=1e-4)
    kl = [b - p for b, p in zip(under["base"], under["policy"], strict=True)]
    assert columns["kl_nats"] == pytest.approx(kl, abs=1e-3)
    assert sum(kl) > 1
    assert columns["tokens_generated"] == [float(len(r)) for r in responses]
    assert columns["ended_by_eos"] == [float(r[-1] == 2) for r in responses]


def test_response_logprobs_are_0_at_padding(policy, responder, tiny_tokenizer):
    responder.eos_ids = set(range(100, 200))
    ((rollout, _),) = generate(responder, examples(tiny_tokenizer), batch_size=9, seed=0)
    assert not rollout.response_mask.all()
    logprobs = response_logprobs(policy, rollout, 1.0)
    assert (logprobs[~rollout.response_mask] == 0).all()
    assert (logprobs[rollout.response_mask] < 0).all()


def test_reward_columns_leave_the_reward_s_state_alone():
    spec = {
        "type": "weighted_sum",
        "components": {
            "a": {"type": "jaccard"},
            "b": {"type": "keyword_count", "keywords": ["dog"]},
        },
        "postprocess": [{"type": "ema_normalize", "decay": 0.9}],
    }
    reward, judge = make_reward(spec), TokenShare()
    before = reward.state_dict()
    samples = [Sample("p", r, "a dog") for r in ("a dog", "cat", "banana")]
    columns = reward_columns({"p_positive": judge}, reward, samples, batch_size=2)
    assert reward.state_dict() == before
    assert columns["p_positive"] == pytest.approx([1 / 5, 1 / 3, 3 / 6])
    assert columns["reward/a"] == [1.0, 0.0, 0.0]
    assert {len(values) for values in columns.values()} == {3}
    assert set(reward_columns({"p_positive": judge}, None, samples, 2)) == {"p_positive"}


def test_evaluate_policy(policy, responder, tiny_tokenizer):
    rows = examples(tiny_tokenizer)
    samples, columns = evaluate_policy(
        policy,
        policy,
        responder,
        rows,
        judge=TokenShare(),
        reward=make_reward({"type": "jaccard"}),
        batch_size=4,
        seed=0,
        bertscore_model=None,
        bertscore_layer=1,
    )
    assert [s.target for s in samples] == [e.target for e in rows]
    assert {len(values) for values in columns.values()} == {len(rows)}
    wanted = {"kl_nats", "p_positive", "reward", "nll_human", "tokens_human", "response_length"}
    assert wanted <= columns.keys()
    shares = [s.response.count("a") / max(len(s.response), 1) for s in samples]
    assert columns["p_positive"] == pytest.approx(shares)


def test_further_rounds_answer_all_prompts_again(policy, responder, tiny_tokenizer):
    rows = examples(tiny_tokenizer)
    spec = {"type": "diversity"}
    options = {"judge": TokenShare(), "reward": make_reward(spec), "batch_size": 4,
               "bertscore_model": None, "bertscore_layer": 1}  # fmt: skip
    first, plain = evaluate_policy(policy, policy, responder, rows, seed=0, **options)
    other, _ = evaluate_policy(policy, policy, responder, rows, seed=2, **options)
    samples, columns = evaluate_policy(policy, policy, responder, rows, seed=0, rounds=2, **options)
    assert samples == first + other, "two batches of prompts, so the third seed is the next round's"
    assert {len(values) for values in columns.values()} == {2 * len(rows)}
    assert {name: values[: len(rows)] for name, values in columns.items()} == plain
    assert columns["nll_human"] == plain["nll_human"] * 2
    assert [s.response for s in other] != [s.response for s in first]


def test_the_sft_model_and_judges_are_measured_too(
    policy, responder, tiny_tokenizer, tiny_model_dir
):
    start, rows = model_of(tiny_model_dir(layers=2)), examples(tiny_tokenizer)
    options = {"judge": TokenShare(), "reward": None, "batch_size": 4, "seed": 0,
               "bertscore_model": None, "bertscore_layer": 1}  # fmt: skip
    _, plain = evaluate_policy(policy, policy, responder, rows, **options)
    _, columns = evaluate_policy(
        policy, policy, responder, rows, **options, start=start, judges={"second": TokenShare()}
    )
    assert columns.keys() - plain.keys() == {"kl_to_sft_nats", "judge/second"}
    assert {name: columns[name] for name in plain} == plain, "nothing else changes"
    assert columns["judge/second"] == columns["p_positive"]
    answered = generate(responder, rows, batch_size=4, seed=0)
    to_start = model_columns(start, answered, 1.0)["kl_nats"]
    assert columns["kl_to_sft_nats"] == pytest.approx(to_start) and sum(to_start) > 1


# -- the look during training -----------------------------------------------------------------


def look(policy, responder, rows, reward):
    return Validation(policy, responder, rows, reward, seed=0, batch_size=4).figures()


def test_validation_figures(tiny_model_dir, tiny_tokenizer):
    policy, rows = Policy(model_of(tiny_model_dir()), 1), examples(tiny_tokenizer)
    responder = Responder(policy.model, tiny_tokenizer, DECODING, policy.trunk)
    before = look(policy, responder, rows, TokenShare())
    nats = [direct_nats(policy.model, e.prompt_ids, e.target_ids) for e in rows]
    tokens = sum(len(e.target_ids) for e in rows)
    assert before["validation/sft_loss"] == pytest.approx(sum(nats) / tokens, rel=1e-5)
    assert before["validation/kl_nats"] == pytest.approx(0, abs=1e-4)
    samples = [s for _, batch in generate(responder, rows, batch_size=4, seed=0) for s in batch]
    score = sum(TokenShare().score(samples)) / len(rows)
    assert before["validation/score"] == pytest.approx(score)
    assert before == look(policy, responder, rows, TokenShare())
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(1.3)
    after = look(policy, responder, rows, TokenShare())
    assert after["validation/kl_nats"] > 0.1
    assert after["validation/sft_loss"] != before["validation/sft_loss"]


def test_validation_without_a_reward_writes_nothing(tiny_model_dir, tiny_tokenizer):
    policy = Policy(model_of(tiny_model_dir()))
    responder = Responder(policy.model, tiny_tokenizer, DECODING, policy.trunk)
    assert set(look(policy, responder, examples(tiny_tokenizer), None)) == {"validation/sft_loss"}
