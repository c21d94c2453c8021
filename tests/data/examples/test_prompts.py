"""Prompts as examples: shortened at the content alone, refused in one line, with room to answer."""

from collections import Counter
from types import SimpleNamespace

import pytest

from mht.config import DataConfig
from mht.core.component import build
from mht.core.errors import DataError
from mht.data.examples.encoder import Encoder
from mht.data.examples.limits import Limits, context_of, response_lengths
from mht.data.examples.tokenize import cut_row
from mht.data.prepare.labels import clean_row, judged, policy_texts
from mht.data.text.sample import Sample
from mht.data.text.texts import Codec
from tests.support.tokenizer_layouts import LAYOUTS

ENDS = {"long_prompts": "truncate", "source": {"type": "reviews"}}


def encoder(name, limit, **options):
    config = build(DataConfig, {**ENDS, **options}, path="data")
    return Encoder(Codec(LAYOUTS[name]()), config, Limits(limit, None, 0))


def encoded(coder, row, number=1):
    counts = Counter()
    return coder.encode(cut_row(row, 3), row.get("item", {}), number, counts), counts


def turn(role, content):
    return {"role": role, "content": content}


EARLIER = [
    turn("system", "be brief"),
    turn("user", "an old question"),
    turn("assistant", "an old answer"),
    turn("user", "a newer question"),
    turn("assistant", "a newer answer"),
]


@pytest.mark.parametrize("limit", range(40, 130, 6))
def test_a_chat_keeps_its_system_turn_and_headers(limit):
    coder = encoder("chat_with_system", limit)
    row = {"prompt": "the last words count " * 4, "target": "yes", "item": {"turns": EARLIER}}
    example, counts = encoded(coder, row)
    text = coder.codec.tokenizer.decode(example.prompt_ids)
    assert len(example.prompt_ids) <= limit and counts["prompts_truncated"] == 1
    assert text.startswith("<s><|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n")
    assert text.endswith("count <|im_end|>\n<|im_start|>assistant\n")
    kept = [*example.item["turns"], turn("user", example.prompt.split("\n")[-1])]
    assert coder.codec.read_chat(kept).ids == example.prompt_ids, "what rewards are told of"
    assert example.prompt == "\n".join(t["content"] for t in kept)
    roles = [t["role"] for t in kept]
    assert roles in (["system", *["user", "assistant"] * n, "user"] for n in range(3))


def test_old_turns_go_before_the_question_is_cut():
    row = {"prompt": "the film ?", "target": "yes", "item": {"turns": EARLIER}}
    whole = encoded(encoder("chat_with_system", 500), row)[0]
    example, _ = encoded(encoder("chat_with_system", len(whole.prompt_ids) - 1), row)
    assert example.item["turns"] == [EARLIER[0], *EARLIER[3:]] and example.prompt.endswith("film ?")
    assert example.id == whole.id


def test_a_system_turn_that_leaves_no_room_drops_the_row():
    row = {"prompt": "the film ?", "target": "yes", "item": {"turns": EARLIER[:1]}}
    example, counts = encoded(encoder("chat_with_system", 12), row)
    assert example is None and counts == {"dropped_long_prompt": 1}


@pytest.mark.parametrize("name", ["llama_2", "metaspace_first", "eos_behind", "wordpiece"])
def test_a_text_keeps_its_bos_and_its_end(name):
    coder = encoder(name, 9)
    row = {"prompt": "the film is a warm and funny story about an old man", "target": "yes"}
    example, counts = encoded(coder, row)
    assert example.prompt_ids[0] == coder.codec.tokenizer.bos_token_id
    assert counts["prompts_truncated"] == 1 and len(example.prompt_ids) <= 9
    assert row["prompt"].endswith(example.prompt) and example.prompt.endswith("old man")
    assert example.prompt_ids == coder.codec.read_text(f"{example.prompt}\n").ids


@pytest.mark.parametrize("roles", [("system",), ("user",)])
def test_a_template_that_refuses_a_row_names_it(roles):
    turns = [turn(role, "x") for role in roles]
    row = {"prompt": "the film ?", "target": "yes", "item": {"turns": turns}}
    with pytest.raises(DataError) as caught:
        encoded(encoder("chat_without_system", 99), row, 7)
    said = str(caught.value)
    assert said.startswith("row 7 of data.source: the model's chat template refuses")
    assert "\n" not in said and ("not supported" in said or "must alternate" in said)


def test_special_tokens_in_a_row_are_its_text():
    coder = encoder("llama_2", 99)
    row = {"text": "a warm film <s>20</s> 15 story"}
    example, _ = encoded(coder, row)
    assert example.target_ids.count(2) == 1 and 1 not in example.target_ids
    read = coder.codec.response_text(example.prompt_ids, example.target_ids)
    assert read == example.target and example.prompt + read == row["text"]


# limits


def config(ppo=4, baseline=4, evaluated=4, target=4):
    return SimpleNamespace(
        ppo=SimpleNamespace(response_tokens=ppo),
        baselines={"ppo_only": SimpleNamespace(response_tokens=baseline, like=None)},
        evaluate=SimpleNamespace(decoding=SimpleNamespace(response_tokens=evaluated)),
        data=SimpleNamespace(max_target_tokens=target),
    )


@pytest.mark.parametrize(
    ("options", "longest", "name"),
    [
        ({"ppo": 9}, 9, "ppo.response_tokens"),
        ({"baseline": 9}, 9, "baselines.ppo_only.response_tokens"),
        ({"evaluated": 40}, 40, "evaluate.decoding.response_tokens"),
        ({"target": 9}, 10, "data.max_target_tokens"),
    ],
)
def test_the_longest_response_of_all_sections_counts(options, longest, name):
    lengths = response_lengths(config(**options))
    assert max(lengths.values()) == longest == lengths[name]
    limits = Limits(256, 64, longest, lengths)
    assert limits.prompt == 64 - longest and f"({name})" in str(limits)
    with pytest.raises(DataError, match=f"lower {name}$"):
        Limits(256, longest, longest, lengths).check()


def test_every_setting_that_leaves_no_room_is_named():
    lengths = response_lengths(config(ppo=30, evaluated=40))
    with pytest.raises(DataError, match=r"lower ppo\.response_tokens and evaluate\.decoding"):
        Limits(256, 30, 40, lengths).check()


def test_the_context_has_many_names():
    from transformers import AutoConfig

    def context(kind, **options):
        return context_of(AutoConfig.for_model(kind, **options))

    assert context("gpt2", n_positions=48) == 48
    assert context("llama", max_position_embeddings=49) == 49
    assert context("gemma3", text_config={"max_position_embeddings": 50}) == 50
    assert context("bloom") is None


# what the reward model learns from


def test_labels_with_prompts_have_the_same_joiner():
    rows = [{"prompt": "How did you find the film", "target": "Great and funny", "rating": 3.0}]
    assert judged(rows).rows == [
        {"text": "How did you find the film\nGreat and funny", "rating": 3.0}
    ]


def test_a_text_that_ends_its_prompt_and_begins_its_answer_with_numbers_leaks_no_more():
    cut = cut_row({"prompt": "one of 2", "target": "3 of them"}, 3)
    leak = [{"text": "one of 2\n3 of them", "rating": 1.0}]
    assert judged(leak).rows and not judged(leak, avoid=policy_texts(cut)).rows
    pair = {"prompt": "one of 2", "target": "3 of them", "rejected": "none"}
    whole = cut_row({"text": "one of 2\n3 of them", "item": {}}, 2)
    assert judged([pair]).rows and not judged([pair], avoid=policy_texts(whole)).rows


@pytest.mark.parametrize(
    ("answer", "name", "full"),
    [
        (" funny", "byte_level", "The film is funny"),
        ("  funny", "byte_level", "The film is funny"),
        ("funny", "byte_level", "The film is\nfunny"),
        ("\n funny", "byte_level", "The film is\nfunny"),
        ("\u2028funny", "byte_level", "The film is\nfunny"),
    ],
)
def test_an_answer_that_begins_with_a_space_goes_on_with_its_prompt(answer, name, full):
    row = clean_row({"prompt": " The  film is ", "target": answer, "rejected": answer})
    coder = encoder(name, 100)
    example, _ = encoded(coder, row)
    assert coder.codec.decode([*example.prompt_ids, *example.target_ids]) == full
    assert Sample(example.prompt, example.target, joiner=example.joiner).full == full
    assert row["rejected"] == row["target"]


def test_no_space_follows_a_chat_template():
    row = clean_row({"prompt": "the film ?", "target": " funny"})
    assert encoded(encoder("chat_with_system", 100), row)[0].target == "funny"
    assert clean_row({"prompt": "the film ?", "target": "  "})["target"] == ""
