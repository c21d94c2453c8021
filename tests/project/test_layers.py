"""The import rule, what stays cheap to import, and that DVC knows every file a stage runs."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from mht.config import load_config
from tools.stage_deps import all_imports, needed, not_needed, read_stages

FACE = Path("mht/__init__.py")  # imports on first use only, and nothing in mht imports from it
MOST_FILES = 14  # of a package, beside its packages

HEAVY = {
    "accelerate", "bert_score", "bitsandbytes", "datasets", "deepspeed", "detoxify", "dvc",
    "gguf", "lion_pytorch", "matplotlib", "mlflow", "nltk", "optuna", "pandas", "peft", "pyarrow",
    "rouge_score", "sacrebleu", "scipy", "sentence_transformers", "sklearn", "torch",
    "transformers", "trl", "vaderSentiment",
}  # fmt: skip
TORCH_IS_FINE_IN = {  # packages made of it
    "algorithms", "devices", "generation", "losses", "models", "optim", "reward_models", "training",
}  # fmt: skip
LATE = {  # imported inside functions themselves, as they extend a heavy package's classes
    Path("mht/models/hf/cache.py"): {"transformers"},
}

LIBRARY = sorted(set(Path("mht").rglob("*.py")) - {FACE})
STAGES = sorted(Path("stages").rglob("*.py"))


def test_imports_point_down_and_in_no_circle():
    """The contracts are in pyproject.toml."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_library_is_packages():
    assert sorted(file.name for file in Path("mht").glob("*.py")) == ["__init__.py", "__main__.py"]


def test_packages_are_small():
    packages = {file.parent for file in LIBRARY}
    sizes = {str(p): len({*p.glob("*.py")} - {p / "__init__.py"}) for p in packages}
    assert not {package: size for package, size in sizes.items() if size > MOST_FILES}


def test_stages_do_not_import_each_other():
    for file in STAGES:
        others = [
            f for f in all_imports(file) if f.parts[0] == "stages" and f.name != "__init__.py"
        ]
        assert not others, f"{file} may not import {others}: move what they share into mht/"


@pytest.mark.parametrize("file", LIBRARY, ids=str)
def test_nothing_inside_uses_the_face(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "mht" and not node.level:
            for alias in node.names:
                inside = Path("mht", alias.name)
                assert inside.is_dir() or inside.with_suffix(".py").is_file(), (
                    f"{file}:{node.lineno}: import {alias.name} from its own module"
                )


def module_level(tree: ast.Module):
    """Imports that run when the module is imported, with their line."""
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += list(ast.iter_child_nodes(node))


@pytest.mark.parametrize("file", [FACE, *LIBRARY, *STAGES], ids=str)
def test_heavy_packages_wait_for_first_use(file):
    fine = {"torch"} if file.parts[1] in TORCH_IS_FINE_IN else set()
    fine = fine | LATE.get(file, set())
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for name, line in module_level(tree):
        package = name.split(".")[0]
        assert package not in HEAVY - fine, f"{file}:{line}: import {name} inside a function"


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_settings_load_without_heavy_packages():
    code = f"""
import sys, mht, mht.config
mht.load_config
print(sorted({HEAVY!r} & set(sys.modules)))
"""
    assert run_python(code) == "[]"


def test_importing_the_face_imports_nothing_else():
    code = "import sys, mht; print([m for m in sys.modules if m.startswith('mht.')])"
    assert run_python(code) == "[]"


def test_the_face_has_what_it_promises():
    import mht

    assert {"HybridTrainer", "make_reward", "make_optimizer", "make_scheduler"} <= set(mht.__all__)
    for name in mht.__all__:
        assert getattr(mht, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'HybridTrainr'"):
        mht.HybridTrainr  # noqa: B018


@pytest.fixture(scope="module")
def stages():
    return read_stages()


def test_deps_cover_imports(stages):
    config = load_config()
    missing = {
        stage.name: lacking
        for stage in stages
        if (lacking := sorted(str(f) for f in needed(stage, config) if not stage.covers(f)))
    }
    assert not missing, "dvc.yaml lacks deps (python -m tools.stage_deps): " + "; ".join(
        f"{name}: {', '.join(files)}" for name, files in missing.items()
    )


def test_deps_hold_nothing_that_is_not_run(stages):
    config, used = load_config(), defaultdict(set)
    for stage in stages:  # what one variant of a foreach runs, all may name
        used[stage.module] |= needed(stage, config)
    extra = {s.name: found for s in stages if (found := not_needed(s, used[s.module]))}
    assert not extra, f"dvc.yaml: these deps rerun a stage for nothing: {extra}"


def test_every_stage_file_is_in_the_pipeline(stages):
    used = {stage.module for stage in stages}
    assert {file for file in STAGES if file.name != "__init__.py"} == used
