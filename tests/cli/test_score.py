"""`mht score` and `mht rewards`: every kind of file, the figures, and mistakes in one line."""

import csv
import json
import sys

import pytest
from typer.testing import CliRunner

import mht.cli.main
from mht.cli.score_report import figures, histogram, shown
from mht.rewards import make_reward
from mht.rewards.base import REWARDS

SPEC = {
    "type": "weighted_sum",
    "components": {
        "match": {"type": "jaccard", "weight": 2},
        "length": {"type": "length_window", "min": 1, "max": 2, "invert": True},
    },
}
ROWS = [
    {"prompt": "p", "response": "a b", "target": "a b"},
    {"prompt": "p", "response": "a b c d", "target": "a b"},
    {"prompt": "q", "response": "[red]x[/red]\x1b[31m \ud800", "target": "y"},
    {"prompt": "q", "response": "", "target": "y"},
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A spec and the rows as JSON Lines, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def run(*arguments):
    done = CliRunner().invoke(
        mht.cli.main.commands, list(map(str, arguments)), catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def score(data="rows.jsonl", *arguments, reward="spec.json"):
    return json.loads(run("score", "--reward", reward, "--data", data, "--json", *arguments))


@pytest.fixture
def refused(monkeypatch, capsys):
    """A function: what the command says when it ends with code 2."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mht", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            mht.cli.main.app()
        assert left.value.code == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return [line for line in said.splitlines() if not line.startswith("score ")]

    return call


def expected():
    reward = make_reward(SPEC)
    texts = {key: [row[key] for row in ROWS] for key in ROWS[0]}
    return reward(texts["response"], texts["target"], prompt=texts["prompt"])


def test_the_figures_are_those_of_the_reward():
    found, numbers = score(), expected()
    assert found["samples"] == 4 and found["score"]["mean"] == pytest.approx(sum(numbers) / 4)
    assert found["nodes"]["reward"] == found["score"]
    assert found["nodes"]["reward.length"]["max"] == 1  # raw; inverted it is a node of its own
    assert found["nodes"]["reward.length.post"]["min"] == 0
    assert [row["score"] for row in found["lowest"]] == sorted(numbers)[:3]
    assert [row["row"] for row in found["highest"]] == [2]  # 1 is as high, and among the lowest


def write_parquet(path, rows):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.endswith("tsv") else ",")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path, rows):
    with open(path, "w") as file:
        json.dump(rows, file)


@pytest.mark.parametrize(
    ("path", "write"),
    [
        ("r.csv", write_csv),
        ("r.tsv", write_csv),
        ("r.json", write_json),
        ("r.parquet", write_parquet),
    ],
)
def test_every_kind_of_file_gives_the_same(path, write):
    plain = [row for row in ROWS if "\ud800" not in row["response"]]
    write_json("plain.json", plain)
    write(path, plain)
    assert score(path) == score("plain.json")


def test_a_text_file_has_a_response_a_line(folder):
    (folder / "r.txt").write_text("a b\n\nc d e\n")
    (folder / "s.yaml").write_text("{type: length_window, min: 3, max: 4}\n")
    found = score("r.txt", reward="s.yaml")
    assert found["samples"] == 2 and found["score"]["max"] == 1


def test_columns_are_renamed_and_chats_are_read(folder):
    rows = [
        {
            "question": [{"role": "user", "content": row["prompt"]}],
            "answer": [{"role": "assistant", "content": row["response"]}],
            "gold": row["target"],
        }
        for row in ROWS
    ]
    write_json("renamed.json", rows)
    names = ["--prompt", "question", "--response", "answer", "--target", "gold"]
    assert score("renamed.json", *names) == score()


def test_the_whole_row_reaches_the_reward_and_the_state_stays(folder):
    (folder / "mine.py").write_text("def score(samples): return [s.item['k'] for s in samples]\n")
    (folder / "s.yaml").write_text(
        "reward: {type: python, file: mine.py, postprocess: [{type: ema_normalize}]}\n"
    )
    write_json("k.json", [{"response": "x", "k": float(k)} for k in range(10)])
    found = score("k.json", "--batch-size", 3, reward="s.yaml")
    assert found["score"]["mean"] == 4.5 and found["nodes"]["reward.post"]["50%"] == 4.5


def test_limit_and_batch_size():
    assert score("rows.jsonl", "--limit", 2)["samples"] == 2
    assert score("rows.jsonl", "--batch-size", 1) == score()


@pytest.mark.parametrize(
    "content",
    [
        {"ppo": {"reward": SPEC, "cycles": "many"}, "nonsense": 1},
        {"reward": SPEC},
        {"REWARD": SPEC},
    ],
)
def test_a_spec_stands_in_any_of_its_places(folder, content):
    (folder / "params.yaml").write_text(json.dumps(content))  # JSON is YAML
    assert score(reward="params.yaml") == score()


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_out_holds_every_sample_with_every_node(ending):
    run("score", "--reward", "spec.json", "--data", "rows.jsonl", "--out", f"out.{ending}")
    if ending == "jsonl":
        with open("out.jsonl") as file:
            rows = [json.loads(line) for line in file]
    elif ending == "json":
        with open("out.json") as file:
            rows = json.load(file)
    elif ending == "csv":
        with open("out.csv", newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        from pyarrow import parquet

        rows = parquet.read_table("out.parquet").to_pylist()
    assert [float(row["score"]) for row in rows] == expected()
    names = ["reward", "reward.match", "reward.length", "reward.length.post"]
    assert list(rows[0]) == ["score", "prompt", "response", "target", *names]
    if ending.startswith("json"):
        assert [row["response"] for row in rows] == [row["response"] for row in ROWS]
        assert score(f"out.{ending}") == score()  # and it can be scored again


def test_what_is_shown():
    shown_ = run("score", "--reward", "spec.json", "--data", "rows.jsonl", "--samples", 1)
    assert "reward.length.post" in shown_ and "scores of 4 samples" in shown_ and "█" in shown_
    assert "[red]x[/red]�[31m �" in shown_  # no markup, no control, and no crash
    assert "lowest" in shown_ and "highest" in shown_
    assert "highest" not in run(
        "score", "--reward", "spec.json", "--data", "rows.jsonl", "--samples", 0
    )


def test_failures_are_counted(folder):
    (folder / "mine.py").write_text(
        "def score(samples): return [1 / len(s.response) for s in samples]\n"
    )
    parts = {"x": {"type": "python", "file": "mine.py", "on_error": 0}}
    (folder / "s.json").write_text(json.dumps({"type": "min", "components": parts}))
    with pytest.warns(UserWarning, match="1 of 1 responses got 0.0"):
        found = score("rows.jsonl", "--batch-size", 1, reward="s.json")
    assert found["failed"] == {"reward.x": 1}


def test_figures_and_histogram():
    found = figures([3.0, 1.0, 2.0, 10.0])
    assert found["mean"] == 4 and found["min"] == 1 and found["max"] == 10
    assert found["25%"] == 1.75 and found["95%"] == pytest.approx(8.95)
    assert figures([2.0])["std"] == 0 == figures([2.0])["95%"] - 2
    bars = histogram([0.1 * i for i in range(100)])
    assert sum(n for _, _, n in bars) == 100 and bars[0][0] == 0 and bars[-1][1] == 9.9
    assert histogram([5.0, 5.0]) == [(5.0, 5.0, 2)]
    assert histogram([0.0, 5e-324]) and shown("x" * 999).endswith("…")


BAD = {
    "no spec": (("none.json", "rows.jsonl"), "--reward: no such file 'none.json'"),
    "no data": (("spec.json", "row.jsonl"), "--data: no such file 'row.jsonl' (did you mean"),
    "no kind": (("spec.json", "spec.xlsx"), "--data: 'spec.xlsx' should end in one of .jsonl, "),
    "no JSON": (("bad.json", "rows.jsonl"), "bad.json: not JSON: "),
    "no YAML": (("bad.yaml", "rows.jsonl"), "bad.yaml: not YAML: "),
    "no reward": (("other.json", "rows.jsonl"), "other.json: has no reward: needs a type, reward"),
    "empty": (("spec.json", "empty.jsonl"), "empty.jsonl: the file is empty"),
    "no column": (("spec.json", "col.csv"), "col.csv: no column 'response' (did you mean 'respo"),
    "a number": (("spec.json", "n.jsonl"), "n.jsonl:1: column 'response' (response) should be a"),
    "null": (("spec.json", "null.jsonl"), "null.jsonl:1: column 'response' (response) should be"),
}


@pytest.mark.parametrize(("files", "says"), BAD.values(), ids=BAD)
def test_mistakes_are_one_line(folder, refused, files, says):
    for name, text in {
        "bad.json": "{",
        "bad.yaml": "a: [",
        "other.json": '{"ppo": {"cycles": 1}}',
        "empty.jsonl": "",
        "col.csv": "prompt,respond\nx,y\n",
        "n.jsonl": '{"response": 3}\n',
        "null.jsonl": '{"response": null}\n',
    }.items():
        (folder / name).write_text(text)
    (line,) = refused("score", "--reward", files[0], "--data", files[1])
    assert line.startswith(says)


def test_a_bug_is_shown_with_its_line_and_the_response(folder, refused):
    (folder / "bug.py").write_text("def score(samples):\n    return 1 / 0\n")
    (folder / "bug.json").write_text('{"type": "python", "file": "bug.py"}')
    first, *more = refused("score", "--reward", "bug.json", "--data", "rows.jsonl")
    assert first.startswith("reward (python): bug.py:2, in score: ZeroDivisionError")
    assert more[0].strip() == "return 1 / 0" and more[1].startswith("  on response 1 of ")


def test_mistakes_in_a_spec_come_all_with_their_paths(folder, refused):
    spec = {"ppo": {"reward": {"type": "min", "components": {"a": {"type": "blue"}, "b": 1}}}}
    (folder / "params.yaml").write_text(json.dumps(spec))
    head, *lines = refused("score", "--reward", "params.yaml", "--data", "rows.jsonl")
    assert head == "2 problems in params.yaml"
    assert [line.split(": ")[0] for line in lines] == [
        "  ppo.reward.components.a.type",
        "  ppo.reward.components.b",
    ]


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("out.xlsx", "--out: 'out.xlsx' should end in one of .jsonl, .json, .csv, .parquet"),
        ("no/out.csv", "--out: there is no folder 'no'"),
        ("rows.jsonl", "--out: 'rows.jsonl' is a folder or the data themselves"),
    ],
)
def test_a_file_that_can_t_be_written_is_refused_before_scoring(refused, out, says):
    (line,) = refused("score", "--reward", "spec.json", "--data", "rows.jsonl", "--out", out)
    assert line.startswith(says)


# mht rewards


def test_every_type_is_listed():
    listed = run("rewards")
    for name in REWARDS.names():
        assert name in listed or len(name) > 24
    assert "any number, either may be good" in listed


def test_a_type_is_told_with_its_options():
    told = run("rewards", "rougel")
    assert told.startswith("rouge_l (also rouge-l, rougel)\n")
    assert "words match by their Porter stem" in told and "needs: a target; rouge-score" in told
    assert '{"type": "rouge_l"}' in told and "\n  on_error" not in told and "on_error" in told
    assert "required" in run("rewards", "length_window")


@pytest.mark.parametrize("name", sorted(REWARDS.registered()))
def test_every_type_can_be_told(name):
    assert run("rewards", name)


def test_an_unknown_type_is_one_line(refused):
    (line,) = refused("rewards", "rogue_l")
    assert line.startswith("unknown reward 'rogue_l' (did you mean 'rouge_l'?). Available: ")
