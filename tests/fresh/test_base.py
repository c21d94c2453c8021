"""The base model of each training seed."""

import shutil

import pytest

from mht.assets.fetch import fetch_policy
from mht.config import Config
from mht.config.overlays.overlay import layered, set_path
from mht.core.component import build
from mht.fresh.base import model_folder
from mht.models.loading import load_causal_lm, load_tokenizer
from mht.tasks.settings import settings_file

TEXTS = ["0 1 2", "3 4 5"]


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Three seeds of the random walks' fresh model, the base of the first in models/base."""
    settings = layered([settings_file("randomwalks")])
    set_path(settings, "base", {"seed": 4, "seeds": 3})
    monkeypatch.chdir(tmp_path)
    made = build(Config, settings)
    fetch_policy(made.model, "models/base", TEXTS)
    return made


def weights(folder):
    return load_causal_lm(folder).state_dict()


def test_further_seeds_have_the_weights_that_fetch_would_make(config):
    place = model_folder("base", config, 6)
    fetch_policy(config.of_seed(6).model, "models/other", TEXTS)
    ours, fetched, first = map(weights, (place, "models/other", "models/base"))
    assert all((ours[name] == fetched[name]).all() for name in fetched)
    assert any((ours[name] != first[name]).any() for name in first)
    words = [load_tokenizer(folder).get_vocab() for folder in (place, "models/base")]
    assert words[0] == words[1]


def test_models_of_the_pipeline_lie_where_the_seed_has_its_files(config):
    assert model_folder("base", config, 4).as_posix() == "models/base"
    assert model_folder("sft", config, 4).as_posix() == "models/sft"
    assert model_folder("hybrid", config, 5).as_posix() == "models/hybrid/seeds/5"
    named = config.model_copy(update={"model": config.model.model_copy(update={"name": "gpt2"})})
    shutil.rmtree("models")
    assert model_folder("base", named, 5).as_posix() == "models/base"
