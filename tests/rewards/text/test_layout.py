"""format_accuracy and readability: forms counted by hand."""

import json
import math

import pytest

from mht.core.errors import ConfigError, ModelError
from mht.rewards import make_reward
from mht.rewards.text.readability import FORMULAS, counts, syllables

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def form(text, **options):
    return make_reward({"type": "format_accuracy", **options})(text)


@pytest.mark.parametrize(
    ("text", "options", "value"),
    [
        ("1. a\n2. b\n3. c", {}, 1),
        ("  1) a\n     goes on\n\n2) b \n", {}, 1),
        ("Three things:\n1. a\n2. b\n3. c", {}, 3 / 4),  # three of four lines
        ("1. a\n1. b", {}, 1 / 2),  # one of two numbers
        ("2. a\n3. b", {}, 0),
        ("1. a\n2. b", {"min": 4}, 2 / 4),
        ("1. a\n2. b\n3. c\n4. d", {"max": 2}, 2 / 4),
        ("Here:\n1. a\n3. b", {"min": 4, "max": 9}, 2 / 3 * 1 / 2 * 2 / 4),
        ("1.a\n2.b", {}, 0),  # no space after the mark
        ("- a\n- b", {}, 0),
        ("", {}, 0),
    ],
)
def test_numbered_list(text, options, value):
    assert form(text, format="numbered_list", **options) == pytest.approx(value)
    assert form(text, format="numbered_list", graded=False, **options) == float(value == 1)


@pytest.mark.parametrize(
    ("text", "options", "value"),
    [
        ("one\nstill one\n\ntwo", {"min": 2, "max": 2}, 1),
        ("one\n \t\n\n\ntwo\r\n\r\nthree", {"min": 3, "max": 3}, 1),
        ("one", {"min": 3}, 1 / 3),
        ("a\n\nb\n\nc", {"max": 2}, 2 / 3),
        (" \n ", {}, 0),
    ],
)
def test_paragraphs(text, options, value):
    assert form(text, format="paragraphs", **options) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"name": "Ann", "age": 3}', 1),
        (' \n{"name": "Ann", "age": 3}\n', 1),
        ('{"name": "Ann"}', 1 / 2),  # age is missing
        ('{"name": 1, "age": -1, "x": 0}', 1 / 4),  # three mistakes
        ("[]", 1 / 2),
        ('```json\n{"name": "Ann", "age": 3}\n```', 0),
        ('{"name": "Ann", "age": NaN}', 0),
        ('{"name": "Ann", "age": 1e999}', 0),
        ("[" * 100_000, 0),
        ("9" * 10_000, 0),
        ("", 0),
    ],
)
def test_json_by_schema(tmp_path, text, value):
    assert form(text, format="json", json_schema=SCHEMA) == pytest.approx(value)
    file = tmp_path / "person.json"
    file.write_text(json.dumps(SCHEMA))
    assert form(text, format="json", json_schema=str(file)) == pytest.approx(value)


def test_any_json_without_a_schema():
    assert [form(t, format="json") for t in ("{}", "3", '"a"', "a", "")] == [1, 1, 1, 0, 0]


def test_a_nested_value_is_checked_or_scored_zero_never_a_crash():
    schema = {"type": "array", "items": {"$ref": "#"}}
    depths = {n: form("[" * n + "]" * n, format="json", json_schema=schema) for n in (1, 20, 900)}
    assert depths[1] == depths[20] == 1 and depths[900] in (0, 1)


def test_references_are_not_downloaded():
    schema = {"properties": {"a": {"$ref": "https://example.org/a.json"}}}
    reward = make_reward({"type": "format_accuracy", "format": "json", "json_schema": schema})
    assert reward("{}") == 1
    with pytest.raises(
        ModelError, match="json_schema: refers to 'https://example.org/a.json', which is not"
    ):
        reward('{"a": 1}')


def test_regex_matches_the_whole_text():
    assert form(" A: 4\n", format="regex", pattern=r"[A-D]: \d") == 1
    assert form("A: 42", format="regex", pattern=r"[A-D]: \d") == 0
    assert form("", format="regex", pattern="a*") == 1
    assert form(" 2", format="regex", pattern="12") == 0
    reward = make_reward(
        {"type": "format_accuracy", "format": "regex", "pattern": r"1\n2", "text": "full"}
    )
    assert reward("2", prompt="1") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"format": "list"}, "reward.format: should be 'numbered_list', 'paragraphs'"),
        ({"format": "regex"}, "reward.pattern: is required with format: regex"),
        ({"format": "regex", "pattern": "("}, "reward.pattern: is no regular expression: missing"),
        ({"format": "json", "pattern": "a"}, "reward.pattern: is of no use with format: json"),
        ({"format": "regex", "pattern": "a", "min": 2}, "reward.min: is of no use with format"),
        ({"format": "paragraphs", "min": 3, "max": 2}, "reward.max: must not be below min, got"),
        ({"format": "json", "json_schema": {"type": "text"}}, "reward.json_schema: is no JSON Sc"),
        ({"format": "json", "json_schema": {"$ref": "#"}}, "json_schema: refers to itself without"),
        ({"format": "json", "json_schema": "nowhere.json"}, "'nowhere.json' can't be read: No su"),
    ],
)
def test_wrong_options_are_named(options, says):
    with pytest.raises(ConfigError, match=says) as caught:
        make_reward({"type": "format_accuracy", **options})
    assert len(caught.value.problems) == 1


TEXT = "The old dog barked. An elephant remained imperturbable, didn't it? Yes."


def test_counts_by_hand():
    # old dog: the-old-dog-barked 4; an-el-e-phant-re-mained-im-per-turb-a-ble-didnt-it 13; yes 1
    found = counts(TEXT)
    assert (found.words, found.sentences, found.syllables, found.long) == (11, 3, 18, 2)
    assert found.letters == len("TheolddogbarkedAnelephantremainedimperturbabledidntitYes")
    assert counts("") == counts("?! - 。") == counts(" ") and counts("").words == 0
    easy = frozenset(["the", "old", "dog", "barked", "an", "it", "yes", "didn't"])
    assert counts(TEXT, easy).hard == 3


def test_syllables_of_common_words():
    known = {
        1: "a the made baked times strength yes",
        2: "table doing quiet tables churches",
        3: "radio beautiful elephant video",
        5: "imperturbable readability",
    }
    wrong = {w: syllables(w) for n, ws in known.items() for w in ws.split() if syllables(w) != n}
    assert not wrong


@pytest.mark.parametrize(
    ("index", "value"),
    [
        ("flesch_reading_ease", 206.835 - 1.015 * 11 / 3 - 84.6 * 18 / 11),
        ("flesch_kincaid", 0.39 * 11 / 3 + 11.8 * 18 / 11 - 15.59),
        ("gunning_fog", 0.4 * (11 / 3 + 200 / 11)),
        ("smog", 3.1291 + 1.043 * math.sqrt(30 * 2 / 3)),
        ("coleman_liau", 5.88 * 56 / 11 - 29.6 * 3 / 11 - 15.8),
        ("ari", 4.71 * 56 / 11 + 0.5 * 11 / 3 - 21.43),
    ],
)
def test_indices_by_hand(index, value):
    assert make_reward({"type": "readability", "index": index})(TEXT) == pytest.approx(value)


def test_dale_chall_by_hand(tmp_path):
    file = tmp_path / "easy.txt"
    file.write_text("the old dog barked an it\nyes didn't\n")
    reward = make_reward({"type": "readability", "index": "dale_chall", "easy_words": str(file)})
    assert reward(TEXT) == pytest.approx(0.1579 * 300 / 11 + 0.0496 * 11 / 3 + 3.6365)
    assert reward("The old dog barked.") == pytest.approx(0.0496 * 4)  # no hard word


@pytest.mark.parametrize("index", sorted(set(FORMULAS) - {"dale_chall"}))
def test_an_index_tells_plain_from_demanding_and_stays_in_its_range(index):
    reward = make_reward({"type": "readability", "index": index})
    plain = "The dog ran. It was glad. The sun was up and the sky was blue."
    hard = (
        "Notwithstanding considerable institutional deliberation, parliamentary representatives "
        "systematically misrepresented macroeconomic interdependencies."
    )
    low, high = reward.bounds()
    values = reward([plain, hard, "", "I", "a. b. c."])
    assert all(low <= value <= high for value in values)
    assert values[2] == 0
    assert (values[0] > values[1]) == (reward.direction() == "high")
    assert reward.direction() == ("high" if index == "flesch_reading_ease" else "low")


def test_a_window_of_grades():
    spec = {"type": "readability", "index": "ari"}
    grade = make_reward(spec)(TEXT)
    for ends, value in (
        ({"min": grade - 1, "max": grade + 1}, 1),
        ({"min": grade}, 1),
        ({"max": grade - 1}, 1 - 1 / 5),
        ({"min": grade + 2, "max": grade + 3, "tolerance": 4.0}, 1 - 2 / 4),
        ({"min": grade + 9}, 0),
    ):
        reward = make_reward({**spec, **ends})
        assert reward([TEXT, ""]) == pytest.approx([value, 0])
        assert reward.bounds() == (0, 1) and reward.direction() == "high"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"index": "fog"}, "reward.index: should be 'flesch_reading_ease', "),
        ({"min": 5.0, "max": 4.0}, "reward.max: must not be below min, got min=5.0 max=4.0"),
        ({"index": "dale_chall"}, "reward.easy_words: goes with index: dale_chall, and is requ"),
        ({"easy_words": "x.txt"}, "reward.easy_words: goes with index: dale_chall"),
        ({"index": "dale_chall", "easy_words": "x.txt"}, "reward.easy_words: no such file 'x.txt'"),
    ],
)
def test_wrong_options_of_readability_are_named(options, says):
    with pytest.raises(ConfigError, match=says):
        make_reward({"type": "readability", **options})
