"""Training data of texts and chats: the field's columns, TRL's tokens, what is guessed."""

import pandas as pd
import pytest
from datasets import Dataset

from mht.core.errors import ConfigError, DataError
from mht.data.text.texts import Codec
from tests.support.given import PAIRS, ids_of, reader_of, trainer_of
from tests.support.models import make_tiny_tokenizer
from tests.support.training import EOS, TEXTS

ROWS = {
    "prompt completion": {"prompt": "How is it?", "completion": "Slow."},
    "prompt output": {"prompt": "How is it?", "output": "Slow."},
    "prompt target": {"prompt": "How is it?", "target": "Slow."},
    "prompt response": {"prompt": "How is it?", "response": "Slow."},
    "question answer": {"question": "How is it?", "answer": "Slow."},
    "instruction output": {"instruction": "How is it?", "input": "", "output": "Slow."},
    "messages": {
        "messages": [
            {"role": "user", "content": "How is it?"},
            {"role": "assistant", "content": "Slow."},
        ]
    },
    "prompt and completion of messages": {
        "prompt": [{"role": "user", "content": "How is it?"}],
        "completion": [{"role": "assistant", "content": "Slow."}],
    },
    "conversations": {
        "conversations": [
            {"from": "human", "value": "How is it?"},
            {"from": "gpt", "value": "Slow."},
        ]
    },
}


@pytest.mark.parametrize("form", list(ROWS))
def test_the_field_s_names_are_known(tokenizer, form):
    (found,) = reader_of(tokenizer).read([ROWS[form]])
    assert (found.prompt, found.target) == ("How is it?", "Slow.")
    codec = Codec(tokenizer, {EOS})
    assert codec.decode(found.prompt_ids + found.target_ids) == "How is it?\nSlow."
    assert found.target_ids[-1] == EOS


@pytest.mark.parametrize("form", list(ROWS))
def test_with_a_chat_template_every_form_is_a_conversation(chat_tokenizer, form):
    (found,) = reader_of(chat_tokenizer).read([ROWS[form]])
    rendered = chat_tokenizer.apply_chat_template(
        [{"role": "user", "content": "How is it?"}], add_generation_prompt=True, tokenize=False
    )
    assert found.prompt_ids == chat_tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert chat_tokenizer.decode(found.target_ids) == "Slow.</s>"


def test_earlier_turns_come_along(tokenizer):
    turns = [("user", "Hi."), ("assistant", "Hello."), ("user", "How is it?"), ("assistant", "Ok")]
    messages = [{"role": role, "content": content} for role, content in turns]
    (found,) = reader_of(tokenizer).read([{"messages": messages}])
    assert found.prompt == "Hi.\nHello.\nHow is it?"
    assert found.item["turns"] == messages[:2]


def test_a_completion_that_brings_its_space_continues_its_prompt(tokenizer):
    """As TRL has it: the two are one text."""
    (found,) = reader_of(tokenizer).read([{"prompt": "The sky is", "completion": " blue."}])
    codec = Codec(tokenizer, {EOS})
    assert codec.decode(found.prompt_ids + found.target_ids) == "The sky is blue."


def test_a_guess_is_shown_and_can_be_named(tokenizer):
    reader = reader_of(tokenizer)
    reader.read([{"question": "How?", "answer": "So.", "prompt_id": 3}])
    assert "prompt from 'question'" in reader.guess and "target from 'answer'" in reader.guess
    reader.read([{"prompt": "How?", "target": "So."}])
    assert reader.guess == ""
    named = reader_of(tokenizer, prompt="q", target="a")
    (found,) = named.read([{"q": "How?", "a": "So.", "answer": "else"}])
    assert (found.prompt, found.target, found.item) == ("How?", "So.", {"answer": "else"})


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"foo": "a", "bar": "b"}], "train_data needs a 'text' column, or 'prompt' and 'target'"),
        ([{"prompt": "a", "completion": "b"}, {"prompt": "", "completion": "b"}],
         r"train_data\[1\]: its prompt is empty"),
        ([{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": None}],
         r"train_data\[1\]: its target is empty"),
        ([{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": float("nan")}],
         r"train_data\[1\]: its target is empty"),
        ([{"prompt": "a", "completion": 3}], r"train_data\[0\]: column 'completion'"),
        ([{"prompt": "a", "completion": "b"}, {"prompt": "a"}], r"train_data\[1\]: .*completion"),
        ([{"messages": [{"role": "wizard", "content": "a"}]}], r"train_data\[0\]: .*the role"),
        ([{"prompt": "a " * 300, "completion": "b"}], r"train_data\[0\]: .* tokens, the model's c"),
    ],
)  # fmt: skip
def test_rows_of_texts_that_do_not_fit(tokenizer, rows, says):
    with pytest.raises(DataError, match=says) as caught:
        reader_of(tokenizer).read(rows)
    assert "\n" not in str(caught.value)


def up_to_eos(ids):
    """Templates may write a new line behind an answer's end, which nobody has to write."""
    return ids[: ids.index(EOS) + 1]


@pytest.mark.parametrize("form", ["prompt completion", "messages in two columns"])
def test_trl_reads_the_same_tokens(tiny_model_dir, tmp_path, form):
    """SFTTrainer's own tokens of the same rows, prompt and completion apart."""
    import trl

    chat = form != "prompt completion"
    rows = [{"prompt": p, "completion": t} for p, t in TEXTS]
    if chat:
        roles = {"prompt": "user", "completion": "assistant"}
        rows = [{k: [{"role": roles[k], "content": v}] for k, v in row.items()} for row in rows]
    tokenizer = make_tiny_tokenizer(chat=chat)
    args = trl.SFTConfig(output_dir=str(tmp_path), report_to=[], use_cpu=True, bf16=False)
    theirs = trl.SFTTrainer(
        str(tiny_model_dir(chat=chat)),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    ).train_dataset
    reader = reader_of(tokenizer)
    expected = ids_of(reader.read(theirs))  # by their completion_mask
    found = ids_of(reader.read(rows))
    assert len(found) == len(TEXTS)
    for (prompt, target), (their_prompt, their_target) in zip(found, expected, strict=True):
        assert prompt == their_prompt
        assert tokenizer.decode(target) == tokenizer.decode(up_to_eos(their_target))


@pytest.mark.parametrize("data", ["prompt completion", "messages", "frame"])
def test_it_trains_on_them(tiny_model_dir, tokenizer, data):
    rows = {
        "frame": lambda: pd.DataFrame([{"question": p, "answer": t} for p, t in PAIRS]),
    }.get(data, lambda: [ROWS[data]] * 4)()
    figures = []
    trainer = trainer_of(tiny_model_dir, tokenizer, rows)
    trainer.train([(1, 1)], log=lambda stats, step: figures.append(stats))
    assert figures[0]["sft/loss"] > 0 and "ppo/score/mean" in figures[1]


def test_the_guess_is_printed(tiny_model_dir, tokenizer, capsys):
    trainer_of(tiny_model_dir, tokenizer, [{"question": "How?", "answer": "So."}])
    assert (
        "train_data: reads prompt from 'question', target from 'answer'" in capsys.readouterr().out
    )
    trainer_of(tiny_model_dir, tokenizer, [{"q": "How?", "a": "So."}],
               columns={"prompt": "q", "target": "a"})  # fmt: skip
    assert not capsys.readouterr().out
    with pytest.raises(ConfigError, match="columns.promt: no such option 'promt' .did you mean"):
        trainer_of(tiny_model_dir, tokenizer, None, columns={"promt": "q"})
