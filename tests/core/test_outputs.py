"""Outputs are renamed into place: hard links stay as they are, and no half file is left."""

import ast
import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mht.core.errors import OutputError
from mht.core.outputs import disk_problem, replaced, replaced_folder, write_bytes, write_text
from tools.stage_deps import EXCLUDED, closure

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def linked(tmp_path):
    """A file in a folder of outputs that is a hard link to a read-only one of a cache."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "outs").mkdir()
    kept = tmp_path / "cache" / "object"
    kept.write_text("before")
    os.link(kept, tmp_path / "outs" / "a.json")
    kept.chmod(0o444)
    return tmp_path / "outs" / "a.json", kept


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_hard_link_is_not_written_through(linked):
    file, kept = linked
    write_text(file, "after\n")
    assert (file.read_text(), kept.read_text()) == ("after\n", "before")
    write_bytes(file, b"\x00\r\n")
    assert (file.read_bytes(), kept.read_text()) == (b"\x00\r\n", "before")
    assert names(file.parent) == ["a.json"]


def test_a_folder_is_put_in_place_as_a_whole(linked):
    file, kept = linked
    with replaced_folder(file.parent) as part:
        (part / "b").mkdir()
        (part / "b" / "c.txt").write_text("after")
        assert file.read_text() == "before", "the old one stays until the new one is whole"
    assert names(file.parent) == ["b"] and kept.read_text() == "before"
    assert names(file.parents[1]) == ["cache", "outs"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), FULL])
def test_after_a_failure_the_old_output_is_there(linked, error):
    file, _ = linked
    expected = OutputError if error is FULL else type(error)
    with pytest.raises(expected), replaced(file) as part:
        part.write_text("hal")
        raise error
    with pytest.raises(expected), replaced_folder(file.parent) as part:
        (part / "b.txt").write_text("hal")
        raise error
    assert names(file.parent) == ["a.json"] and file.read_text() == "before"
    assert names(file.parents[1]) == ["cache", "outs"]


def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").write_text("before")
    (tmp_path / "out").symlink_to(tmp_path / "kept")
    (tmp_path / "file").symlink_to(tmp_path / "kept" / "a")
    with replaced_folder(tmp_path / "out") as part:
        (part / "a").write_text("after")
    write_text(tmp_path / "file", "after")
    assert (tmp_path / "kept" / "a").read_text() == "before"
    assert (tmp_path / "out" / "a").read_text() == (tmp_path / "file").read_text() == "after"


KILLED = """
import os, signal, sys
from mht.core.outputs import replaced, replaced_folder
with (replaced if sys.argv[2] == "file" else replaced_folder)(sys.argv[1]) as part:
    (part if sys.argv[2] == "file" else part / "a").write_text("hal")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_goes_with_the_next_one(tmp_path, kind):
    target = tmp_path / "x[1]"
    command = [sys.executable, "-c", KILLED, str(target), kind]
    assert subprocess.run(command, check=False).returncode < 0
    (left,) = names(tmp_path)
    assert left.startswith(".x[1].") and left.endswith(".part"), "git and DVC ignore these"
    with (replaced if kind == "file" else replaced_folder)(target) as part:
        assert names(tmp_path) == ([] if kind == "file" else [part.name])
        (part if kind == "file" else part / "a").write_text("whole")
    assert names(tmp_path) == ["x[1]"]


LIMITED = """
import sys
from mht.core.errors import OutputError
from mht.core.outputs import replaced
import numpy as np

def rust(part):
    from safetensors.numpy import save_file
    save_file({"a": np.zeros(10**6)}, part)

def arrow(part):
    import pyarrow as pa
    from pyarrow import parquet
    parquet.write_table(pa.table({"a": np.random.default_rng(0).normal(size=10**6)}), part)

def plain(part):
    part.write_bytes(bytes(10**7))

try:
    with replaced("out.bin") as part:
        {"rust": rust, "arrow": arrow, "plain": plain}[sys.argv[1]](part)
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("library", ["plain", "rust", "arrow"])
def test_what_the_disk_refuses_is_one_line(tmp_path, library):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))

    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, library], cwd=tmp_path, env=env, preexec_fn=limit,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == (
        "out.bin: can't be written (File too large): see to it, then run again\n"
    ), done.stderr
    assert names(tmp_path) == []


def test_a_full_disk_says_what_to_do(tmp_path):
    with pytest.raises(OutputError) as raised, replaced(tmp_path / "a.json"):
        raise FULL
    assert "No space left on device): make room there, then run again" in str(raised.value)


def test_a_file_where_a_folder_belongs_is_one_line(tmp_path):
    (tmp_path / "metrics").write_text("")
    with pytest.raises(OutputError, match="metrics/a.json: can't be written"):
        write_text(tmp_path / "metrics" / "a.json", "")


def test_errors_of_other_kinds_are_no_disk_problem():
    assert disk_problem(FileNotFoundError(errno.ENOENT, "no such file")) is None
    assert disk_problem(ValueError("No space left on device")) is None
    assert disk_problem(RuntimeError("I/O error: No space left on device (os error 28)"))


# No file that a stage runs writes in place.

WRITERS = {
    "write_text", "write_bytes", "write_table", "save_pretrained", "save_file", "savefig",
    "print_png", "to_csv", "to_json", "to_parquet", "copyfile", "copytree", "copy2", "symlink_to",
}  # fmt: skip
ELSEWHERE = {  # what they write lies outside DVC's outputs, or in a folder that is replaced later
    "mht/data/prepare/lengths.py": "its caller puts the picture in place",
    "mht/pipeline/launch.py": "the launcher's own file",
    "mht/assets/encoders.py": "into a folder that is put in place",
    "mht/assets/fetch.py": "into a folder that is put in place",
    "mht/models/policy.py": "its caller gives the folder",
    "mht/models/value/files.py": "beside the policy, in its folder",
    "mht/models/heads.py": "beside the policy, in its folder",
    "mht/models/language_model.py": "its caller gives the folder",
    "mht/rewards/cache.py": "a cache",
    "mht/rewards/truth/retrieval.py": "a cache, renamed",
    "mht/memory/markov/transitions.py": "a picture in memory",
    "mht/reports/figures/canvas.py": "a picture in memory",
    "mht/pipeline/stage_lock.py": "its own pid",
    "mht/training/resume/checkpoint.py": "checkpoints, renamed",
    "mht/training/experiment.py": "into a folder that is put in place",
    "stages/reward_model.py": "into a folder that is put in place",
}


def writes(tree):
    """Lines that open a file for writing or call a library's writer, outside a ``replaced``."""
    inside = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and "replaced" in ast.dump(ast.Module(node.items, []))
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node not in inside:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
            opens = name == "open" and any(m in ("w", "wb", "a", "ab", "w+", "r+") for m in modes)
            own = name.startswith("write_") and isinstance(node.func, ast.Name)
            if opens or (name in WRITERS and not own):
                yield node.lineno


def test_no_stage_opens_an_output_in_place():
    files = closure(Path("stages").glob("*.py")) | {Path("mht/pipeline/stage.py")}
    files |= {Path(p) for p in EXCLUDED if p.is_file() and p.name != "outputs.py"}
    assert len(files) > 50
    found = {
        str(file): lines
        for file in sorted(files)
        if (lines := list(writes(ast.parse(file.read_text(encoding="utf-8")))))
    }
    assert found.keys() - ELSEWHERE.keys() == set(), found


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("open('a.txt', 'w')", True),
        ("Path('a').open('wb')", True),
        ("path.write_text('x')", True),
        ("from mht.core.outputs import write_text\nwrite_text('a', 'x')", False),
        ("open('a.txt')", False),
        ("with replaced('a') as part:\n    part.write_text('x')", False),
        ("with replaced('a') as part, part.open('w') as file:\n    pass", False),
    ],
)
def test_the_search_for_writers_finds_them(code, wrong):
    assert bool(list(writes(ast.parse(code)))) is wrong
