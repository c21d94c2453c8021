"""A model that comes with an adapter of its own: that trains, and what is saved is merged."""

import pytest
import torch
from peft import (
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftMixedModel,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from transformers import AutoModelForCausalLM

from mht.core.errors import ModelError, UserError
from tests.support.jobs import Job, ends_the_same
from tests.support.training import (
    EOS,
    PAD,
    model_of,
    rollout_of,
    trainer_of,
)

PROMPTS, RESPONSES = [[40, 41, 42, 43], [50]], [[70, 71, EOS], [80, 81]]
IDS = torch.tensor([[40, 41, 42, 43, 70, 71]])
LORA = {"r": 2, "lora_alpha": 8, "init_lora_weights": False, "task_type": "CAUSAL_LM"}


def lora(**options):
    torch.manual_seed(0)
    return LoraConfig(**LORA | options)


def adapted(folder, config=None):
    return get_peft_model(model_of(folder), config or lora())


def logits_of(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def steps(trainer, plan=((1, 1), (1, 1))):
    figures = []
    trainer.train(list(plan), log=lambda stats, step: figures.append(stats))
    return figures


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("unfrozen", [1, "all"])
@pytest.mark.parametrize(
    "options", [{}, {"use_dora": True}, {"use_rslora": True, "lora_dropout": 0.5}], ids=str
)
def test_it_is_taken_as_it_is(tiny_model_dir, tiny_tokenizer, tmp_path, kind, unfrozen, options):
    folder = tiny_model_dir(kind, layers=3)
    given = adapted(folder, lora(**options, fan_in_fan_out=kind == "gpt2"))
    first = logits_of(given)
    base = logits_of(model_of(folder))
    assert (first - base).abs().max() > 0.1
    trainer = trainer_of(given, tiny_tokenizer, num_layers_unfrozen=unfrozen, lrate=1e-2)
    torch.testing.assert_close(logits_of(trainer.policy.reference), first, atol=1e-5, rtol=1e-5)
    (figures,) = steps(trainer, [(0, 1)])
    assert figures["ppo/kl/k1_nats"] == pytest.approx(0, abs=1e-5)

    before = {n: p.detach().clone() for n, p in trainer.policy.model.named_parameters()}
    steps(trainer)
    changed = {
        n for n, p in trainer.policy.model.named_parameters() if not torch.equal(p, before[n])
    }
    assert changed and all("lora_" in name for name in changed)
    layers = {name.split(".layers.")[-1].split(".h.")[-1][0] for name in changed}
    assert layers == ({"2"} if unfrozen == 1 else {"0", "1", "2"})

    trainer.save(tmp_path)
    assert not list(tmp_path.glob("adapter*"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    own = logits_of(trainer.policy.model)
    torch.testing.assert_close(logits_of(again), own, atol=1e-4, rtol=1e-4)
    assert (own - first).abs().max() > 1e-3
    torch.testing.assert_close(logits_of(trainer.policy.reference), first, atol=1e-5, rtol=1e-5)


def test_one_loaded_for_inference_trains_too(tiny_model_dir, tiny_tokenizer, tmp_path):
    folder = tiny_model_dir()
    given = adapted(folder)
    given.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(model_of(folder), tmp_path / "adapter")
    assert not any(p.requires_grad for p in loaded.parameters())
    trainer = trainer_of(loaded, tiny_tokenizer)
    trained = [n for n, p in trainer.policy.model.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_folder_of_an_adapter(tiny_model_dir, tiny_tokenizer, tmp_path, dtype):
    """As `AutoModelForCausalLM` loads it, by name or given."""
    given = adapted(tiny_model_dir())
    given.save_pretrained(tmp_path / "adapter")
    first = logits_of(given)
    for model in (
        str(tmp_path / "adapter"),
        AutoModelForCausalLM.from_pretrained(tmp_path / "adapter"),
    ):
        trainer = trainer_of(model, tiny_tokenizer, dtype=dtype)
        close = {"atol": 1e-5, "rtol": 1e-5} if dtype == "float32" else {"atol": 0.5, "rtol": 0.1}
        reference = logits_of(trainer.policy.reference).float()
        torch.testing.assert_close(reference, first, **close)
        steps(trainer, [(1, 1)])
        trainer.save(tmp_path / "saved")
        assert not list((tmp_path / "saved").glob("adapter*"))
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
        torch.testing.assert_close(
            logits_of(again), logits_of(trainer.policy.model).float(), **close
        )


def test_the_active_one_of_two_trains(tiny_model_dir, tiny_tokenizer, tmp_path):
    given = adapted(tiny_model_dir())
    given.add_adapter("other", lora(r=4))
    given.set_adapter("other")
    trainer = trainer_of(given, tiny_tokenizer)
    trained = [n for n, p in trainer.policy.model.named_parameters() if p.requires_grad]
    assert trained and all(".other." in name for name in trained)
    steps(trainer)
    trainer.save(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(
        logits_of(again), logits_of(trainer.policy.model), atol=1e-4, rtol=1e-4
    )


def test_a_killed_run_goes_on_exactly(tiny_model_dir, tiny_tokenizer, tmp_path):
    def job(name):
        return Job(
            tmp_path / name,
            lambda: adapted(tiny_model_dir()),
            tiny_tokenizer,
            unfrozen="all",
            plan=[(1, 1)] * 2,
        )

    ends_the_same(job, 5)


# -- what can't be so is one line ---------------------------------------------------------------


def with_two_active(folder):
    given = adapted(folder)
    given.add_adapter("other", lora())
    given.base_model.set_adapter(["default", "other"])
    return given


def disabled(folder):
    given = adapted(folder)
    given.base_model.disable_adapter_layers()
    return given


def merged_in_place(folder):
    given = adapted(folder)
    given.merge_adapter()
    return given


REFUSED = {
    "PROMPT_TUNING": lambda f: get_peft_model(
        model_of(f), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    ),
    "PREFIX_TUNING": lambda f: get_peft_model(
        model_of(f), PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    ),
    "several active adapters .default, other": with_two_active,
    "its adapters disabled": disabled,
    "its adapter merged but still there": merged_in_place,
    "several kinds of adapters": lambda f: PeftMixedModel(model_of(f), lora()),
    "no LoRA adapter that is active": lambda f: get_peft_model(
        model_of(f), LoHaConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    ),
    "no LoRA adapter": lambda f: get_peft_model(
        model_of(f),
        IA3Config(target_modules=["q_proj"], feedforward_modules=[], task_type="CAUSAL_LM"),
    ),
    "whole modules or tokens": lambda f: adapted(f, lora(modules_to_save=["lm_head"])),
    "whole modules or tokens that": lambda f: adapted(f, lora(trainable_token_indices=[5, 6])),
    "biases that train": lambda f: adapted(f, lora(bias="all")),
}


@pytest.mark.parametrize("says", list(REFUSED))
def test_what_can_not_be_trained_and_merged(tiny_model_dir, tiny_tokenizer, says):
    with pytest.raises(ModelError, match=says) as caught:
        trainer_of(REFUSED[says](tiny_model_dir()), tiny_tokenizer)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("base_model_name: the model has ")


def test_an_adapter_on_tied_embeddings(tiny_model_dir, tiny_tokenizer):
    given = adapted(tiny_model_dir("gpt2"), lora(target_modules=["wte", "c_attn"]))
    with pytest.raises(ModelError, match="on embeddings that are tied"):
        trainer_of(given, tiny_tokenizer)


def test_beside_lora_options(tiny_model_dir, tiny_tokenizer):
    with pytest.raises(UserError, match=r"model\.lora: the model has an adapter already"):
        trainer_of(adapted(tiny_model_dir()), tiny_tokenizer, lora={"r": 2})


def test_what_a_refusal_advises_works(tiny_model_dir, tiny_tokenizer):
    given = adapted(tiny_model_dir())
    first = logits_of(given)
    trainer = trainer_of(given.merge_and_unload(), tiny_tokenizer, lora={"r": 2})
    torch.testing.assert_close(logits_of(trainer.policy.model), first, atol=1e-5, rtol=1e-5)
    rollout = rollout_of(PROMPTS, RESPONSES, pad=PAD)
    own = trainer.policy.score(rollout).logprobs.detach()
    assert torch.equal(own, trainer.policy.ref_logprobs(rollout))
