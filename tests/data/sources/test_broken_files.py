"""Files of other people that are broken: one line with file and line, never another exception."""

import gzip
import json
import os
from datetime import datetime
from decimal import Decimal

import pytest

from mht.core.component import build
from mht.core.errors import DataError
from mht.core.stable_files import read_jsonl, write_jsonl
from mht.data.sources import OptionError, Source


def read(kind, content, folder, **options):
    file = folder / "f"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return build(Source, {"type": kind, "path": str(file), **options}).rows()


def refused(kind, content, folder, **options):
    with pytest.raises(DataError) as caught:
        read(kind, content, folder, **options)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 800
    return said.replace(str(folder), "")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (r'{"text": "a \ud83d"}', "/f:2: column 'text' holds half of a surrogate pair"),
        (r'{"text": "a", "x": ["\udc00"]}', "/f:2: column 'x' holds half of a surrogate pair"),
        (r'{"text": "a", "\ud83d": 1}', "holds half of a surrogate pair"),
        ('{"text": "a", "n": ' + "1" * 5000 + "}", "/f:2: holds a whole number of more than 4,300"),
        ('{"text": "a", "n": ' + "[" * 2000, "/f:2: lists or mappings are more than 100 deep"),
        ('{"text": "a", "n": ' + "[" * 200 + "]" * 200 + "}", "/f:2: lists or mappings are more"),
        ('{"a":' * 5000, "/f:2: lists or mappings are more than 100 deep"),
        ('{"text": "a", "text": "b"}', "/f:2: an object has the key 'text' more than once"),
        ('{"text": "a"}{"text": "b"}', "/f:2: column 14: not JSON: Extra data"),
        ('{"text": "a"}\r{"text": "b"}', "/f:2: column 15: not JSON: Extra data"),
        ('{"text": "a\rb"}', "/f:2: column 12: not JSON: Invalid control character"),
        ("7", "/f:2: should be an object with named columns, got 7"),
        ("null", "/f:2: should be an object with named columns, got None"),
        ('"' + "x" * 9999 + '"', "/f:2: should be an object with named columns"),
        ("\0", "/f:2: byte 14 is NUL"),
    ],
)  # fmt: skip
def test_broken_json_lines(tmp_path, line, says):
    assert says in refused("jsonl", f'{{"text": "a"}}\n{line}\n', tmp_path)


@pytest.mark.parametrize("line", ['{"text": "a\u2028b"}', '{"text": "a\\ud83d\\ude00"}'])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_end_at_newlines_alone(tmp_path, line, end):
    assert len(read("jsonl", "\ufeff" + line + end + line, tmp_path)) == 2
    texts = read("text", "\ufeffa\u2028b\x0cc\x0bd\x85e" + end + "f", tmp_path)
    assert [r["text"] for r in texts] == ["a\u2028b\x0cc\x0bd\x85e", "f"]


def test_numbers_that_are_none_stay_in_the_item(tmp_path):
    (row,) = read("jsonl", '{"text": "a", "x": NaN, "y": -Infinity}', tmp_path)
    write_jsonl(tmp_path / "o", [row])
    (again,) = read_jsonl(tmp_path / "o")
    assert again["text"] == "a" and repr(again["item"]) == repr(row["item"])


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "text"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(b'{"text": "a"}', mtime=0), "/f: is packed with gzip: unpack it first"),
        (b"PK\x03\x04rest", "packed with zip"),
        ("text\n1".encode("utf-16"), "/f:1: is UTF-16: save the file as UTF-8"),
        ("text\n1".encode("utf-16-le"), "/f:1: byte 1 is NUL"),
        (b"\xef\xbb\xbftext\ncaf\xe9", "/f:2: byte 11 (0xe9) is not UTF-8"),
        (b"PAR1", "is a Parquet file: set the type to parquet"),
    ],
)
def test_bytes_that_are_no_text(tmp_path, kind, content, says):
    assert says in refused(kind, content, tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("text;n\na;1\n", "delimiter: /f has one column, 'text;n': set delimiter to ';'"),
        ("prompt\ttarget\na\tb\n", r"set delimiter to '\t'"),
        ("a,,\n1,2,3\n", "/f:1: the column '' is there more than once"),
        ('text\n"a\n', "/f:2: not CSV: unexpected end of data"),
        ('text\n"a" b\n', "/f:2: not CSV"),
        ("text,n\na\n", "/f:2: 1 fields where the header has 2"),
        ("text\n", "/f: holds no rows"),
        ("x" * 10_000 + "\n1\n", "it has: 'xxx"),
        (",".join(f"c{i}" for i in range(5000)) + "\n" + "," * 4999 + "\n", "and 4,980 more"),
    ],
)
def test_broken_csv(tmp_path, content, says):
    assert says in refused("csv", content, tmp_path)


def test_csv_of_other_systems(tmp_path):
    assert [r["text"] for r in read("csv", "text\ra\rb\r", tmp_path)] == ["a", "b"]
    assert read("csv", ",text\n0,a\n", tmp_path) == [{"text": "a", "item": {"": "0"}}]
    long = "x" * 1_000_000
    assert read("csv", f'text\n"{long}"\n', tmp_path) == [{"text": long}]


@pytest.mark.parametrize("delimiter", ['"', "\n", "\r", ""])
def test_delimiters_that_can_be_none(tmp_path, delimiter):
    from mht.core.errors import ConfigError

    with pytest.raises(ConfigError, match="delimiter"):
        build(Source, {"type": "csv", "path": "x", "delimiter": delimiter})


@pytest.mark.parametrize("content", ["5", '"x"', "null", "[1]", "[[]]", "[" * 100_000, '{"a": 1}'])
def test_json_that_holds_no_rows(tmp_path, content):
    refused("json", content, tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 9, b"PAR1" + b"\0" * 90 + b"PAR1"])
def test_parquet_that_lies(tmp_path, content):
    assert refused("parquet", content, tmp_path).startswith("/f: not a Parquet file: ")


def parquet(folder, table, **options):
    import pyarrow as pa
    from pyarrow import parquet as pq

    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), folder / "f")
    return build(Source, {"type": "parquet", "path": str(folder / "f"), **options}).rows()


def test_parquet_types(tmp_path):
    import pyarrow as pa

    table = {
        "text": pa.array(["a", "b"]).dictionary_encode(),
        "rating": [Decimal("1.5"), Decimal("-2")],
        "when": [datetime(2020, 1, 1), None],
        "raw": [b"\x00\xff", b""],
        "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
    }
    rows = parquet(tmp_path, table)
    assert [(r["text"], r["rating"]) for r in rows] == [("a", 1.5), ("b", -2.0)]
    write_jsonl(tmp_path / "o", rows)
    assert len(read_jsonl(tmp_path / "o")) == 2


def test_parquet_values_that_python_has_no_form_for(tmp_path):
    import pyarrow as pa

    for values in (
        pa.array([2**62], pa.timestamp("us")),
        pa.array([2**30], pa.date32()),
        pa.Array.from_buffers(pa.string(), 1, [None, *pa.array([b"\xff"]).buffers()[1:]]),
    ):
        with pytest.raises(DataError, match="not a Parquet file"):
            parquet(tmp_path, {"text": ["a"], "x": values})


@pytest.mark.parametrize("value", [b"bytes", 5, [1], ["a"], datetime(2020, 1, 1), {"a": 1}])
def test_parquet_columns_that_are_no_text(tmp_path, value):
    with pytest.raises(DataError, match="f: row 1: column 'text' should be a string, got"):
        parquet(tmp_path, {"text": [value]})


def test_a_parquet_column_that_is_there_twice(tmp_path):
    import pyarrow as pa

    table = pa.table([["a"], ["b"]], names=["text", "text"])
    with pytest.raises(DataError, match="the column 'text' is there more than once"):
        parquet(tmp_path, table)


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "~nobody-here/x", "/dev/null", "/dev", ""])
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "text", "parquet"])
def test_paths_that_are_no_file(path, kind):
    with pytest.raises(OptionError) as caught:
        build(Source, {"type": kind, "path": path}).rows()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 800


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_file_that_may_not_be_read(tmp_path, kind, monkeypatch):
    file = tmp_path / "f"
    file.write_text("{}")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    if os.access(file, os.R_OK):
        monkeypatch.setattr("pathlib.Path.open", refuse)
        monkeypatch.setattr("pyarrow.parquet.ParquetFile", refuse)
    with pytest.raises(OptionError, match="can't be read: Permission denied"):
        build(Source, {"type": kind, "path": str(file)}).rows()


@pytest.mark.parametrize("content", ['{"sentence": ', '{"text": 5}\n{"text": "x"}\n', "\0\0"])
def test_hub_data_that_is_broken(tmp_path, monkeypatch, content):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        build(Source, {"type": "hub", "name": str(tmp_path / "data")}).rows()
    assert "\n" not in str(caught.value)


def test_check_sees_what_fetch_would(tmp_path):
    from mht.checks.data_files import check_data
    from mht.config import DataConfig

    (tmp_path / "good.csv").write_text("text,rating\na,1\n")
    (tmp_path / "bad.csv").write_text("text,rating\na,PG\n")
    (tmp_path / "none.jsonl").write_text(json.dumps({"texts": "a"}))

    def problems(source, labels=None):
        named = {"source": source, "labels": labels}
        made = {
            key: name and {"type": name.split(".")[1], "path": str(tmp_path / name)}
            for key, name in named.items()
        }
        return [p.replace(str(tmp_path), "") for p in check_data(build(DataConfig, made))]

    assert problems("good.csv", "good.csv") == []
    first, second = problems("none.jsonl", "bad.csv")
    assert first.startswith("data.source.columns.prompt: /none.jsonl needs a 'text' column")
    assert second.startswith("data.labels: /bad.csv:2: column 'rating' (rating) should be a number")
    (tmp_path / "plain.csv").write_text("text\na\n")
    assert problems("plain.csv", "plain.csv")[0].startswith("data.labels: row 1 of the source")
    assert problems("gone.csv")[0].startswith("data.source.path: no such file")


def test_check_reads_the_head_of_a_large_file(tmp_path, monkeypatch):
    from mht.checks.data_files import check_data
    from mht.config import DataConfig

    for module in ("reading", "files", "parquet"):
        monkeypatch.setattr(f"mht.data.sources.{module}.HEAD", 60)
    (tmp_path / "f").write_text('text\n"a\nb"\n"' + "x" * 60 + '"\n\xff"')
    source = {"type": "csv", "path": str(tmp_path / "f")}
    assert check_data(build(DataConfig, {"source": source})) == []
