"""The field's data formats are read as they are, and the columns that hold them are guessed."""

import json

import pytest

from mht.config import DataConfig
from mht.core.component import build
from mht.core.errors import ConfigError, DataError
from mht.data.sources import OptionError, Source
from mht.data.sources.columns import Columns
from mht.data.sources.fetch import fetch_rows
from mht.data.sources.table import read_records


def read(*records, **options):
    columns = build(Columns, options)
    return read_records([(f"t:{n}", r) for n, r in enumerate(records, 1)], "t", columns)


def row(record, **options):
    return read(record, **options).rows[0]


def refused(record, error=DataError, **options):
    with pytest.raises(error) as caught:
        row(record, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


def says(**roles):
    return [{"role": role, "content": text} for role, text in roles.items()]


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
]


# -- formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "prompt", "target"),
    [
        ({"prompt": "p", "completion": "c"}, "p", "c"),
        ({"prompt": "p", "response": "c"}, "p", "c"),
        ({"Prompt": "p", "RESPONSE": "c"}, "p", "c"),
        ({"question": "p", "answer": "c"}, "p", "c"),
        ({"query": "p", "response": "c"}, "p", "c"),
        ({"problem": "p", "solution": "c"}, "p", "c"),
        ({"input": "p", "output": "c"}, "p", "c"),
        ({"instruction": "p", "output": "c"}, "p", "c"),
        ({"instruction": "p", "input": "", "output": "c", "text": "all"}, "p", "c"),
        ({"instruction": "p", "input": None, "output": "c"}, "p", "c"),
        ({"instruction": "p", "input": "i", "output": "c"}, "p\n\ni", "c"),
        ({"instruction": "p", "context": "i", "response": "c"}, "p\n\ni", "c"),
        ({"prompt": says(user="p"), "completion": says(assistant="c")}, "p", "c"),
        ({"prompt": "p", "completion": says(assistant="c")}, "p", "c"),
        ({"messages": says(user="p", assistant="c")}, "p", "c"),
        ({"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "c"}]},
         "p", "c"),
        ({"prompt": "x", "prompt_id": "1", "messages": says(user="p", assistant="c")}, "p", "c"),
    ],
)  # fmt: skip
def test_prompt_and_target_are_found(record, prompt, target):
    got = row(record)
    assert (got["prompt"], got["target"]) == (prompt, target)
    assert "turns" not in got.get("item", {})


def test_the_guess_is_shown_in_one_line():
    alpaca = read({"instruction": "p", "input": "i", "output": "c"})
    assert alpaca.columns.describe() == (
        "reads prompt from 'instruction' + 'input', target from 'output'"
    )
    assert alpaca.columns.is_worth_telling
    assert not read({"prompt": "p", "target": "c"}).columns.is_worth_telling


def test_fetch_shows_the_guess(tmp_path, capsys):
    file = tmp_path / "t.jsonl"
    file.write_text('{"question": "p", "answer": "c"}\n')
    fetch_rows(build(DataConfig, {"source": {"type": "jsonl", "path": str(file)}}), tmp_path / "r")
    said = "data.source: reads prompt from 'question', target from 'answer'"
    assert said in capsys.readouterr().out.splitlines()


def test_named_columns_win():
    record = {"prompt": "p", "completion": "c", "question": "q", "answer": "a", "text": "t"}
    assert row(record, prompt="question", target="answer")["prompt"] == "q"
    assert row(record, text="text")["text"] == "t"
    got = row({"instruction": "p", "input": "i", "output": "c"}, prompt="instruction")
    assert got["prompt"] == "p" and got["item"] == {"input": "i"}
    assert row({"a": "p", "b": "i", "c": "t"}, prompt="a", input="b", target="c")["prompt"] == (
        "p\n\ni"
    )


def test_a_conversation_is_its_last_answer_behind_what_was_said():
    expected = {"prompt": "Why?", "target": "So.", "item": {"turns": CHAT[:3]}}
    assert row({"messages": CHAT}) == expected
    assert row({"messages": [*CHAT, {"role": "user", "content": "Bye"}]}) == expected
    sharegpt = [{"from": m["role"], "value": m["content"]} for m in CHAT]
    assert row({"conversations": sharegpt}) == expected
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in CHAT]
    assert row({"messages": parts}) == expected
    split = {"prompt": CHAT[:2], "completion": CHAT[2:]}
    assert row(split) == expected


def test_a_tool_speaks_before_the_answer():
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]}
    result = {"role": "tool", "content": "42", "tool_call_id": "x"}
    chat = [{"role": "user", "content": "q"}, call, result, {"role": "assistant", "content": "a"}]
    got = row({"messages": chat})
    assert (got["prompt"], got["target"]) == ("42", "a")
    assert got["item"]["prompt_role"] == "tool"
    assert got["item"]["turns"][1] == {**call, "content": ""}
    assert row({"messages": [*chat[:1], call]})["target"] == ""  # dropped and counted in prepare


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "wizard", "content": "x"}], "has the role 'wizard': the roles are system"),
        (
            [{"role": "user", "content": [{"type": "image_url", "url": "x"}]}],
            "part that is no text",
        ),
        ([{"role": "user", "content": 5}], "should be a string, got 5 (int)"),
        ([{"role": "user"}], 'a list of {"role", "content"}, got'),
        (["hi"], "got 'hi'"),
        ("hi", "should be a list of"),
        (5, "should be a list of"),
    ],
)
def test_messages_that_are_none(messages, says):
    got = refused({"messages": messages})
    assert got.startswith("t:1: column 'messages': ") and says in got


def test_two_answers_share_their_prompt():
    chosen, rejected = [*CHAT[:4], *says(assistant="A")], [*CHAT[:4], *says(assistant="B")]
    expected = {"prompt": "Why?", "target": "A", "rejected": "B", "item": {"turns": CHAT[:3]}}
    pair = {"chosen": chosen, "rejected": rejected}
    assert row(pair) == expected
    assert row({**pair, "prompt": "Why?"}) == expected  # the prompt's own column says less
    answers = {"chosen": says(assistant="A"), "rejected": says(assistant="B")}
    assert row({**answers, "prompt": CHAT[:4]}) == expected
    assert row({**answers, "prompt": "Why?"}) == {k: expected[k] for k in expected if k != "item"}
    other = {**pair, "rejected": [*CHAT[:2], *says(assistant="B")]}
    assert "not those of the chosen one" in refused(other)
    assert row({**other, "prompt": "q"}) == {"prompt": "q", "target": "A", "rejected": "B"}


def test_texts_of_hh_rlhf():
    start = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant:"
    got = row({"chosen": f"{start} So.", "rejected": f"{start} No."})
    assert got == {
        "prompt": "Why?", "target": "So.", "rejected": "No.", "item": {"turns": CHAT[1:3]},
    }  # fmt: skip
    assert row({"chosen": "good", "rejected": "bad"})["prompt"] == ""


# -- roles that are off, ratings, labels --------------------------------------------------------


def test_a_role_can_be_switched_off():
    film = {"text": "a", "rating": "PG-13", "label": "x"}
    got = refused(film)
    assert got.startswith("t:1: column 'rating' (rating) should be a number, got 'PG-13'")
    assert "null" in got
    off = row(film, rating=None)
    assert "rating" not in off and off["label"] == "x" and off["item"]["rating"] == "PG-13"
    assert "label" not in row(film, rating=None, label=None)
    pair = {"text": "t", "prompt": "p", "completion": "c"}
    assert row(pair)["prompt"] == "p" and row(pair, prompt=None)["text"] == "t"
    assert "needs target" in refused({"prompt": "p", "answer": "c"}, OptionError, target=None)


@pytest.mark.parametrize(
    "value", [True, False, "PG-13", "4/5", None, [1], {"a": 1}, "", "1_0", "four", 10**400]
)
def test_what_is_no_rating(value):
    got = refused({"text": "a", "stars": value}, rating="stars")
    assert got.startswith("t:1: column 'stars' (rating) should be a number, got ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", 5, "-4.1"])
def test_ratings_outside_their_range(value):
    assert "is outside rating_range [-4, 4]" in refused({"text": "a", "rating": value})


@pytest.mark.parametrize("value", [1, 1.0, "1", " 1 "])
def test_one_label_however_it_is_written(value):
    assert row({"text": "a", "label": value})["label"] == "1"


@pytest.mark.parametrize("value", [0.5, [1], {"a": 1}, float("nan")])
def test_what_is_no_label(tmp_path, value):
    got = refused({"text": "a", "mood": value}, label="mood")
    assert got.startswith("t:1: column 'mood' (label) should be a text or a whole number, got ")
    assert "label" not in row({"text": "a", "label": value})  # a guess may be wrong


def test_labels_without_a_label_name_file_and_line(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": "a", "label": "x"}\n\n{"text": "b", "label": [1]}\n')
    spec = {"type": "jsonl", "path": str(file)}
    with pytest.raises(DataError, match=rf"row 2 of the source 'jsonl' has no label \({file}:3\)"):
        fetch_rows(build(DataConfig, {"source": spec, "labels": spec}), tmp_path / "raw")


def test_roles_that_do_not_go_together():
    for options in ({"messages": "m", "prompt": "p"}, {"input": "i"}):
        with pytest.raises(ConfigError):
            build(Columns, options)


# -- columns that are called like ours ----------------------------------------------------------

OURS = [
    "turns", "item", "text", "rating", "label", "id", "prompt", "target", "rejected", "chosen",
    "prompt_ids", "target_ids", "prompt_role", "messages", "response", "completion",
]  # fmt: skip


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("value", [3, "PG", [1], [{"role": "user", "content": "x"}], None])
def test_a_column_may_have_any_name(tmp_path, name, value):
    """It reaches a reward's item, and what MHT keeps is not taken for it."""
    chat = [*CHAT[:4]]
    record = {"q": chat, "a": "So.", name: value}
    got = row(record, prompt="q", target="a", rating=None, label=None, rejected=None)
    assert got["prompt"] == "Why?" and got["target"] == "So." and got["item"]["turns"] == CHAT[:3]
    kept = f"{name}_column" if name in ("turns", "prompt_role") else name
    assert got["item"][kept] == value


@pytest.mark.parametrize("value", [3, "three", ["a", "b"], [], None, {"a": 1}])
def test_a_column_called_turns_stays_where_there_is_no_conversation(tmp_path, value):
    from mht.data.examples.tokenize import cut_row
    from mht.data.prepare.labels import clean_row
    from mht.data.sources.fetch import fetched_texts
    from mht.data.text.sample import Sample

    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps({"prompt": "p", "target": "c", "turns": value}))
    fetch_rows(build(DataConfig, {"source": {"type": "jsonl", "path": str(file)}}), tmp_path)
    assert list(fetched_texts(tmp_path)) == ["", "p", "c"]
    got = json.loads((tmp_path / "examples.jsonl").read_text())
    assert got["item"] == {"turns": value}
    assert cut_row(clean_row(got), 5).messages == says(user="p")
    assert Sample("p", "r", "c", got["item"]).messages == says(user="p", assistant="r")


def test_a_column_called_turns_that_looks_like_a_conversation_gets_a_name():
    table = read({"prompt": "p", "target": "c", "turns": says(user="x"), "turns_column": 1})
    assert table.rows[0]["item"] == {"turns_column_": says(user="x"), "turns_column": 1}
    assert "your column 'turns' is item['turns_column_']" in table.columns.describe()


def test_a_rating_of_ours_does_not_hide_a_column_of_that_name():
    got = row({"text": "a", "stars": 2, "rating": "PG-13"}, rating="stars")
    assert got["rating"] == 2 and got["item"] == {"rating_column": "PG-13"}


def test_numbers_and_arrays_of_data_frames():
    import numpy as np

    record = {"messages": np.array(CHAT, dtype=object), "n": np.float64(2), "none": float("nan")}
    got = row(record)
    assert got["target"] == "So." and got["item"]["n"] == 2.0
    assert row({"text": float("nan")}) == {"text": ""}


def test_build_gives_the_same_table_for_any_kind_of_file(tmp_path):
    file = tmp_path / "t.json"
    file.write_text(json.dumps([{"messages": CHAT}]))
    rows = build(Source, {"type": "json", "path": str(file)}).rows()
    assert rows == [row({"messages": CHAT})]
