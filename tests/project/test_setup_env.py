"""tools/setup_env.py: the torch that fits, CUDA never by surprise, nothing done twice."""

import pytest

from tools import setup_env
from tools.setup_env import SetupError


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """A Linux machine where installers only write down what they were asked; (commands, fails)."""
    asked, fails = [], []

    def run(command):
        line = " ".join(command).split(" ", 1)[1]
        asked.append(line)
        return not any(part in line for part in fails)

    monkeypatch.setattr(setup_env, "run", run)
    monkeypatch.setattr(setup_env, "VENV", tmp_path)
    monkeypatch.setattr(setup_env, "LOG", tmp_path / "log")
    monkeypatch.setattr(setup_env, "installed", lambda: {"uv": "1"})
    monkeypatch.setattr(setup_env, "pip_config", dict)
    monkeypatch.setattr(setup_env.platform, "system", lambda: "Linux")
    (tmp_path / "log").write_text("ERROR: no such version\n")
    return asked, fails


def test_torch_is_what_was_chosen_or_what_the_machine_has(monkeypatch):
    for gpu, flavour in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(setup_env, "has_nvidia_gpu", lambda gpu=gpu: gpu)
        assert setup_env.wanted_flavour("") == setup_env.wanted_flavour("auto") == flavour
        assert setup_env.wanted_flavour("cpu") == "cpu"
        assert setup_env.wanted_flavour("cuda") == "cuda"
    with pytest.raises(SetupError, match="TORCH must be cpu, cuda or auto, got 'gpu'"):
        setup_env.wanted_flavour("gpu")


def test_the_users_own_cpu_build_comes_first(commands):
    asked, _ = commands
    setup_env.install_torch("torch==2.0", "cpu")
    assert len(asked) == 1
    assert "torch==2.0+cpu" in asked[0]


def test_then_the_one_that_uv_knows(commands):
    asked, fails = commands
    fails.append("+cpu")
    setup_env.install_torch("torch==2.0", "cpu")
    assert "--torch-backend cpu" in asked[-1]


def test_cuda_is_refused_before_it_is_installed(commands, monkeypatch):
    asked, fails = commands
    fails += ["+cpu", "--torch-backend"]
    monkeypatch.setattr(setup_env, "planned", lambda _: ["torch", "nvidia-cublas", "triton"])
    with pytest.raises(SetupError, match=r"CUDA \(2 packages such as nvidia-cublas\).*TORCH=cuda"):
        setup_env.install_torch("torch==2.0", "cpu")
    assert not any(line.endswith("install torch==2.0") for line in asked)


def test_plain_torch_will_do_where_it_brings_no_cuda(commands, monkeypatch):
    asked, fails = commands
    fails += ["+cpu", "--torch-backend"]
    monkeypatch.setattr(setup_env, "planned", lambda _: ["torch", "sympy"])
    setup_env.install_torch("torch==2.0", "cpu")
    assert asked[-1].endswith("install torch==2.0")


@pytest.mark.parametrize(("system", "flavour"), [("Linux", "cuda"), ("Darwin", "cpu")])
def test_plain_torch_for_a_gpu_and_for_macos(commands, monkeypatch, system, flavour):
    asked, _ = commands
    monkeypatch.setattr(setup_env.platform, "system", lambda: system)
    setup_env.install_torch("torch==2.0", flavour)
    assert len(asked) == 1
    assert asked[0].endswith("install torch==2.0")


def test_pip_takes_over_where_uv_fails_and_a_failure_says_why(commands):
    asked, fails = commands
    fails.append("pip install --python")  # uv's command lines
    setup_env.install_rest()
    assert asked[-1].endswith("install -c constraints.txt -e .[dev,docs]")
    fails.append("-e .[dev,docs]")
    with pytest.raises(SetupError, match="installing the packages failed: ERROR: no such version"):
        setup_env.install_rest()


def test_uv_looks_where_pip_looks(monkeypatch):
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    listed = (
        ":env:.find-links='/wheels'\n"
        "global.index-url='https://far.example/simple'\n"
        "install.index-url='https://near.example/simple'\n"
        "global.extra-index-url='\\nhttps://a.example\\nhttps://b.example'"
    )
    monkeypatch.setattr(setup_env, "output_of", lambda _: listed)
    assert setup_env.uv_sources() == [
        *("--default-index", "https://near.example/simple"),
        *("--index", "https://a.example", "--index", "https://b.example"),
        *("--find-links", "/wheels", "--index-strategy", "unsafe-best-match"),
    ]
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own.example")
    assert setup_env.uv_sources() == []


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
