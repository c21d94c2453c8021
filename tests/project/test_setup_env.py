"""tools/setup_env.py: the torch that fits, CUDA never by surprise, nothing done twice."""

import pytest

from tools import setup_env
from tools.setup_env import SetupError


@pytest.fixture
def tried(monkeypatch, tmp_path):
    """``tried("cpu", uv="/bin/uv") -> lines``: all command lines on a Linux machine."""
    monkeypatch.setattr(setup_env, "VENV", tmp_path)
    monkeypatch.setattr(setup_env, "PYTHON", "python")
    monkeypatch.setattr(setup_env, "pinned", lambda name: f"{name}==2.0")
    monkeypatch.setattr(setup_env.platform, "system", lambda: "Linux")
    monkeypatch.setattr(setup_env, "planned", lambda _: ["torch", "sympy"])

    def lines(flavour, uv=None):
        monkeypatch.setattr(setup_env.shutil, "which", lambda _: uv)
        return [" ".join(command) for command in setup_env.commands(flavour)]

    return lines


def test_torch_is_what_was_chosen_or_what_the_machine_has(monkeypatch):
    for gpu, flavour in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(setup_env, "has_nvidia_gpu", lambda gpu=gpu: gpu)
        assert setup_env.wanted_flavour("") == setup_env.wanted_flavour("auto") == flavour
        assert setup_env.wanted_flavour("cpu") == "cpu"
        assert setup_env.wanted_flavour("cuda") == "cuda"
    with pytest.raises(SetupError, match="TORCH must be cpu, cuda or auto, got 'gpu'"):
        setup_env.wanted_flavour("gpu")


def test_a_cpu_build_comes_before_plain_torch(tried):
    own, plain = tried("cpu")
    assert "torch==2.0+cpu" in own and "pip" in own
    assert plain.endswith("install -c constraints.txt -e .[dev,docs]")


def test_uv_does_it_where_it_is_there_and_pip_where_uv_fails(tried):
    own, uvs, pips, plain, last = tried("cpu", "/bin/uv")
    assert own.startswith("/bin/uv pip install ") and "torch==2.0+cpu" in own
    assert uvs.startswith("/bin/uv pip install ") and "--torch-backend cpu" in uvs
    assert not pips.startswith("/bin/uv") and "torch==2.0+cpu" in pips
    assert plain.startswith("/bin/uv pip install ") and not last.startswith("/bin/uv")


def test_cuda_is_refused_before_it_is_installed(tried, monkeypatch):
    monkeypatch.setattr(setup_env, "planned", lambda _: ["torch", "nvidia-cublas", "triton"])
    monkeypatch.setattr(setup_env.shutil, "which", lambda _: None)
    left = setup_env.commands("cpu")
    assert "torch==2.0+cpu" in " ".join(next(left))
    with pytest.raises(SetupError, match=r"CUDA \(2 packages such as nvidia-cublas\).*TORCH=cuda"):
        next(left)


@pytest.mark.parametrize(("system", "flavour"), [("Linux", "cuda"), ("Darwin", "cpu")])
def test_plain_torch_for_a_gpu_and_for_macos(tried, monkeypatch, system, flavour):
    monkeypatch.setattr(setup_env.platform, "system", lambda: system)
    (line,) = tried(flavour)
    assert line.endswith("install -c constraints.txt -e .[dev,docs]")


def test_a_failure_says_why(tried, monkeypatch, tmp_path):
    (tmp_path / "log").write_text("ERROR: no such version\n")
    monkeypatch.setattr(setup_env, "LOG", tmp_path / "log")
    monkeypatch.setattr(setup_env, "make_venv", lambda flavour: None)
    monkeypatch.setattr(setup_env, "run", lambda command: False)
    tried("cpu")
    with pytest.raises(SetupError, match="installing the packages failed: ERROR: no such version"):
        setup_env.install("cpu")


def test_nothing_is_done_twice(monkeypatch, tmp_path):
    done = []
    for name in ("pyproject.toml", "constraints.txt", "python"):
        (tmp_path / name).write_text("torch==2.0")
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    monkeypatch.setattr(setup_env, "PYTHON", tmp_path / "python")
    monkeypatch.setattr(setup_env, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(setup_env, "install", done.append)
    for flavour, runs in (("cpu", 1), ("cpu", 1), ("cuda", 2), ("cuda", 2)):
        monkeypatch.setenv("TORCH", flavour)
        assert setup_env.main() == 0
        assert len(done) == runs
    (tmp_path / "constraints.txt").write_text("torch==2.1")
    assert setup_env.main() == 0
    assert done == ["cpu", "cuda", "cuda"]
