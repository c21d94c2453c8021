"""A head from outside, beside the value head: a package registers it, params.yaml names it."""

import signal

import pytest
import torch
from safetensors.torch import load_file

from mht.config import HybridConfig
from mht.core.component import build
from mht.core.errors import ConfigError, ModelError
from mht.models.policy import Policy
from mht.training.resume.checkpoint import TENSORS
from tests.support.jobs import PLAN, Job, run_and_kill
from tests.support.plugins import Toy
from tests.support.training import model_of

pytest_plugins = ["tests.support.plugins"]

LENGTH = '''
    from torch import nn

    from mht.config.heads import Head


    class Length(Head):
        """Predicts the length of the response from each of its states."""

        def make(self, width):
            return LengthHead(width)


    class LengthHead(nn.Linear):
        def __init__(self, width):
            super().__init__(width, 1)

        def loss(self, hidden, batch):
            lengths = batch.mask.sum(1, keepdim=True).expand_as(batch.mask)[batch.mask]
            return (self(hidden.float()).squeeze(-1) - lengths).square().mean()
'''
TOY = Toy(
    "toy_head",
    LENGTH,
    {"head": {"length": "Length"}},
    row={"heads": {"how_long": {"type": "length", "coef": 0.5}}},
)
SETTINGS = {"cycles": 0, "sft_steps_per_cycle": 0, "ppo_steps_per_cycle": 0}


def heads(**named):
    return build(HybridConfig, SETTINGS | {"heads": named}).heads


def test_it_is_saved_beside_the_value_head_and_restored(
    site, tmp_path, tiny_model_dir, tiny_tokenizer
):
    policy = Policy(model_of(tiny_model_dir()), heads=heads(first={"type": "length"}))
    assert set(policy.heads) == {"value", "first"}
    policy.save(tmp_path / "saved", tiny_tokenizer)
    other = heads(first={"type": "length"}, second={"type": "length"})
    again = Policy(model_of(tmp_path / "saved"), heads=other)
    fresh = again.heads["second"].weight.clone()
    again.load_heads(tmp_path / "saved")
    assert torch.equal(again.heads["first"].weight, policy.heads["first"].weight)
    assert torch.equal(again.heads["second"].weight, fresh)
    again.heads["first"] = torch.nn.Linear(5, 1)
    with pytest.raises(ModelError, match=r"its head 'first' has other weights than ppo\.heads"):
        again.load_heads(tmp_path / "saved")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"a": {"type": "lenght"}}, r"heads\.a\.type: unknown head 'lenght' .*'length'"),
        ({"a": {"type": "length", "coeff": 1.0}}, r"heads\.a\.coeff: no such option .*'coef'"),
        ({"value": {"type": "length"}}, r"heads: 'value' is the name of the value head"),
    ],
)
def test_mistakes_are_refused(site, named, message):
    with pytest.raises(ConfigError, match=message):
        heads(**named)


def test_a_run_killed_within_a_cycle_ends_the_same(site, tmp_path, tiny_model_dir, tiny_tokenizer):
    """SIGKILL after the first of the second cycle's two PPO steps, with a head that has learnt."""
    whole, broken = (
        Job(tmp_path / name, tiny_model_dir(), tiny_tokenizer, heads={"first": {"type": "length"}})
        for name in ("whole", "broken")
    )
    assert PLAN == [(2, 1), (1, 2)]
    assert run_and_kill(broken, kill_at=7) == -signal.SIGKILL
    newest = max(broken.folder.iterdir())
    assert newest.name == "00000006"
    state = load_file(newest / TENSORS)
    fresh = broken.trainer().policy.heads["first"]
    assert not torch.equal(state["first_head.weight"], fresh.weight), "it has learnt"
    assert broken.run() == whole.run()


def test_the_pipeline_trains_it(toy_rows):
    assert toy_rows.json("metrics/toy_head.json")["ppo/heads/how_long/loss"] > 0
    stored = load_file(toy_rows.path / "models/toy_head/heads.safetensors")
    shapes = {name: tuple(value.shape) for name, value in stored.items()}
    assert shapes == {"how_long.weight": (1, 32), "how_long.bias": (1,)}
