"""Progress without a terminal is plain lines; on one it is a bar; the items are untouched."""

import io

import pytest

import mht.core.progress
from mht.core.progress import plain_line, track


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until its list's one number is changed."""
    now = [100.0]
    monkeypatch.setattr(mht.core.progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_every_ten_seconds_and_at_the_end(clock, capsys):
    bar = track(range(6), "ppo")
    for step in bar:
        bar.figures(score=0.61234, kl_nats=step)
        clock[0] += 4
    assert capsys.readouterr().err.splitlines() == [
        "ppo 3/6 (0:12, 0:12 left) score=0.612 kl_nats=2",
        "ppo 6/6 (0:24) score=0.612 kl_nats=5",
    ]


def test_short_inner_loops_are_silent(clock, capsys):
    for _ in track(range(2), "outer"):
        assert list(track("abc", "inner")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "outer 2/2 (0:00)\n"


def test_items_of_unknown_number_and_a_loop_left_early(clock, capsys):
    for item in track(iter("abc"), "read"):
        if item == "b":
            break
    with track((), "by hand", total=4) as bar:
        bar.advance(4)
    assert capsys.readouterr().err.splitlines()[-1] == "by hand 4/4 (0:00)"
    assert mht.core.progress._live == []


def test_hours(clock):
    bar = track(range(2), "long")
    with bar:
        bar.done, clock[0] = 1, clock[0] + 3725
        assert plain_line(bar) == "long 1/2 (1:02:05, 1:02:05 left)"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_nested_bars(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    outer = track(range(2), "outer")
    for i in outer:
        outer.figures(score=i)
        assert list(track(range(3), "inner")) == [0, 1, 2]
    assert "outer" in terminal.getvalue() and "2/2" in terminal.getvalue()
    assert "score=1" in terminal.getvalue()
    assert mht.core.progress._live == []
