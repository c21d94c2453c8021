"""Every example of docs/howto/extending.md works as it is written: class, entry point, settings."""

import math
import re
import sys
import tomllib

import numpy as np
import pytest
import torch

from mht.assets.fetch import fetch_policy
from mht.config import Config, read_yaml
from mht.core.component import build
from mht.data.text.sample import Sample
from mht.generation.sampling.decode import sample
from mht.generation.sampling.seeds import RowSeeds
from mht.memory import Rows, make_memory
from mht.models.loading import load_causal_lm
from mht.models.logprobs import response_logprobs
from mht.tasks.settings import settings_file
from mht.training.resume.state import capture, restore
from tests.support.pages import ROOT, python_blocks
from tests.support.plugins import install
from tests.support.training import TEXTS, rollout_of, trainer_of

PAGE = ROOT / "docs/howto/extending.md"
SMALL = {
    "ppo": {
        "batch_size": 8, "minibatch_size": 4, "sft_batch_size": 4, "epochs": 1,
        "response_tokens": 6, "microbatch_size": None, "responses_per_prompt": 1,
        "reward": {"type": "length_window", "min": 1, "max": 3},
    }
}  # fmt: skip


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def read(text: str, folder) -> dict:
    file = folder / "block.yaml"
    file.write_text(text, encoding="utf-8")
    return read_yaml(file)


def merged(old, new):
    """The settings of a page over those of params.yaml; a component is replaced whole."""
    if not isinstance(old, dict) or not isinstance(new, dict) or "type" in new:
        return new
    return old | {key: merged(old.get(key), value) for key, value in new.items()}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The page's package, installed."""
    (project,) = blocks("toml")
    groups = tomllib.loads(project)["project"]["entry-points"]
    members = {group.removeprefix("mht."): named for group, named in groups.items()}
    code = "\n".join(block for block in python_blocks(PAGE) if "from my_mht" not in block)
    site = install(tmp_path / "site", "my_mht", code, members, block_with(TASK))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "my_mht", raising=False)
    return members


@pytest.fixture
def settings(package, tmp_path):
    """The configuration with one of the page's settings."""

    def with_block(text: str) -> Config:
        data = merged(read_yaml(ROOT / "params.yaml"), SMALL)
        return build(Config, merged(data, read(text, tmp_path)))

    return with_block


def block_with(*words: str) -> str:
    (found,) = (block for block in blocks("yaml") if all(word in block for word in words))
    return found


TRAINED = {
    "phases:": "algorithms.best",
    "mix:": "mix",
    "memory:": "practice",
    "heads:": "how_long_head",
    "weighted_sum": "reward",
    "advantage:": "algorithms.ppo",
    "policy_loss:": "algorithms.ppo",
    "aggregation:": "algorithms.ppo",
    "value_head:": "value_head",
}
TASK, MODEL = "source:", "model:"


@pytest.mark.parametrize("block", TRAINED, ids=[key.strip(":") for key in TRAINED])
def test_a_part_trains_and_checkpoints_hold_its_state(
    settings, tiny_model_dir, tiny_tokenizer, block
):
    text = block_with(block)
    first, resumed = (
        trainer_of(tiny_model_dir(), tiny_tokenizer, config=settings(text).ppo) for _ in range(2)
    )
    phases = [phase for phase, _ in first.config.plan[0]]
    for phase in (*phases, *phases):
        first.next_step(phase, of=10)
    state = capture(first.states).copied()
    assert TRAINED[block] in state.plain
    figures, same = (figures_from(state, trainer, phases[-1]) for trainer in (first, resumed))
    assert figures == same and all(map(math.isfinite, figures.values()))


def figures_from(state, trainer, phase):
    restore(trainer.states, state.copied())
    stats = trainer.next_step(phase, of=10)
    return {key: value for key, value in stats.items() if "/time/" not in key}


def test_the_model_is_made_and_writes_what_is_scored(settings, tmp_path):
    config = settings(block_with(MODEL))
    fetch_policy(config.model, tmp_path / "base", [p + t for p, t in TEXTS])
    model = load_causal_lm(tmp_path / "base")
    assert (type(model).__name__, model.width, model.context) == ("Recurrent", 32, 128)
    batch = rollout_of([[5, 6, 7], [8]], [[9], [9]], left=2)
    written = sample(
        model, batch.prompt_ids, batch.prompt_mask, generator=RowSeeds([1, 2]), response_tokens=5,
        eos_ids=model.ends, pad_id=0,
    )  # fmt: skip
    scored = response_logprobs(model, written, 1.0)
    torch.testing.assert_close(written.logprobs, scored, atol=1e-5, rtol=0)


def test_the_task_has_rows_and_a_reward_for_them(settings):
    config = settings(settings_file("counting").read_text())
    rows = config.data.source.rows()
    assert len(rows) == 500 and rows[3]["item"] == {"first": 3}
    samples = [Sample(row["prompt"], row["target"], row["target"], row["item"]) for row in rows]
    assert config.ppo.reward.evaluate(samples).score == [1.0] * 500
    assert config.ppo.reward.evaluate([Sample("0 1 2", " 3 5", " 3 4", {})]).score == [0.5]


def test_the_memory_waits_for_the_rest_and_takes_the_hardest(settings):
    config = settings(block_with("memory:")).ppo.memory
    rows = Rows(["a", "b", "c"], ["", "", ""], [[1], [2], [3]])
    memory = make_memory(config.type, rows, **config.options)
    memory.records["mean_score"][:] = [0.5, 0.1, 0.3]
    memory.records["practised"][:] = 1
    memory.records["last"][:] = [1, 4, 2]
    memory.clock = 7
    assert memory.choose(2, np.random.default_rng(0)) == [2, 0]


def test_the_script_runs(package):
    (block,) = (block for block in python_blocks(PAGE) if "from my_mht" in block)
    names: dict = {}
    exec(compile(block, PAGE.name, "exec"), names)
    assert names["settings"].mix.share == 0.2


def test_every_class_and_setting_of_the_page_is_tried(package):
    yaml = blocks("yaml")
    tried = [block_with(word) for word in (*TRAINED, TASK, MODEL)]
    assert sorted(tried) == sorted(yaml)
    for named in (names for kind, names in package.items() if kind != "task"):
        for name in named:
            assert any(f"type: {name}" in block for block in yaml), name
