"""Policy, value head, frozen trunk and reference on four real architectures."""

import pytest
import torch
from torch.nn import functional

from mht.algorithms.sft import batch_loss, microbatches
from mht.core.errors import ModelError
from mht.data.examples.example import collate_sft
from mht.models.hf.layers import decoder_layers
from mht.models.loading import load_causal_lm, load_tokenizer, resolve_device
from mht.models.policy import Policy
from mht.models.trunk import freeze_below
from mht.optim.optimizers import make_optimizer, make_scheduler
from mht.optim.updater import Updater
from tests.support.training import EOS, KINDS, PAD, examples, model_of, rollout_of

PROMPTS = [[40, 41, 42, 43], [50], [60, 61]]
RESPONSES = [[70, 71, EOS], [80, 81, 82, 83, 84], [90]]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def plain_logprobs(model, prompt, response):
    """Of one response, by the model called directly on the bare tokens."""
    ids = torch.tensor([prompt + response])
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits.log_softmax(-1)[0]
    return [logprobs[len(prompt) + i - 1, t].item() for i, t in enumerate(response)]


def updater_of(policy, lr=1e-2):
    optimizer = make_optimizer(policy.parameters(), {"type": "adamw", "weight_decay": 0.1}, lr)
    return Updater(policy.parameters(), optimizer, make_scheduler(optimizer), 1.0)


def state(model):
    return {name: p.detach().clone() for name, p in model.state_dict().items()}


# -- padding ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "right"), [(0, 0), (5, 0), (0, 4), (20, 7)])
@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_padding_leaves_logprobs_alone(tiny_model_dir, kind, unfrozen, left, right):
    """Also what the model gives called directly on each bare text."""
    model = model_of(tiny_model_dir(kind, layers=4))
    expected = [plain_logprobs(model, *row) for row in zip(PROMPTS, RESPONSES, strict=True)]
    policy = Policy(model, unfrozen)
    rollout = rollout_of(PROMPTS, RESPONSES, left=left, right=right)
    for scored in (rollout, policy.with_trunk(rollout)):
        logprobs = policy.score(scored).logprobs.detach()
        assert (logprobs[~rollout.response_mask] == 0).all()
        for row, ref_row, keep, right_ones in zip(
            logprobs, policy.ref_logprobs(scored), rollout.response_mask, expected, strict=True
        ):
            assert row[keep].tolist() == pytest.approx(right_ones, abs=1e-5)
            assert ref_row[keep].tolist() == pytest.approx(right_ones, abs=1e-5)


def test_padding_tokens_may_be_any(tiny_model_dir, kind):
    policy = Policy(model_of(tiny_model_dir(kind)))
    policy.value_head.weight.data.normal_()
    a, b = (
        policy.score(rollout_of(PROMPTS, RESPONSES, left=2, right=2, pad=pad), with_entropy=True)
        for pad in (PAD, 77)
    )
    for name in ("logprobs", "values", "entropies"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=1e-6, rtol=0)


def sft_batches(tokenizer):
    """One set of examples, padded in the ways that users' collators do it."""
    rows = examples(tokenizer, 4)
    texts = [r.prompt_ids + r.target_ids for r in rows]
    labels = [[-100] * len(r.prompt_ids) + r.target_ids for r in rows]
    width = max(map(len, texts)) + 3
    for side in ("left", "right"):
        batch = {"input_ids": [], "attention_mask": [], "labels": []}
        for ids, targets in zip(texts, labels, strict=True):
            fill = width - len(ids)
            for name, row, value in (
                ("input_ids", ids, PAD),
                ("attention_mask", [1] * len(ids), 0),
                ("labels", targets, -100),
            ):
                padding = [value] * fill
                batch[name].append(padding + row if side == "left" else row + padding)
        yield {name: torch.tensor(value) for name, value in batch.items()}
    yield collate_sft(rows, PAD)


def test_sft_loss_is_the_cross_entropy_whatever_the_padding(tiny_model_dir, tiny_tokenizer, kind):
    model = model_of(tiny_model_dir(kind))
    rows = examples(tiny_tokenizer, 4)
    nats, count = 0.0, 0
    for row in rows:
        nats -= sum(plain_logprobs(model, row.prompt_ids, row.target_ids))
        count += len(row.target_ids)
    for batch in sft_batches(tiny_tokenizer):
        with torch.no_grad():
            assert batch_loss(model, batch).item() == pytest.approx(nats / count, abs=1e-5)


def test_sft_loss_of_whole_texts_does_not_learn_from_padding(tiny_model_dir, tiny_tokenizer):
    """With every token labelled, the first has no predecessor, on whichever side padding is."""
    model = model_of(tiny_model_dir())
    losses = []
    for batch in sft_batches(tiny_tokenizer):
        real = batch["attention_mask"].bool()
        labels = torch.where(real, batch["input_ids"], -100)
        losses.append(batch_loss(model, {**batch, "labels": labels}).item())
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_sft_microbatches_add_up_to_the_batch(tiny_model_dir, tiny_tokenizer, size):
    model = model_of(tiny_model_dir())
    for batch in sft_batches(tiny_tokenizer):
        whole = batch_loss(model, batch)
        expected = torch.autograd.grad(whole, list(model.parameters()))
        got = [torch.zeros_like(g) for g in expected]
        parts = list(microbatches(batch, size))
        assert sum(share for _, share, _ in parts) == pytest.approx(1)
        assert all(len(part["labels"]) <= size for part, _, _ in parts)
        for part, share, _ in parts:
            slopes = torch.autograd.grad(share * batch_loss(model, part), list(model.parameters()))
            got = [a + b for a, b in zip(got, slopes, strict=True)]
        torch.testing.assert_close(got, list(expected), atol=1e-6, rtol=1e-4)


def test_prompts_are_masked_from_the_sft_loss(tiny_model_dir, tiny_tokenizer):
    """No gradient reaches a position that only predicts the prompt."""
    model = model_of(tiny_model_dir())
    row = examples(tiny_tokenizer, 1)[0]
    batch = collate_sft([row], PAD)
    picked = len(row.prompt_ids) - 1
    seen = {}
    body = model.base_model
    hook = body.register_forward_hook(lambda _, args, out: seen.update(top=out.last_hidden_state))
    loss = batch_loss(model, batch)
    hook.remove()
    (slope,) = torch.autograd.grad(loss, seen["top"])
    assert (batch["labels"][0, : picked + 1] == -100).all()
    assert (slope[0, :picked] == 0).all()
    assert (slope[0, picked:].abs().amax(1) > 0).all()


def test_a_batch_without_labels_is_refused(tiny_model_dir, tiny_tokenizer):
    batch = collate_sft(examples(tiny_tokenizer, 2), PAD)
    with pytest.raises(ValueError, match="no label"):
        batch_loss(model_of(tiny_model_dir()), {**batch, "labels": batch["labels"] * 0 - 100})


# -- trunk and reference ----------------------------------------------------------------------


def test_replayed_trunk_gives_the_same(tiny_model_dir, kind):
    policy = Policy(model_of(tiny_model_dir(kind, layers=4)), 1)
    policy.value_head.weight.data.normal_()
    rollout = rollout_of(PROMPTS, RESPONSES, left=1)
    full = policy.score(rollout, with_entropy=True)
    replayed = policy.score(policy.with_trunk(rollout), with_entropy=True)
    for name in ("logprobs", "values", "entropies"):
        torch.testing.assert_close(getattr(full, name), getattr(replayed, name), atol=1e-6, rtol=0)


def test_replay_computes_no_frozen_layer(tiny_model_dir, kind):
    policy = Policy(model_of(tiny_model_dir(kind, layers=4)), 1)
    rollout = policy.with_trunk(rollout_of(PROMPTS, RESPONSES))
    with torch.no_grad():
        for layer in list(decoder_layers(policy.model))[:3]:
            for p in layer.parameters():
                p.fill_(float("nan"))
    assert torch.isfinite(policy.score(rollout).logprobs).all()
    assert torch.isfinite(policy.ref_logprobs(rollout)).all()


def test_replay_gives_the_same_gradients(tiny_model_dir, kind):
    policy = Policy(model_of(tiny_model_dir(kind, layers=4)), 2)
    rollout = rollout_of(PROMPTS, RESPONSES)
    gradients = []
    for scored in (rollout, policy.with_trunk(rollout)):
        scores = policy.score(scored)
        parameters = list(policy.parameters())
        gradients.append(torch.autograd.grad((scores.logprobs + scores.values).sum(), parameters))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("unfrozen", [1, 4, "all"])
def test_training_changes_the_top_alone(tiny_model_dir, tiny_tokenizer, kind, unfrozen):
    folder = tiny_model_dir(kind, layers=4)
    policy, initial = Policy(model_of(folder), unfrozen), state(model_of(folder))
    updater, batch = updater_of(policy), collate_sft(examples(tiny_tokenizer), PAD)
    rollout = rollout_of(PROMPTS, RESPONSES)
    with torch.no_grad():
        before = policy.score(rollout).logprobs
    for _ in range(3):
        updater.step(batch_loss(policy.model, batch))
    frozen = 0 if unfrozen == "all" else 4 - unfrozen
    top = {
        id(p) for layer in list(decoder_layers(policy.model))[frozen:] for p in layer.parameters()
    }
    for name, p in policy.model.named_parameters():
        changed = not torch.equal(p, initial[name])
        if id(p) in top or unfrozen == "all":
            assert changed, f"{name} did not train"
        elif p.requires_grad:
            assert "norm" in name or "ln_f" in name
        else:
            assert not changed, f"{name} is frozen and changed"
    with torch.no_grad():
        assert (policy.score(rollout).logprobs - before).abs().max() > 0.01
        torch.testing.assert_close(policy.ref_logprobs(rollout), before, atol=1e-6, rtol=0)
    for name, p in policy.reference.state_dict().items():
        assert torch.equal(p, initial[name]), f"the reference's {name} changed"


def test_the_reference_shares_what_is_frozen(tiny_model_dir, kind):
    policy = Policy(model_of(tiny_model_dir(kind, layers=4)), 1)
    mine, theirs = (
        [{p.data_ptr() for p in layer.parameters()} for layer in decoder_layers(m)]
        for m in (policy.model, policy.reference)
    )
    assert mine[:3] == theirs[:3]
    assert not mine[3] & theirs[3]
    for get in ("get_input_embeddings", "get_output_embeddings"):
        a, b = (getattr(m, get)().weight for m in (policy.model, policy.reference))
        assert a.data_ptr() == b.data_ptr()
    assert not any(p.requires_grad for p in policy.reference.parameters())


def test_all_makes_a_second_model(tiny_model_dir, kind):
    policy = Policy(model_of(tiny_model_dir(kind)), "all")
    mine, theirs = (
        {p.data_ptr() for p in m.parameters()} for m in (policy.model, policy.reference)
    )
    assert len(mine) == len(theirs)
    assert not mine & theirs
    assert not policy.trunk.exists
    assert policy.with_trunk(rollout_of(PROMPTS, RESPONSES)).trunk is None


@pytest.mark.parametrize("wrong", [5, 0, -1])
def test_layers_that_there_are_not(tiny_model_dir, kind, wrong):
    model = model_of(tiny_model_dir(kind, layers=4))
    with pytest.raises(ModelError, match=rf"model\.num_layers_unfrozen: {wrong} .* 4 layers"):
        freeze_below(model, wrong)
    assert all(p.requires_grad for p in model.parameters())


# -- value head, loading ----------------------------------------------------------------------


def test_the_value_head_starts_at_zero_and_sees_the_state_before_the_token(tiny_model_dir):
    policy = Policy(model_of(tiny_model_dir()))
    rollout = rollout_of(PROMPTS, RESPONSES)
    assert (policy.score(rollout).values == 0).all()
    policy.value_head.weight.data.normal_()
    seen = policy.score(rollout).values.detach()
    changed = rollout_of(PROMPTS, [[*r[:-1], 99] for r in RESPONSES])
    torch.testing.assert_close(policy.score(changed).values.detach(), seen, atol=1e-6, rtol=0)
    earlier = rollout_of(PROMPTS, [[99, *r[1:]] for r in RESPONSES])
    other = policy.score(earlier).values.detach()
    torch.testing.assert_close(other[:, 0], seen[:, 0], atol=1e-6, rtol=0)
    assert (other[0, 1] - seen[0, 1]).abs() > 1e-4


def test_save_and_restore(tiny_model_dir, tiny_tokenizer, tmp_path):
    policy = Policy(model_of(tiny_model_dir()))
    policy.value_head.weight.data.normal_()
    policy.value_head.bias.data.fill_(0.5)
    policy.save(tmp_path, tiny_tokenizer)
    again = Policy(model_of(tmp_path))
    assert again.load_value_head(tmp_path)
    rollout = rollout_of(PROMPTS, RESPONSES)
    a, b = policy.score(rollout), again.score(rollout)
    assert torch.equal(a.values, b.values)
    assert torch.equal(a.logprobs, b.logprobs)
    assert load_tokenizer(tmp_path).pad_token_id == PAD


def test_no_value_head_in_the_folder(tiny_model_dir):
    folder = tiny_model_dir()
    assert not Policy(model_of(folder)).load_value_head(folder)


def test_what_is_no_model(tiny_model_dir, tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        load_causal_lm(tmp_path / "nothing_here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no causal language model"):
        load_causal_lm(tmp_path / "empty")
    with pytest.raises(ModelError):
        load_tokenizer(tmp_path / "empty")


def test_a_damaged_weight_file(tiny_model_dir, tmp_path):
    source = tiny_model_dir()
    for file in source.iterdir():
        whole = file.read_bytes()
        cut = len(whole) // 2 if file.suffix == ".safetensors" else len(whole)
        (tmp_path / file.name).write_bytes(whole[:cut])
    with pytest.raises(ModelError, match="holds no causal language model"):
        load_causal_lm(tmp_path)


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    for wrong in ("gpu", "cuda:99"):
        with pytest.raises(ModelError, match=r"base\.device: .* try 'auto'"):
            resolve_device(wrong)


def test_logits_are_computed_where_they_are_wanted_only(tiny_model_dir, kind):
    """The picked logits are those of the whole forward."""
    model = model_of(tiny_model_dir(kind))
    rollout = rollout_of(PROMPTS, RESPONSES, right=2)
    with torch.no_grad():
        picked = Policy(model).score(rollout).logprobs
        mask = rollout.attention_mask
        whole = model(
            input_ids=rollout.input_ids,
            attention_mask=mask,
            position_ids=(mask.long().cumsum(1) - 1).clamp(min=0),
        ).logits[:, rollout.prompt_ids.shape[1] - 1 : -1]
    direct = -functional.cross_entropy(whole.mT, rollout.response_ids, reduction="none")
    torch.testing.assert_close(picked, direct * rollout.response_mask, atol=1e-5, rtol=0)
