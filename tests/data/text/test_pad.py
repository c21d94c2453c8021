"""PAD differs from everything that ends a response, in the pipeline and in the library."""

import pytest
import torch

from mht import HybridTrainer
from mht.assets.fetch import fetch_policy
from mht.assets.padding import set_pad
from mht.config import ModelConfig
from mht.core.errors import ModelError
from mht.data.examples.example import collate_sft
from mht.data.text.special import control_tokens
from mht.data.text.texts import Codec
from mht.generation.sampling.rollout import Responder, end_tokens
from mht.models.loading import load_causal_lm, load_tokenizer
from tests.support.models import make_tiny_tokenizer
from tests.support.tokenizer_layouts import TURNS, byte_bpe, fast, tiny_llama


def model_for(tokenizer, ends):
    model = tiny_llama(tokenizer)
    model.generation_config.eos_token_id = ends
    return model


def qwen_layout():
    """As Qwen2.5-Instruct: the PAD is among the tokens that end a response."""
    core = byte_bpe(more=("<|endoftext|>", *TURNS))
    tokenizer = fast(core, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None)
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    return model_for(tokenizer, ends), tokenizer, ends


def test_a_pad_among_the_end_tokens_is_replaced():
    model, tokenizer, ends = qwen_layout()
    set_pad(model, tokenizer)
    assert tokenizer.pad_token_id not in ends and {*ends} <= end_tokens(model, tokenizer)
    assert model.generation_config.eos_token_id == ends, "both still end a response"
    assert model.generation_config.pad_token_id == model.config.pad_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id


def test_a_folder_of_that_layout_is_trained(tmp_path):
    model, tokenizer, ends = qwen_layout()
    model.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    fetch_policy(ModelConfig(name=str(tmp_path / "theirs")), tmp_path / "base")
    trainer = HybridTrainer(tmp_path / "base", device="cpu", reward_fn=lambda *_, **__: 1.0)
    assert {*ends} <= trainer.responder.eos_ids and trainer.responder.pad_id not in ends
    prompt = Codec(trainer.tokenizer, trainer.responder.eos_ids).read_text("the film")
    responses = trainer.respond_to_batch(torch.tensor([prompt.ids, prompt.ids]))
    assert trainer.ppo_step(torch.tensor([prompt.ids] * 2), responses, [0.0, 1.0])


def test_the_advice_that_a_responder_gives_works():
    model, tokenizer, _ = qwen_layout()
    options = {"response_tokens": 4, "temperature": 1.0}
    with pytest.raises(ModelError, match=r"mht\.assets\.padding\.set_pad\(model, tokenizer\)"):
        Responder(model, tokenizer, options)
    set_pad(model, tokenizer)
    assert Responder(model, tokenizer, options).pad_id == tokenizer.pad_token_id


def test_special_tokens_that_are_content_do_not_become_the_pad():
    tokenizer = make_tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.add_special_tokens({"additional_special_tokens": ["<answer>", "</answer>"]})
    set_pad(model_for(tokenizer, [2]), tokenizer)
    assert tokenizer.pad_token not in ("<answer>", "</answer>", None)
    assert not {"<answer>", "</answer>"} & control_tokens(tokenizer).keys()


def test_a_new_pad_takes_no_name_that_is_there():
    core = byte_bpe(more=("<|pad|>",))
    tokenizer = fast(core, eos_token="<|pad|>", pad_token="<|pad|>")
    model = model_for(tokenizer, None)
    for name in ("<s>", "</s>", "<pad>"):  # all in use
        model.generation_config.eos_token_id = [
            *(model.generation_config.eos_token_id or []), tokenizer.convert_tokens_to_ids(name)
        ]  # fmt: skip
    set_pad(model, tokenizer)
    assert tokenizer.pad_token == "<|pad_1|>"
    assert tokenizer.pad_token_id < model.get_input_embeddings().weight.shape[0]


def test_a_pad_beyond_the_models_rows_gets_one():
    tokenizer = make_tiny_tokenizer()
    model = model_for(tokenizer, [2])
    tokenizer.add_special_tokens({"pad_token": "<mine>"})
    set_pad(model, tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == tokenizer.pad_token_id + 1


def test_eos_and_pad_inside_a_text_are_real_tokens(tmp_path):
    model, tokenizer, _ = qwen_layout()
    set_pad(model, tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_causal_lm(tmp_path), load_tokenizer(tmp_path)
    assert loaded[1].pad_token_id == loaded[0].generation_config.pad_token_id
    from mht.data.examples.example import Example

    pad = tokenizer.pad_token_id
    batch = collate_sft([Example("0" * 16, "", "", [pad, 9], [9, pad, 9])], pad)
    assert batch["attention_mask"].tolist() == [[1] * 5]
