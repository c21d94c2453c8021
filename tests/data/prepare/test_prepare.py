"""Preparing: cleaning, splits without leaks, token ids, limits, and errors that say what to do."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mht.config import DataConfig
from mht.core.component import build
from mht.core.errors import DataError
from mht.data.examples import example as ex
from mht.data.examples.limits import Limits
from mht.data.examples.split import assign, place, unit_hash
from mht.data.examples.tokenize import cut_row
from mht.data.judgements.judgements import read_judgements
from mht.data.prepare.lengths import histogram, plot_lengths
from mht.data.prepare.prepare import prepare
from mht.data.sources.fetch import fetch_rows
from mht.data.text.clean import clean, content_key, normalise

SHARES = {"test": 0.2, "validation": 0.1, "reward_model": 0.3}
SUBJECTS = ["film", "plot", "cast", "story", "music", "scene", "ending", "script"]
WORDS = ["good", "bad", "dull", "warm", "funny", "slow", "rich", "thin", "loud", "calm"]


def sentences(count):
    """Different texts of eight words and more."""
    return [
        f"The {SUBJECTS[i % 8]} was {WORDS[i // 8 % 10]} and the rest of it number{i} too"
        for i in range(count)
    ]


class Stub:
    """The sections of a config that prepare reads."""

    def __init__(self, data, response_tokens=4, evaluated=1):
        self.data = data
        self.ppo = SimpleNamespace(response_tokens=response_tokens)
        self.baselines = {"ppo_only": SimpleNamespace(response_tokens=1, like=None)}
        self.evaluate = SimpleNamespace(decoding=SimpleNamespace(response_tokens=evaluated))
        self.model = type("Section", (), {"trust_remote_code": False})


def make_tokenizer_folder(path, context=64, template=None, eos_after=False):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import GPT2Config, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate(alphabet)}
    core.model = models.BPE(vocab=vocab, merges=[])
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["</s>", "<pad>"])
    if eos_after:
        end = [("</s>", core.token_to_id("</s>"))]
        core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=end)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="</s>", pad_token="<pad>", chat_template=template
    )
    tokenizer.save_pretrained(path)
    GPT2Config(vocab_size=len(tokenizer), n_positions=context).save_pretrained(path)
    return tokenizer


@pytest.fixture
def bench(tmp_path):
    """Runs fetch's and prepare's work on rows; returns the figures and the splits."""

    class Bench:
        tokenizer = make_tokenizer_folder(tmp_path / "model", context=600)

        def run(self, rows, labels=None, out="prepared", response_tokens=4, **options):
            write_lines(tmp_path / "rows.jsonl", rows)
            spec = {"source": {"type": "jsonl", "path": str(tmp_path / "rows.jsonl")}}
            if labels == "same":
                spec["labels"] = dict(spec["source"])
            elif labels is not None:
                write_lines(tmp_path / "labels.jsonl", labels)
                spec["labels"] = {"type": "jsonl", "path": str(tmp_path / "labels.jsonl")}
            config = build(DataConfig, {**spec, "max_target_tokens": 200, **options}, path="data")
            fetch_rows(config, tmp_path / "raw")
            self.out = tmp_path / out
            figures = prepare(
                Stub(config, response_tokens), raw=tmp_path / "raw", model=tmp_path / "model",
                out=self.out, metrics=self.out / "m.json", plots=self.out / "plots",
            )  # fmt: skip
            names = ("train", "validation", "test")
            self.parts = {n: ex.read_examples(self.out / f"{n}.parquet") for n in names}
            self.judged = read_judgements(self.out / "labels.parquet")
            self.labels = tuple([r.get(k) for r in self.judged.rows] for k in ("text", "rating"))
            self.everything = [e for part in self.parts.values() for e in part]
            return figures

    return Bench()


def write_lines(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


def texts_of(parts):
    return {name: {e.prompt + e.target for e in part} for name, part in parts.items()}


# cleaning


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("a<br /><BR>b", "a\n\nb"),
        ("Tom &amp; Jerry&nbsp;&lt;3", "Tom & Jerry <3"),
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),
        ("a\x00b\x1bc\u200bd\ufeff", "abcd"),
        ("def f():\r\n    return  1  \r\n", "def f():\n    return 1"),
        ("a\n\n\n\n\nb", "a\n\nb"),
        ("\U0001f469\u200d\U0001f680 ok", "\U0001f469\u200d\U0001f680 ok"),
    ],
)
def test_clean(dirty, expected):
    assert clean(dirty) == expected


@given(st.text(alphabet=st.characters(exclude_characters="&<>", codec="utf-8")))
def test_cleaning_a_clean_text_changes_nothing(text):
    assert clean(clean(text)) == clean(text)


@given(st.text(alphabet="ab1 .,-", max_size=12))
def test_normalise_ignores_case_and_surrounding_spaces(text):
    assert normalise(f"  {text.upper()} ") == normalise(text)


def test_near_duplicates_share_a_key_and_numbers_do_not():
    assert content_key("A film, truly.") == content_key("a film  TRULY!")
    assert len({content_key(t) for t in ("1-2", "12", "1.2", "1 2", "1+2", "?", "!")}) == 7
    assert content_key("ab", "c") != content_key("a", "bc")


# splits


def keys(count):
    return [content_key(f"text {i}") for i in range(count)]


def test_shares_come_out_as_asked():
    counts = Counter(assign(keys(20_000), SHARES).values())
    for name, share in {**SHARES, "train": 0.4}.items():
        assert counts[name] / 20_000 == pytest.approx(share, abs=0.015)


def test_a_text_stays_in_its_split_when_others_come_and_go():
    few, many = assign(keys(300), SHARES), assign(keys(3000), SHARES)
    assert all(many[key] == split for key, split in few.items())


def test_giving_up_the_last_share_moves_only_its_texts():
    with_rm = assign(keys(500), SHARES)
    without = assign(keys(500), {k: v for k, v in SHARES.items() if k != "reward_model"})
    for key, split in with_rm.items():
        assert without[key] == ("train" if split == "reward_model" else split)


@given(st.sets(st.integers(0, 10**6), min_size=3, max_size=12))
def test_three_keys_fill_three_splits(numbers):
    shares = {"test": 0.15, "validation": 0.05}
    names = [content_key(f"text {n}") for n in numbers]
    splits = assign(names, shares)
    assert set(splits.values()) == {"train", "validation", "test"}
    assert splits == assign(reversed(names), shares)


def test_unit_hash_covers_the_interval():
    assert unit_hash("0" * 64) == 0 and 0.999 < unit_hash("f" * 64) < 1
    assert place("f" * 64, {"test": 0.5}) == "train" and place("0" * 64, {"test": 0.5}) == "test"


# rows to examples


def test_texts_are_cut_after_the_first_words():
    cut = cut_row({"text": "one two\nthree four five"}, 3)
    assert (cut.prompt, cut.target) == ("one two\nthree", " four five")
    assert cut_row({"text": "one two"}, 3).target == ""


def test_continuations_hold_text_and_tokens(bench):
    figures = bench.run([{"text": t, "n": i} for i, t in enumerate(sentences(40))])
    assert figures["rows_read"] == 40 == len(bench.everything)
    assert {e.prompt + e.target for e in bench.everything} == set(sentences(40))
    assert len({e.id for e in bench.everything}) == 40
    eos = bench.tokenizer.eos_token_id
    for e in bench.everything:
        assert len(e.prompt.split()) == 5 and e.target.startswith(" ")
        assert len(e.id) == 16 and content_key(e.prompt + e.target).startswith(e.id)
        assert bench.tokenizer.decode(e.prompt_ids) == e.prompt
        assert e.target_ids[-1] == eos and bench.tokenizer.decode(e.target_ids[:-1]) == e.target
        assert sentences(40)[e.item["n"]] == e.prompt + e.target
    for part in bench.parts.values():
        assert [e.id for e in part] == sorted(e.id for e in part)


def test_pairs_without_a_chat_template_end_with_a_newline(bench):
    bench.run([{"prompt": f"q{i}?", "target": "a"} for i in range(9)])
    for e in bench.everything:
        assert bench.tokenizer.decode(e.prompt_ids) == e.prompt + "\n" and e.target == "a"


def test_pairs_with_a_chat_template_are_rendered_with_all_turns(bench, tmp_path):
    template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer = make_tokenizer_folder(tmp_path / "model", 600, template)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    rows = [{"prompt": f"q{i}?", "target": "a"} for i in range(9)]
    rows.append({"prompt": [*turns, {"role": "user", "content": "why"}], "target": "so"})
    bench.run(rows)
    shown = {e.prompt: tokenizer.decode(e.prompt_ids) for e in bench.everything}
    assert shown["q1?"] == "[user]q1?[assistant]"
    assert shown["hi\nyes?\nwhy"] == "[user]hi[assistant]yes?[user]why[assistant]"
    assert next(e for e in bench.everything if e.target == "so").item["turns"] == turns


def test_eos_that_the_tokenizer_appends_is_taken_off_prompts(bench, tmp_path):
    make_tokenizer_folder(tmp_path / "model", 600, eos_after=True)
    bench.run([{"text": t} for t in sentences(9)])
    assert all(bench.tokenizer.eos_token_id not in e.prompt_ids for e in bench.everything)
    assert all(e.target_ids.count(bench.tokenizer.eos_token_id) == 1 for e in bench.everything)


def test_long_targets_are_cut_and_carry_no_eos(bench):
    rows = [{"prompt": f"q{i}", "target": "x" * n} for i, n in enumerate([4, 5, 6, 9])]
    figures = bench.run(rows, max_target_tokens=5)
    eos = bench.tokenizer.eos_token_id
    lengths = {
        len(e.target): (len(e.target_ids), e.target_ids[-1] == eos) for e in bench.everything
    }
    assert lengths == {4: (5, True), 5: (6, True), 6: (5, False), 9: (5, False)}
    assert figures["targets_cut"] == 2


def test_dropped_rows_are_counted_by_reason(bench):
    keep = sentences(6)
    rows = [*keep, keep[0], keep[1].upper() + "!!", "", " \u200b ", "one two three four five six"]
    figures = bench.run([{"text": t} for t in rows], min_target_words=2)
    assert figures["dropped_duplicate"] == 1 and figures["dropped_near_duplicate"] == 1
    assert figures["dropped_empty"] == 2 and figures["dropped_short"] == 1
    assert sum(figures[f"{n}_examples"] for n in bench.parts) == 6
    assert json.loads((bench.out / "m.json").read_text())["dropped_empty"] == 2


def test_short_given_targets_stay(bench):
    """min_target_words is about texts that we cut; a target somebody wrote is an answer."""
    bench.run([{"prompt": f"q{i}", "target": "1963"} for i in range(5)], min_target_words=3)
    assert len(bench.everything) == 5


# no leaks


def test_own_labels_are_no_text_of_the_policy(bench):
    rows = [{"text": t, "rating": 1.0} for t in sentences(80)]
    rows += [{"text": t.upper(), "rating": 3.0} for t in sentences(80)[::3]]
    rows += [{"text": f"too short {i}", "rating": -1.0} for i in range(40)]
    bench.run(rows, labels="same", splits={"reward_model": 0.4, "validation": 0.1, "test": 0.2})
    groups = {name: {normalise(t) for t in texts} for name, texts in texts_of(bench.parts).items()}
    groups["labels"] = {normalise(t) for t in bench.labels[0]}
    assert sum(map(len, groups.values())) == len(set().union(*groups.values()))
    assert len(bench.labels[0]) == len(groups["labels"])
    assert any(t.startswith("too short") for t in bench.labels[0])
    means = dict(zip(*bench.labels, strict=True))
    repeated = [t for t in sentences(80)[::3] if t in means]
    assert repeated and all(means[t] == 2.0 for t in repeated)


def test_labels_of_another_source_leave_out_the_policys_texts(bench):
    labels = [{"text": t, "rating": 2.0} for t in ("new text", sentences(9)[4].upper() + ".")]
    bench.run([{"text": t} for t in sentences(9)], labels=labels)
    assert bench.labels == (["new text"], [2.0]) and len(bench.everything) == 9
    pairs = [{"prompt": f"question {i}", "target": f"answer {i}"} for i in range(5)]
    leaks = ["Question 1", "answer 2", "question 3 answer 3", "fine"]
    bench.run(pairs, labels=[{"text": t, "rating": 0.0} for t in leaks])
    assert bench.labels[0] == ["fine"]


def test_preferences_of_the_same_source_are_of_other_questions(bench):
    rows = [
        {"prompt": f"question {i}", "chosen": f"good {i} {j}", "rejected": f"bad {i} {j}"}
        for i in range(40)
        for j in range(2)
    ]
    bench.run(rows, labels="same", splits={"reward_model": 0.4, "validation": 0.1, "test": 0.2})
    asked = {row["prompt"] for row in bench.judged.rows}
    own = {e.prompt for e in bench.everything}
    assert bench.judged.kind == "preferences" and len(bench.judged.rows) == 2 * len(asked)
    assert asked and own and not asked & own and len(asked | own) == 40
    example = bench.everything[0]
    assert example.target.startswith("good") and example.item["rejected"].startswith("bad")


def test_preferences_of_another_source_leave_out_the_policys_texts(bench):
    pairs = [{"prompt": f"question {i}", "target": f"answer {i}"} for i in range(5)]
    leaks = [("Question 1", "x", "y"), ("new", "answer 2", "y"), ("new", "x", "Answer 3!")]
    fine = [("new", "x", "y")]
    keys = ("prompt", "chosen", "rejected")
    bench.run(pairs, labels=[dict(zip(keys, row, strict=True)) for row in leaks + fine])
    assert [tuple(row[key] for key in keys) for row in bench.judged.rows] == fine


def test_no_labels_is_an_empty_table(bench):
    bench.run([{"text": t} for t in sentences(9)])
    assert bench.labels == ([], [])


def test_a_question_is_in_one_split_with_all_its_answers(bench):
    rows = [{"prompt": f"Q {i}?", "target": f"a{j}"} for i in range(40) for j in range(3)]
    rows += [
        {
            "prompt": [
                {"role": "user", "content": f"q {i}"},
                {"role": "assistant", "content": "a0"},
                {"role": "user", "content": "and then?"},
            ],
            "target": "more",
        }
        for i in range(40)
    ]
    bench.run(rows)
    openings = {
        name: {normalise(e.item.get("turns", [{"content": e.prompt}])[0]["content"]) for e in part}
        for name, part in bench.parts.items()
    }
    assert len(bench.everything) == 160
    assert sum(map(len, openings.values())) == 40 == len(set().union(*openings.values()))


def test_preparing_twice_gives_the_same_bytes(bench):
    rows = [{"text": t, "rating": 1.0} for t in sentences(30)]
    contents = []
    for out in ("one", "two"):
        bench.run(rows, labels="same", out=out)
        contents.append({p.name: p.read_bytes() for p in bench.out.rglob("*.*")})
    assert contents[0] == contents[1] and len(contents[0]) == 7


# limits and errors


@pytest.mark.parametrize("count", [3, 10])
def test_few_rows_still_fill_every_split(bench, count):
    bench.run([{"text": t} for t in sentences(count)])
    assert all(bench.parts.values()) and len(bench.everything) == count


def test_few_rated_rows_leave_some_for_the_reward_model(bench):
    bench.run([{"text": t, "rating": 1.0} for t in sentences(4)], labels="same")
    assert all(bench.parts.values()) and len(bench.labels[0]) == 1


def fails(bench, rows, **options):
    with pytest.raises(DataError) as caught:
        bench.run(rows, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_empty_splits_say_what_to_change(bench):
    two = [{"text": t} for t in sentences(2)]
    got = fails(bench, two)
    assert "split is empty, with 2 different texts in all" in got and "give more rows" in got
    nine = [{"text": t} for t in sentences(9)]
    got = fails(bench, nine, splits={"validation": 0.0, "test": 0.1})
    assert got == "data.splits.validation: is 0, so the validation split is empty: raise it"
    short = fails(bench, [{"text": "just three words"}])
    assert "no texts left after cleaning (dropped: 1 short)" in short
    assert "Lower data.prompt_words (5)" in short
    rated = [{"text": t, "rating": 0.0} for t in sentences(9)]
    none = {"reward_model": 0.0, "validation": 0.1, "test": 0.1}
    assert "data.splits.reward_model" in fails(bench, rated, labels="same", splits=none)


def test_labels_without_ratings(bench):
    rows = [{"text": t} for t in sentences(5)]
    assert "set data.labels.columns.rating (or label" in fails(bench, rows, labels="same")


def test_source_errors_carry_their_path():
    spec = {"source": {"type": "csv", "path": "data/local/nowhere.csv"}}
    with pytest.raises(DataError, match=r"^data\.source\.path: no such file"):
        fetch_rows(build(DataConfig, spec))


def test_long_prompts(bench):
    rows = [{"prompt": f"q{i}", "target": "a"} for i in range(6)]
    rows.insert(3, {"prompt": "0123456789" * 3, "target": "long"})
    got = fails(bench, rows, max_prompt_tokens=20)
    assert "row 4 of data.source: its prompt has 31 tokens, the limit is 20" in got
    assert "data.max_prompt_tokens is 20" in got and "Set data.long_prompts to drop" in got
    assert bench.run(rows, max_prompt_tokens=20, long_prompts="drop")["dropped_long_prompt"] == 1
    assert len(bench.everything) == 6
    bench.run(rows, max_prompt_tokens=20, long_prompts="truncate")
    long = next(e for e in bench.everything if e.target == "long")
    assert bench.tokenizer.decode(long.prompt_ids) == "1234567890123456789\n"


def test_the_models_context_limits_prompts_too(bench, tmp_path):
    make_tokenizer_folder(tmp_path / "model", context=40)
    rows = [{"prompt": f"q{i}", "target": "a"} for i in range(6)]
    rows.append({"prompt": "x" * 30, "target": "b"})
    got = fails(bench, rows, max_target_tokens=5, response_tokens=24)
    assert "31 tokens, the limit is 16" in got and "context 40 with 24 of it" in got
    bench.run(rows, max_target_tokens=5, response_tokens=9)
    assert "lower ppo.response_tokens" in fails(bench, rows, response_tokens=40)


def test_limits_of_a_model_without_positions():
    assert Limits(256, None, 49).prompt == 256
    assert Limits(256, 300, 49).prompt == 251


def test_files_outside_data_local_are_noted(bench, capsys):
    bench.run([{"text": t} for t in sentences(5)])
    assert "note: data.source.path" in capsys.readouterr().out


def test_missing_stage_outputs(tmp_path):
    with pytest.raises(DataError, match="run the stage prepare first"):
        ex.read_examples(tmp_path / "train.parquet")


# batches and figures


def example(prompt_ids, target_ids):
    return ex.Example("0" * 16, "p", "t", prompt_ids, target_ids)


def test_collated_batches():
    batch = [example([1, 2], [3, 9]), example([4], [5, 6, 9])]
    ids, mask = ex.collate_prompts(batch, 0)
    assert ids.tolist() == [[1, 2], [0, 4]] and mask.tolist() == [[True, True], [False, True]]
    sft = ex.collate_sft(batch, 0)
    assert sft["input_ids"].tolist() == [[1, 2, 3, 9, 0], [0, 4, 5, 6, 9]]
    assert sft["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]]
    assert sft["labels"].tolist() == [[-100, -100, 3, 9, -100], [-100, -100, 5, 6, 9]]
    assert {str(t.dtype) for t in (ids, *sft.values())} == {"torch.int64"}
    assert str(mask.dtype) == "torch.bool"


def test_pad_inside_a_text_is_still_a_real_token():
    sft = ex.collate_sft([example([0, 1], [0, 9])], 0)
    assert sft["attention_mask"].tolist() == [[1, 1, 1, 1]]
    assert sft["labels"].tolist() == [[-100, -100, 0, 9]]


def test_histogram_counts_everything(tmp_path):
    batch = [example([1] * n, [2] * (n + 1)) for n in (1, 1, 3)]
    assert histogram(batch) == [(0, 0, 0), (1, 2, 0), (2, 0, 2), (3, 1, 0), (4, 0, 1)]
    wide = [example([1] * n, [2]) for n in range(1, 2500)]
    rows = histogram(wide)
    assert len(rows) <= 1000 and sum(r[1] for r in rows) == 2499
    plot_lengths(batch, tmp_path)
    lines = (tmp_path / "lengths.csv").read_text().splitlines()
    assert lines[0] == "length,prompt,target" and lines[2] == "1,2,0"
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")


def test_texts_without_spaces_are_examples_too(bench):
    rows = [{"text": f"这是第{n}部很好看的电影"} for n in "一二三四五六"]
    figures = bench.run(rows)
    assert figures["dropped_short"] == 0 and len(bench.everything) == 6
    assert all(len(e.prompt) == 5 for e in bench.everything)
    spaces = bench.run(rows[:3] + [{"text": "one two three four five six seven eight nine"}] * 1
                       + [{"text": f"a b c d e f g h {n}"} for n in range(3)],
                       segmenter="spaces")  # fmt: skip
    assert spaces["dropped_short"] == 3
