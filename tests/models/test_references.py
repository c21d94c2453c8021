"""Several references: their penalties add up, where they count, what they share, mistakes."""

from types import SimpleNamespace

import pytest
import torch

from mht import HybridTrainer
from mht.algorithms.base import Trainee
from mht.algorithms.ppo.step import PPO
from mht.algorithms.sft import batch_loss
from mht.checks.watched import check_watched, files_of_training
from mht.config import LoRAConfig, ReferenceConfig
from mht.core.errors import ConfigError, ModelError, UserError
from mht.data.examples.example import collate_sft
from mht.losses import kl_estimate
from mht.models.hf.layers import decoder_layers
from mht.models.loading import load_tokenizer
from mht.models.policy import Policy
from mht.models.references import References
from mht.optim.optimizers import make_optimizer, make_scheduler
from mht.optim.updater import Updater
from tests.support.models import make_tiny_tokenizer
from tests.support.ppo import SCORES, ppo_step, sampled, weights
from tests.support.training import EOS, KINDS, examples, hybrid_config, model_of, rollout_of

PROMPTS = [[40, 41, 42, 43], [50], [60, 61]]
RESPONSES = [[70, 71, EOS], [80, 81, 82, 83, 84], [90]]


def references_of(folder, policy=None, /, **references):
    """``name=(model, kl_coef)`` or ``(model, kl_coef, where)``."""
    keys = ("model", "kl_coef", "where")
    configs = {
        name: ReferenceConfig(**dict(zip(keys, (str(r[0]), *r[1:]), strict=False)))
        for name, r in references.items()
    }
    return References(configs, policy or Policy(model_of(folder), 1), load_tokenizer(folder))


def plain_logprobs(folder, prompt, response):
    ids = torch.tensor([prompt + response])
    with torch.no_grad():
        logprobs = model_of(folder)(input_ids=ids).logits.log_softmax(-1)[0]
    return [logprobs[len(prompt) + i - 1, t].item() for i, t in enumerate(response)]


def ppo_of(folder, references=None, *, lr=1e-3, unfrozen=1, **changes):
    config = hybrid_config(**changes)
    policy = Policy(model_of(folder), unfrozen)
    made = make_optimizer(policy.parameters(), {"type": "sgd"}, lr)
    updater = Updater(policy.parameters(), made, make_scheduler(made), config.max_grad_norm)
    further = references_of(folder, policy, **references) if references else None
    return PPO(Trainee(policy, updater, config, -1, further))


# -- the penalty --------------------------------------------------------------------------------


def test_the_penalty_by_hand(tiny_model_dir):
    """Two references: each token loses .5 of its log ratio to the one and .25 to the other."""
    folder, a, b = (tiny_model_dir(seed=seed) for seed in (0, 1, 2))
    further = references_of(folder, a=(a, 0.5), b=(b, 0.25))
    rollout = rollout_of(PROMPTS, RESPONSES, left=1, right=1)
    own = further.policy.score(rollout).logprobs.detach()
    penalty, figures = further.penalty(own, rollout)
    sums = {"a": 0.0, "b": 0.0}
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        mine, in_a, in_b = (plain_logprobs(f, prompt, response) for f in (folder, a, b))
        expected = [
            0.5 * (p - q) + 0.25 * (p - r) for p, q, r in zip(mine, in_a, in_b, strict=True)
        ]
        assert penalty[row, : len(response)].tolist() == pytest.approx(expected, abs=1e-4)
        assert (penalty[row, len(response) :] == 0).all()
        sums["a"] += sum(p - q for p, q in zip(mine, in_a, strict=True))
        sums["b"] += sum(p - r for p, r in zip(mine, in_b, strict=True))
    for name, nats in sums.items():
        assert figures[f"kl/{name}/k1_nats"] == pytest.approx(nats / 3, abs=1e-4)
    assert figures.keys() == {"kl/a/k1_nats", "kl/b/k1_nats"}


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_estimator_and_temperature_are_those_of_the_main_reference(tiny_model_dir, kind):
    folder, other = tiny_model_dir(), tiny_model_dir(seed=1)
    further = references_of(folder, other=(other, 2.0))
    rollout = rollout_of(PROMPTS, RESPONSES)
    own = further.policy.score(rollout, temperature=0.7).logprobs.detach()
    ref = Policy(model_of(other)).score(rollout, temperature=0.7).logprobs.detach()
    penalty, _ = further.penalty(own, rollout, temperature=0.7, kind=kind)
    expected = 2 * kl_estimate(own, ref, kind) * rollout.response_mask
    torch.testing.assert_close(penalty, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_a_second_reference_like_the_first_adds_its_coefficient(tiny_model_dir, unfrozen):
    """kl_coef .3 and a reference with .2, or kl_coef .5: the same steps."""
    folder = tiny_model_dir()
    settings = {"lr": 0.1, "unfrozen": unfrozen, "kl_estimator": "k3"}
    one = ppo_of(folder, kl_coef=0.5, **settings)
    two = ppo_of(folder, {"same": (folder, 0.2)}, kl_coef=0.3, **settings)
    for step in range(3):
        stats = [ppo_step(ppo, sampled(ppo, seed=step), SCORES) for ppo in (one, two)]
        torch.testing.assert_close(weights(two), weights(one), atol=1e-5, rtol=1e-4)
    assert stats[1]["kl/same/k1_nats"] == pytest.approx(stats[1]["kl/k1_nats"], abs=1e-4)
    assert abs(stats[0]["kl/k3_nats"]) > 1e-4, "it has left the reference"
    without = ppo_of(folder, kl_coef=0.3, **settings)
    for step in range(3):
        ppo_step(without, sampled(without, seed=step), SCORES)
    assert (weights(without) - weights(one)).abs().max() > 1e-6


def test_the_adaptive_coefficient_looks_at_the_main_reference_alone(tiny_model_dir):
    control = {"type": "adaptive", "target": 6.0, "horizon": 100}
    far = {"far": (tiny_model_dir(seed=1), 0.1)}
    ppo = ppo_of(tiny_model_dir(), far, kl_coef=0.1, kl_control=control)
    stats = ppo_step(ppo, sampled(ppo), SCORES)
    assert stats["kl/far/k1_nats"] > 6 > stats["kl/k1_nats"]
    assert ppo.kl_control.value < 0.1


# -- where they count ---------------------------------------------------------------------------

ITEMS = [{"domain": "law"}, {"domain": "tax", "old": True}, {}]


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"domain": "law"}, [0]),
        ({"domain": ["law", "tax"]}, [0, 1]),
        ({"domain": ["law", "tax"], "old": True}, [1]),
        ({"domain": "art"}, []),
    ],
)
def test_a_reference_of_some_domains(tiny_model_dir, where, rows):
    folder, other = tiny_model_dir(), tiny_model_dir(seed=1)
    rollout = rollout_of(PROMPTS, RESPONSES)
    everywhere = references_of(folder, other=(other, 0.5))
    some = references_of(folder, everywhere.policy, other=(other, 0.5, where))
    own = everywhere.policy.score(rollout).logprobs.detach()
    full, _ = everywhere.penalty(own, rollout)
    part, figures = some.penalty(own, rollout, ITEMS)
    for row in range(3):
        expected = full[row] if row in rows else torch.zeros_like(full[row])
        torch.testing.assert_close(part[row], expected, atol=1e-5, rtol=0)
    assert figures["kl/other/share"] == len(rows) / 3
    mean = float(full[rows].sum()) / 0.5 / len(rows) if rows else 0.0
    assert figures["kl/other/k1_nats"] == pytest.approx(mean, abs=1e-4)


def test_the_trainer_hands_on_the_rows_of_the_data(tiny_model_dir, tiny_tokenizer):
    """`training.examples` number their rows."""
    where = {"number": [0, 1, 2]}
    reference = {"model": str(tiny_model_dir(seed=1)), "kl_coef": 0.1, "where": where}
    trainer = HybridTrainer(
        tiny_model_dir(), tiny_tokenizer, examples(tiny_tokenizer, 8),
        config=hybrid_config(references={"other": reference}), device="cpu",
    )  # fmt: skip
    seen = []
    trainer.train([(0, 1)], lambda stats, step: seen.append(stats))
    assert seen[0]["ppo/kl/other/share"] == 3 / 8  # one pass of all 8
    prompts = torch.tensor([[40], [50]])
    responses = trainer.respond_to_batch(prompts)
    stats = trainer.ppo_step(prompts, responses, [0.0, 1.0], items=[{"number": 1}, {}])
    assert stats["kl/other/share"] == 0.5
    with pytest.raises(UserError, match=r"ppo\.references\.other\.where: .* give ppo_step its"):
        trainer.ppo_step(prompts, trainer.respond_to_batch(prompts), [0.0, 1.0])


@pytest.mark.parametrize(
    ("where", "said"),
    [({"number": 99}, "number is 0, 1, 2, 3, 4, ..."), ({"nunber": 1}, "no column nunber")],
)
def test_a_domain_that_the_data_does_not_have(tiny_model_dir, tiny_tokenizer, where, said):
    reference = {"model": str(tiny_model_dir()), "kl_coef": 0.1, "where": where}
    with pytest.raises(ConfigError, match=r"ppo\.references\.other\.where: no row") as caught:
        HybridTrainer(
            tiny_model_dir(), tiny_tokenizer, examples(tiny_tokenizer),
            config=hybrid_config(references={"other": reference}), device="cpu",
        )  # fmt: skip
    assert said in str(caught.value)


# -- what they share ----------------------------------------------------------------------------


def held(*models):
    return {p.data_ptr() for m in models for p in m.parameters()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [None, LoRAConfig(r=2)], ids=["plain", "lora"])
def test_a_reference_like_the_start_takes_no_memory(tiny_model_dir, kind, lora):
    folder = tiny_model_dir(kind, layers=3)
    policy = Policy(model_of(folder), 1, lora=lora)
    further = references_of(folder, policy, same=(folder, 0.1), again=(folder, 0.2))
    same, again = further.all
    assert same.model is again.model
    assert held(same.model) <= held(policy.model, policy.reference)
    assert same.shares_trunk


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_with_the_same_lower_layers_shares_them(
    tiny_model_dir, tiny_tokenizer, tmp_path, kind
):
    """As models/base beside models/sft, of which only the top has trained."""
    base = tiny_model_dir(kind, layers=3)
    tuned = HybridTrainer(
        base, tiny_tokenizer, examples(tiny_tokenizer), lrate=1e-2, num_layers_unfrozen=1,
        device="cpu",
    )  # fmt: skip
    for _ in range(3):
        tuned.sft_step(collate_sft(examples(tiny_tokenizer), 3))
    tuned.save(tmp_path)
    policy = Policy(model_of(tmp_path), 1)
    further = references_of(tmp_path, policy, base=(base, 1.0))
    (reference,) = further.all
    assert reference.shares_trunk
    lower = list(decoder_layers(policy.model))[:2]
    assert list(decoder_layers(reference.model))[:2] == lower
    assert held(list(decoder_layers(reference.model))[2]).isdisjoint(held(policy.reference))
    rollout = policy.with_trunk(rollout_of(PROMPTS, RESPONSES))
    own = policy.score(rollout).logprobs.detach()
    with torch.no_grad():
        for layer in lower:  # not computed again
            for p in layer.parameters():
                p.fill_(float("nan"))
    penalty, _ = further.penalty(own, rollout)
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        wanted = own[row, : len(response)] - torch.tensor(plain_logprobs(base, prompt, response))
        torch.testing.assert_close(penalty[row, : len(response)], wanted, atol=1e-4, rtol=0)


def test_another_model_shares_nothing_and_trains_nothing(tiny_model_dir, tiny_tokenizer):
    folder, other = tiny_model_dir(), tiny_model_dir(seed=1)
    policy = Policy(model_of(folder), "all")
    further = references_of(folder, policy, other=(other, 0.1))
    (reference,) = further.all
    shared = held(reference.model) & held(policy.reference)
    norms = [m for m in policy.reference.modules() if "Norm" in type(m).__name__]
    assert shared == held(*norms), "all ones in both"
    assert held(reference.model).isdisjoint(held(policy.model))
    assert not any(p.requires_grad for p in reference.model.parameters())
    assert not {id(p) for p in reference.model.parameters()} & {id(p) for p in policy.parameters()}
    before = {n: p.clone() for n, p in reference.model.state_dict().items()}
    made = make_optimizer(policy.parameters(), {"type": "adamw"}, 1e-2)
    updater = Updater(policy.parameters(), made, make_scheduler(made), 1.0)
    updater.step(batch_loss(policy.model, collate_sft(examples(tiny_tokenizer), 3)))
    assert all(torch.equal(p, before[n]) for n, p in reference.model.state_dict().items())


# -- mistakes -----------------------------------------------------------------------------------


def test_another_vocabulary_is_refused(tiny_model_dir, tmp_path):
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens(["<more>"])
    model = model_of(tiny_model_dir(seed=1))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r"ppo\.references\.other\.model: .* another vocabulary .*1 differing"
    ) as caught:
        references_of(tiny_model_dir(), other=(tmp_path, 0.1))
    assert "\n" not in str(caught.value)


def test_a_reference_that_is_not_there(tiny_model_dir, tmp_path):
    with pytest.raises(ModelError, match=r"ppo\.references\.other\.model: .*nowhere: no such fold"):
        references_of(tiny_model_dir(), other=(tmp_path / "nowhere", 0.1))


def test_dvc_must_watch_a_reference_that_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("models/base", "data/local/mine"):
        (tmp_path / name).mkdir(parents=True)
    references = {
        "base": {"model": "models/base", "kl_coef": 0.1},
        "hub": {"model": "someone/model", "kl_coef": 0.1},
    }
    run = SimpleNamespace(deps=("models/base", "models/sft"))
    check_watched(files_of_training(hybrid_config(references=references), "ppo"), run.deps)
    mine = {"mine": {"model": "data/local/mine", "kl_coef": 0.1}}
    settings = hybrid_config(references=references | mine)
    with pytest.raises(ConfigError) as caught:
        check_watched(files_of_training(settings, "baselines.ppo_only"), run.deps)
    (problem,) = caught.value.problems
    assert problem.startswith("baselines.ppo_only.references.mine.model: DVC does not watch")
    check_watched(files_of_training(settings, "ppo"), ("models/base", "data/local"))
    check_watched(files_of_training(settings, "ppo"), ())  # not run by DVC
