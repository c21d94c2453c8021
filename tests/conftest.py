"""What many tests share: no network, one thread, a tiny tokenizer and tiny random models.

MHT_TEST_THREADS=2 gives them two threads: `make processors` holds that they pass so too.

``tiny_tokenizer`` is built in this process from a few sentences. ``tiny_model_dir(kind)`` writes a
random model of a real architecture with that tokenizer as a Hugging Face folder and returns its
path; the same arguments give the same folder for the whole session.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

# in the background of a shell ctrl-C is ignored, and so it would be in stages that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)
# before anything imports torch or a Hugging Face library; stages that tests start inherit it
os.environ["OMP_NUM_THREADS"] = os.environ.get("MHT_TEST_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME"):
    os.environ.pop(name, None)  # a developer's own runs stay out of it
# each process that tests start would compile what it imports anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

import dvc  # noqa: E402, F401 (its log keeps the stdout of its import: not that of one test)
import pytest  # noqa: E402

pytest.register_assert_rewrite("tests.support")
from tests.support.models import make_tiny_tokenizer, save_tiny_model  # noqa: E402


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """The tests of the finished pipeline come first, so that nobody waits for it.

    xdist gives every process one stretch of the list: the first process makes the pipeline while
    the others are at work on theirs.
    """
    items.sort(key=lambda item: "finished" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Connections leave this process only for this machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        local = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
        if not local:
            raise RuntimeError(f"tests have no network, but something connects to {address}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """The tokenizer of `make_tiny_tokenizer`, without a chat template."""
    return make_tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_chat_tokenizer():
    """The same with a chat template."""
    return make_tiny_tokenizer(chat=True)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory):
    """``tiny_model_dir(kind="llama", layers=2, seed=0, chat=False) -> Path`` of a model folder.

    Kinds: those of MODEL_SIZES; hidden size 32, 4 heads, 256 positions, dropout 0.
    """
    made = {}

    def make(kind: str = "llama", *, layers: int = 2, seed: int = 0, chat: bool = False):
        key = (kind, layers, seed, chat)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"{kind}-{layers}")
            save_tiny_model(made[key], kind, layers, seed, make_tiny_tokenizer(chat=chat))
        return made[key]

    return make
