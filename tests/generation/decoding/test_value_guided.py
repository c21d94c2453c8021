"""Value-guided decoding against brute force, and the value head read from a folder."""

import pytest
import torch

from mht.core.errors import ModelError, UserError
from mht.generation.decoding import ValueGuided, generate, read_value_head
from mht.generation.decoding.value_guided import guided_sample
from mht.generation.sampling.draw import truncate_logits
from mht.generation.sampling.rollout import Responder
from mht.generation.sampling.seeds import RowSeeds
from mht.models.hf.logits import logits_at
from mht.models.logprobs import response_logprobs
from mht.models.policy import Policy
from tests.support.training import (
    EOS,
    KINDS,
    PAD,
    critic,
    examples,
    model_of,
    responses_of,
    rollout_of,
)

PROMPTS = [[40, 41, 42, 43], [50], [60, 61]]
TOKENS, BETA = 6, 2.0
ENDS = set(range(100, 180))  # many, so that candidates and responses end


def with_head(model, kind="linear"):
    policy = Policy(model, value_head=critic(type=kind))
    torch.manual_seed(0)
    for parameter in policy.value_head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return policy


def guided(model, head, prompts=PROMPTS, left=0, seeds=(1, 2, 3), **options):
    batch = rollout_of(prompts, [[9]] * len(prompts), left=left)
    options = {
        "beta": BETA, "candidates": 5, "response_tokens": TOKENS, "eos_ids": ENDS, "pad_id": PAD,
    } | options  # fmt: skip
    numbers = RowSeeds(list(seeds)[: len(prompts)])
    return guided_sample(
        model, head, batch.prompt_ids, batch.prompt_mask, generator=numbers, **options
    )


def says(model, head, tokens):
    """Logits after a text, and the value of the state that it is."""
    ids = torch.tensor([tokens])
    logits, hidden = logits_at(
        model, torch.ones(1, 1, dtype=torch.bool), ids, torch.ones_like(ids, dtype=torch.bool)
    )
    return logits[0].float(), float(head(hidden)[0])


def brute_force(model, head, text, *, last, temperature, **truncation):
    """Token to log-probability among the candidates, one pass over the text for each."""
    logits, value = says(model, head, text)
    shaped = truncate_logits((logits / temperature).log_softmax(-1)[None], **truncation)[0]
    options = shaped.topk(5)
    values = [
        value if last or token in ENDS else says(model, head, [*text, token])[1]
        for token in options.indices.tolist()
    ]
    weighed = (options.values + BETA * torch.tensor(values)).log_softmax(-1)
    return dict(zip(options.indices.tolist(), weighed.tolist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_token_is_drawn_from_what_brute_force_gives(tiny_model_dir, kind):
    policy = with_head(model_of(tiny_model_dir(kind)))
    model, head = policy.model, policy.value_head
    options = {"temperature": 0.8, "top_p": 0.9}
    rollout, logprobs = guided(model, head, left=2, **options)
    assert len(set(rollout.lengths.tolist())) > 1, "no row ends early"
    for row, (prompt, response) in enumerate(zip(PROMPTS, responses_of(rollout), strict=True)):
        for place, token in enumerate(response):
            text = [*prompt, *response[:place]]
            chances = brute_force(model, head, text, last=place == TOKENS - 1, **options)
            assert float(logprobs[row, place]) == pytest.approx(chances[token], abs=2e-3)
    forced = response_logprobs(model, rollout, 0.8)
    torch.testing.assert_close(rollout.logprobs, forced, atol=1e-4, rtol=0)
    assert (logprobs[~rollout.response_mask] == 0).all()


def test_without_weight_it_is_plain_sampling(tiny_model_dir):
    policy = with_head(model_of(tiny_model_dir()))
    rollout, logprobs = guided(policy.model, policy.value_head, beta=0.0, candidates=10**6)
    torch.testing.assert_close(logprobs, rollout.logprobs, atol=1e-5, rtol=0)


def test_a_row_does_not_depend_on_the_others(tiny_model_dir):
    policy = with_head(model_of(tiny_model_dir()))
    together, _ = guided(policy.model, policy.value_head, left=3)
    for row, seed in enumerate((1, 2, 3)):
        alone, _ = guided(policy.model, policy.value_head, [PROMPTS[row]], seeds=[seed])
        assert responses_of(alone)[0] == responses_of(together)[row]


def test_guidance_raises_the_values_and_greedy_takes_the_best(tiny_model_dir, tiny_tokenizer):
    policy = with_head(model_of(tiny_model_dir()))
    decoding = {"response_tokens": 6, "temperature": 1.0}
    responder = Responder(policy.model, tiny_tokenizer, decoding)
    rows = examples(tiny_tokenizer, 6) * 8

    def mean_value(beta):
        found = generate(ValueGuided(policy.value_head, beta), responder, rows)
        texts = [e.prompt_ids + t for e, t in zip(rows, found.tokens, strict=True)]
        values = [says(policy.model, policy.value_head, t[:-1])[1] for t in texts]
        return sum(values) / len(values), found.figures["kl_nats"]

    with torch.no_grad():
        (low, _), (high, kl) = mean_value(0.0), mean_value(5.0)
    assert high > low + 0.1
    assert kl > 0.5
    greedy = [
        guided(policy.model, policy.value_head, temperature=0, seeds=seeds)[0].response_ids
        for seeds in ((1, 2, 3), (4, 5, 6))
    ]
    assert torch.equal(*greedy)


# -- the head from a folder -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_saved_head_is_read(tiny_model_dir, tiny_tokenizer, tmp_path, kind):
    policy = with_head(model_of(tiny_model_dir()), kind)
    policy.save(tmp_path, tiny_tokenizer)
    head = read_value_head(model_of(tmp_path), tmp_path)
    hidden = torch.randn(4, 32)
    torch.testing.assert_close(head(hidden), policy.value_head(hidden))
    assert not any(p.requires_grad for p in head.parameters())


def test_heads_that_do_not_guide(tiny_model_dir, tiny_tokenizer, tmp_path):
    folder = tiny_model_dir()
    with pytest.raises(ModelError, match="no value_head.safetensors"):
        read_value_head(model_of(folder), folder)
    branch = critic(type="branch", num_layers=1)
    for head, what in ((critic(), "no PPO step has trained it"), (branch, "of type branch")):
        Policy(model_of(folder), value_head=head).save(tmp_path, tiny_tokenizer)
        with pytest.raises(ModelError, match=what):
            read_value_head(model_of(tmp_path), tmp_path)
    with_head(model_of(folder)).save(tmp_path, tiny_tokenizer)
    with pytest.raises(ModelError, match="does not fit the model"):
        wider = model_of(folder)
        wider.config.hidden_size = 48
        read_value_head(wider, tmp_path)
    with pytest.raises(UserError, match="candidates should be at least 1"):
        ValueGuided(None, candidates=0)
    assert EOS not in ENDS
