"""Any bytes and any structure, through the reading of a source: rows, or one short error."""

import io
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mht.cli.generate import prompts_of
from mht.core.component import build
from mht.core.errors import UserError
from mht.core.stable_files import read_jsonl, write_jsonl
from mht.data.examples.tokenize import cut_row
from mht.data.prepare.labels import clean_row
from mht.data.sources import Source
from mht.data.sources.fetch import read_rows
from mht.data.sources.table import read_records
from mht.data.text.sample import Sample

SHORT, LONG = 60, 10_000
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)

NAMES = st.sampled_from(
    ["text", "prompt", "target", "messages", "conversations", "completion", "instruction", "input",
     "output", "chosen", "rejected", "rating", "label", "turns", "item", "Text", "", "x", "\ud83d"]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=8),
    st.text(st.characters(categories=["Cs", "Cc", "Zs", "Lu"]), max_size=4),
    st.sampled_from(["a", "1", "nan", "\n\nHuman: q\n\nAssistant: a", "[", '"', "x" * 3000]),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": st.one_of(st.sampled_from(["user", "assistant", "system", "tool"]), SCALARS),
        "content": st.one_of(TEXTS, st.lists(st.dictionaries(NAMES, SCALARS, max_size=2)), SCALARS),
        "from": st.sampled_from(["human", "gpt", "x"]),
        "value": TEXTS,
        "tool_calls": SCALARS,
    },
)
VALUES = st.one_of(
    SCALARS,
    st.lists(TURN, max_size=4),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=6,
    ),
)
RECORDS = st.lists(st.dictionaries(NAMES, VALUES, max_size=5), max_size=4)
PIECES = st.sampled_from(
    [b'"', b",", b";", b"\n", b"\r", b"\r\n", b"\0", b"{", b"}", b"[", b"]", b":", b"\\",
     b"\\ud83d", b"\\u0000", b"text", b"NaN", b"1e999", b"9" * 4400, b"[" * 1200, b'{"a":' * 300,
     b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80\xa8", b"\xe9", b"\xed\xa0\xbd", b"\x1f\x8b",
     b"PAR1", b"\x0c", b"true"]
)  # fmt: skip
BYTES = st.lists(st.one_of(PIECES, st.binary(max_size=6)), max_size=14).map(b"".join)
COLUMNS = st.dictionaries(
    st.sampled_from(["text", "prompt", "target", "rating", "label", "chosen", "messages", "input"]),
    st.one_of(st.none(), NAMES.filter(lambda n: n != "\ud83d")),
    max_size=2,
)


def both(**strategies):
    """A test with few examples, always the same, and a slow one with many."""

    few = settings(max_examples=SHORT, deadline=None, derandomize=True, suppress_health_check=SLOW)
    many = settings(max_examples=LONG, deadline=None, suppress_health_check=SLOW)

    def decorate(test):
        @pytest.mark.parametrize(
            "examples", [few, pytest.param(many, marks=pytest.mark.slow)], ids=["few", "many"]
        )
        def run(examples):
            def once(**values):
                test(**values)

            examples(given(**strategies)(once))()

        return run

    return decorate


def holds(read):
    """Rows that the rest of the pipeline takes, or one short line, soon."""
    began = time.monotonic()
    try:
        rows = read()
    except UserError as error:
        said = str(error)
        lines = said.splitlines()
        assert len(lines) == 1 or lines[0].endswith("the configuration"), said
        assert max(map(len, lines)) < 1500, said
        said.encode()
    else:
        with TemporaryDirectory() as folder:
            write_jsonl(Path(folder, "rows"), rows)
            assert len(read_jsonl(Path(folder, "rows"))) == len(rows)
        for row in rows:
            for key in {"text", "prompt", "target", "rejected", "label"} & set(row):
                assert isinstance(row[key], str)
                row[key].encode()
            if row.keys() & {"text", "prompt"}:
                cut = cut_row(clean_row(row), 5)
                assert Sample(cut.prompt, "a", item=row.get("item", {})).messages
    assert time.monotonic() - began < 10


def source_of(content, kind, options):
    def read():
        with TemporaryDirectory() as folder:
            file = Path(folder, "f")
            file.write_bytes(content)
            source = build(Source, {"type": kind, "path": str(file), **options})
            return read_rows(source, "data.source")[0]

    return read


@both(
    content=BYTES,
    kind=st.sampled_from(["json", "jsonl", "csv", "text", "parquet"]),
    columns=COLUMNS,
)
def test_any_bytes(content, kind, columns):
    options = {} if kind == "text" else {"columns": columns}
    holds(source_of(content, kind, options))


@both(records=RECORDS, columns=COLUMNS, lines=st.booleans(), ascii_only=st.booleans())
def test_any_json(records, columns, lines, ascii_only):
    dumped = [json.dumps(r, ensure_ascii=ascii_only) for r in records]
    text = "\n".join(dumped) if lines else f"[{','.join(dumped)}]"
    content = text.encode("utf-8", "surrogatepass")
    holds(source_of(content, "jsonl" if lines else "json", {"columns": columns}))


@both(records=RECORDS, place=st.floats(0, 1), piece=PIECES, cut=st.integers(0, 9))
def test_json_with_a_fault(records, place, piece, cut):
    content = "\n".join(json.dumps(r) for r in records).encode()
    at = int(place * len(content))
    holds(source_of(content[:at] + piece + content[at + cut :], "jsonl", {}))


@both(records=RECORDS, columns=COLUMNS)
def test_any_records(records, columns):
    """As a library's caller gives them, without a file."""
    from mht.data.sources.columns import Columns

    def read():
        located = [(f"row {n}", record) for n, record in enumerate(records, start=1)]
        return read_records(located, "train_data", build(Columns, columns)).rows

    holds(read)


@both(cells=st.lists(st.lists(TEXTS, min_size=1, max_size=4), min_size=1, max_size=4),
      delimiter=st.sampled_from(",;\t|"), columns=COLUMNS)  # fmt: skip
def test_any_csv(cells, delimiter, columns):
    text = "\n".join(delimiter.join(row) for row in cells)
    content = text.encode("utf-8", "surrogatepass")
    holds(source_of(content, "csv", {"delimiter": delimiter, "columns": columns}))


def parquet_bytes():
    import pyarrow as pa
    from pyarrow import parquet as pq

    out = io.BytesIO()
    turns = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]] * 3
    table = {"text": ["a", None, "c"], "messages": turns, "n": [1.0, 2.0, None], "b": [b"\xff"] * 3}
    pq.write_table(pa.table(table), out)
    return out.getvalue()


WHOLE = parquet_bytes()


@both(faults=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6),
      end=st.one_of(st.none(), st.integers(0, len(WHOLE))))  # fmt: skip
def test_parquet_with_faults(faults, end):
    content = bytearray(WHOLE)
    for place, byte in faults:
        content[place] = byte
    holds(source_of(bytes(content[:end]), "parquet", {}))


@both(content=BYTES)
def test_any_prompt_file(content):
    try:
        prompts = prompts_of(content, "p.txt")
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
    else:
        assert prompts and all(p.strip() and "\n" not in p for p in prompts)
        "".join(prompts).encode()
