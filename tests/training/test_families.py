"""The same settings train every family of models, and padding changes no loss of any."""

import pytest
import torch

from mht.algorithms.sft import batch_loss
from mht.config import load_config
from mht.generation.sampling.rollout import Responder
from mht.models.hf.layers import decoder_layers
from mht.models.policy import Policy
from mht.training.hybrid import HybridTrainer
from tests.support.training import EOS, PAD, TokenShare, examples, model_of, rollout_of

FAMILIES = ["gpt2", "llama", "qwen2", "qwen3", "gemma2", "gemma3_text"]
LENGTHS = [(30, 5), (3, 24), (1, 1), (19, 9)]  # of prompts and responses; Gemma's window is 16
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def rows():
    """Prompts and responses as token lists; one response ends with EOS."""
    generator = torch.Generator().manual_seed(0)
    drawn = [
        [torch.randint(10, 400, (n,), generator=generator).tolist() for n in pair]
        for pair in LENGTHS
    ]
    drawn[3][1][-1] = EOS
    return drawn


def sft_batch(rows, side, extra):
    """Texts padded on a side to ``extra`` more columns than the longest; the targets' labels."""
    width = extra + max(len(prompt + response) for prompt, response in rows)
    batch = {"input_ids": [], "attention_mask": [], "labels": []}
    for prompt, response in rows:
        fill = width - len(prompt) - len(response)
        whole = {
            "input_ids": (prompt + response, PAD),
            "attention_mask": ([1] * (len(prompt) + len(response)), 0),
            "labels": ([-100] * len(prompt) + response, -100),
        }
        for name, (values, padding) in whole.items():
            room = [padding] * fill
            batch[name].append(room + values if side == "left" else values + room)
    return {name: torch.tensor(values) for name, values in batch.items()}


def test_padding_leaves_the_sft_loss_alone(tiny_model_dir, family, rows):
    """One text at a time without padding is what the padded batch has to equal."""
    model = model_of(tiny_model_dir(family))
    model.requires_grad_(False)
    alone = [batch_loss(model, sft_batch([row], "left", 0)) for row in rows]
    lengths = torch.tensor([float(len(response)) for _, response in rows])
    expected = (torch.stack(alone) * lengths).sum() / lengths.sum()
    for side in ("left", "right"):
        for extra in (0, 21):
            loss = batch_loss(model, sft_batch(rows, side, extra))
            torch.testing.assert_close(loss, expected, **TOLERANCE)


def scores_of(policy, rollout):
    with torch.no_grad():
        scores = policy.score(rollout, temperature=0.7, with_entropy=True)
        reference = policy.ref_logprobs(rollout, temperature=0.7)
    mask = rollout.response_mask
    every = (scores.logprobs, scores.values, scores.entropies, reference)
    return [[row[keep] for row, keep in zip(values, mask, strict=True)] for values in every]


@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_padding_leaves_ppo_s_scores_alone(tiny_model_dir, tiny_tokenizer, family, rows, unfrozen):
    """Log-probabilities, values, entropies and the reference; prompts padded on either side."""
    model = model_of(tiny_model_dir(family))
    policy = Policy(model, unfrozen)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    alone = [scores_of(policy, rollout_of([p], [r])) for p, r in rows]
    expected = [[row for (row,) in column] for column in zip(*alone, strict=True)]

    prompts, responses = (list(column) for column in zip(*rows, strict=True))
    padded = [rollout_of(prompts, responses, left=left, right=left) for left in (0, 21)]
    width = max(map(len, prompts)) + 4
    right = torch.tensor([p + [PAD] * (width - len(p)) for p in prompts])
    responder = Responder(model, tiny_tokenizer, {"response_tokens": 24})
    padded.append(responder.rebuild(right, padded[1].response_ids))
    for rollout in [*padded, *map(policy.with_trunk, padded)]:
        torch.testing.assert_close(scores_of(policy, rollout), expected, **TOLERANCE)


@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_the_repository_s_settings_train_it(tiny_model_dir, tiny_tokenizer, family, unfrozen):
    """SFT and PPO steps, with all of ppo's settings but its sizes and its reward."""
    sizes = {"batch_size": 4, "minibatch_size": 2, "sft_batch_size": 2, "epochs": 2}
    small = {**sizes, "reward": TokenShare()}
    config = load_config("params.yaml").ppo.model_copy(update=small)
    folder = tiny_model_dir(family)
    trainer = HybridTrainer(
        folder,
        tiny_tokenizer,
        examples(tiny_tokenizer),
        config=config,
        num_layers_unfrozen=unfrozen,
        device="cpu",
    )
    seen = {}
    trainer.train([(1, 1)], lambda figures, step: seen.update(figures))
    assert trainer.step == 2
    assert seen["ppo/optim/steps"] == 4  # all of them: the first minibatch's ratio was 1
    assert all(torch.isfinite(torch.tensor(value)) for value in seen.values())
    changed = [
        any(not torch.equal(p, q) for p, q in zip(new.parameters(), old.parameters(), strict=True))
        for new, old in zip(
            decoder_layers(trainer.policy.model), decoder_layers(model_of(folder)), strict=True
        )
    ]
    assert changed == [unfrozen == "all", True]
