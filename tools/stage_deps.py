"""Which packages each stage of dvc.yaml runs: what its ``deps`` must name.

``python -m tools.stage_deps`` prints them, ready to paste; tests/project/test_layers.py compares.
Imports are followed from the stage's file through mht/, those inside functions included. A reward
or a source is chosen in params.yaml, not imported, so a stage whose ``params`` hold one depends on
that whole kind of component.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.core.registry import modules

if TYPE_CHECKING:
    from mht.config import Config

# Packages that change no result, each for its reason: neither named nor followed.
EXCLUDED = {
    Path("mht/__init__.py"): "the library's face; stages import what they need from its home",
    Path("mht/core"): "errors, declarations, how files are put in place",
    Path("mht/config"): "what it reads is in the stage's params",
    Path("mht/tracking"): "records results and makes none",
    Path("mht/checks"): "refuses settings and changes none",
    Path("mht/pipeline"): "the frame around a stage",
    Path("mht/data/given"): "what a library user gives; stages give prepared examples",
}


SETTINGS = Path("settings")  # a file for each row of baselines


@dataclass(frozen=True)
class StageDeps:
    """A stage of dvc.yaml with what it declares.

    Attributes:
        name: as DVC addresses it, such as ``ppo@sft_only``.
        module: the file that its command runs.
        deps: its declared file and folder dependencies.
        params: its keys of params.yaml.
    """

    name: str
    module: Path
    deps: tuple[Path, ...]
    params: tuple[str, ...]

    def covers(self, file: Path) -> bool:
        """Whether the file or a folder that holds it is declared."""
        return any(dep == file or dep in file.parents for dep in self.deps)


def read_stages() -> list[StageDeps]:
    """The stages of the current folder's dvc.yaml that run stages/*.py, foreach expanded."""
    from dvc.repo import Repo

    with Repo(".") as repo:
        ours = [stage for stage in repo.index.stages if "-m stages." in (stage.cmd or "")]
        return [_read_stage(stage) for stage in ours]


def _read_stage(stage: Any) -> StageDeps:
    from dvc.dependency import ParamsDependency

    words = stage.cmd.split()
    module = Path(words[words.index("-m") + 1].replace(".", "/")).with_suffix(".py")
    deps, params = [], []
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            params += list(dep.params)
        else:
            deps.append(Path(dep.def_path))
    params += [f"baselines.{dep.stem}" for dep in deps if dep.parent == SETTINGS]
    if any(Path(out.def_path) == SETTINGS for out in stage.outs):
        params = []  # it passes them on
    return StageDeps(stage.addressing, module, tuple(deps), tuple(params))


def needed(stage: StageDeps, config: Config) -> set[Path]:
    """The files of stages/ and mht/ whose edit must rerun the stage.

    The folder of all tasks is needed as a whole, so that a new task needs no edit of dvc.yaml.
    """
    start, whole = {stage.module}, set()
    for home in {home for key in stage.params for home in homes(config, key)}:
        start |= {file for name in modules(home) for file in _files(name)}
        whole |= set(Path(*home.partition(".*")[0].split(".")).rglob("*.py"))
    return closure(start) | {file for file in whole if has_code(file)}


def closure(start: Iterable[Path]) -> set[Path]:
    """The files and all that they import, less what is excluded or holds no code."""
    seen: set[Path] = set()
    todo = list(start)
    while todo:
        file = todo.pop()
        if file not in seen and not is_excluded(file):
            seen.add(file)
            todo += imports(file)
    return {file for file in seen if has_code(file)}


def homes(config: Config, key: str) -> set[str]:
    """Where the kinds of component live that params.yaml uses at or below a key."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else getattr(node, part, None)
    return {home for component in components(node) for home in component.registry.homes}


def components(node: Any) -> Iterator[Any]:
    """Every section with a registry in a section, a list or a mapping, nested ones too."""
    from pydantic import BaseModel

    if isinstance(node, BaseModel) and hasattr(node, "registry"):
        yield node
    if isinstance(node, BaseModel):
        node = dict(node)
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from components(child)


@cache
def imports(file: Path) -> tuple[Path, ...]:
    """The repository's files that a file imports anywhere, except for type checkers."""
    return tuple(dict.fromkeys(_imports(file, typing_too=False)))


def all_imports(file: Path) -> tuple[Path, ...]:
    """The same with those for type checkers."""
    return tuple(dict.fromkeys(_imports(file, typing_too=True)))


def _imports(file: Path, *, typing_too: bool) -> Iterator[Path]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if typing_too else _runtime_nodes(tree):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = file.parts[: len(file.parts) - node.level]
                base = ".".join([*package, *([base] if base else [])])
            for alias in node.names:
                yield from _files(f"{base}.{alias.name}")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name)


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        for otherwise in node.orelse:
            yield from _runtime_nodes(otherwise)
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _runtime_nodes(child)


def _files(name: str) -> Iterator[Path]:
    """The files that importing a dotted name runs: the module's and its packages'."""
    parts = name.split(".")
    if parts[0] not in ("mht", "stages"):
        return
    for count in range(1, len(parts) + 1):
        base = Path(*parts[:count])
        for file in (base / "__init__.py", base.with_suffix(".py")):
            if file.is_file():
                yield file


def is_excluded(file: Path) -> bool:
    """Whether the file is on the list above."""
    return file in EXCLUDED or any(parent in EXCLUDED for parent in file.parents)


def has_code(file: Path) -> bool:
    """Whether there is more in the file than a docstring."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return any(
        not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body
    )


def packages(files: set[Path]) -> list[str]:
    """The packages that hold the files; one whose packages are all needed stands for them.

    A file of stages/ stands for itself.
    """
    names = {file if file.parts[0] == "stages" else file.parent for file in files}
    for above in sorted({name.parent for name in names if len(name.parts) > 2}, reverse=True):
        inside = {file.parent for file in above.rglob("*.py") if has_code(file)}
        if all(names & {folder, *folder.parents} for folder in inside):
            names.add(above)
    return sorted(str(name) for name in names if not names & set(name.parents))


def main() -> int:
    """Print each stage's deps as YAML, with a mark at what dvc.yaml lacks or has too much."""
    from mht.config import load_config
    from mht.core.errors import UserError

    try:
        config = load_config()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for stage in read_stages():
        files = needed(stage, config)
        print(f"{stage.name}:")
        for name in packages(files):
            inside = [f for f in files if Path(name) in (f, *f.parents)]
            missing = not all(stage.covers(file) for file in inside)
            print(f"  - {name}{'    # missing' if missing else ''}")
        for dep in not_needed(stage, files):
            print(f"  # not needed: {dep}")
    return 0


def not_needed(stage: StageDeps, files: set[Path]) -> list[str]:
    """Declared library deps whose package holds no file that the stage runs."""
    found = []
    for dep in stage.deps:
        if dep.parts[0] in ("mht", "stages"):
            held = {dep} if dep.is_file() else {f.parent for f in dep.rglob("*.py") if has_code(f)}
            used = files | {file.parent for file in files}
            if not held or not ({dep} & used or held <= used):
                found.append(str(dep))
    return found


if __name__ == "__main__":
    sys.exit(main())
