"""`mht doctor`: what is wrong here, and how to mend it."""

from __future__ import annotations

import textwrap

import typer

WIDTH = 80
INDENT = 7  # behind the longest level


def doctor() -> None:
    """Look at the environment, the disk, the settings, git, DVC's queue and MLflow's store."""
    from mht.pipeline.doctor import examine

    found = []
    for finding in examine():
        found.append(finding)
        for line in _wrapped(finding.what, f"{finding.level:{INDENT}}"):
            typer.echo(line)
        for line in _wrapped(finding.mend, " " * INDENT + "-> "):
            typer.echo(line)
    wrong = sum(finding.level == "wrong" for finding in found)
    typer.echo(f"\n{wrong} of {len(found)} are wrong." if wrong else "\nNothing is wrong.")
    raise typer.Exit(1 if wrong else 0)


def _wrapped(text: str, head: str) -> list[str]:
    space = " " * len(head)
    return textwrap.wrap(
        text, WIDTH, initial_indent=head, subsequent_indent=space, break_on_hyphens=False
    )
