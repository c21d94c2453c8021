"""PPO's parts from outside: a package registers them, and params.yaml names them."""

from safetensors.torch import load_file

from tests.support.plugins import Toy

pytest_plugins = ["tests.support.plugins"]

CODE = '''
from contextlib import nullcontext

import torch

from mht.algorithms.ppo.parts.advantages import Advantage
from mht.algorithms.ppo.parts.aggregations import Aggregation
from mht.algorithms.ppo.parts.policy_losses import PolicyLoss
from mht.models.value.critics import Critic


class Constant(Advantage):
    """Every token is as good as any other."""

    value: float
    whiten: bool = False

    def estimate(self, rewards, values, response_mask, groups, config):
        advantages = torch.where(response_mask, self.value, 0.0)
        return advantages, advantages + values


class Linear(PolicyLoss):
    """Moves with the log-probability; 0 before the first update."""

    def losses(self, logprobs, batch, config):
        return batch.advantages * (1 + batch.old_logprobs - logprobs)


class Known(Critic):
    """Every state is worth what the rollout was given."""

    worth: float

    def head(self, model, reference, *, frozen):
        return Worth(self.worth)


class Worth(torch.nn.Module):
    """One number for all states, which trains; read from no hidden state."""

    def __init__(self, worth):
        super().__init__()
        self.worth = torch.nn.Parameter(torch.tensor(worth))

    def watching(self):
        return nullcontext()

    def forward(self, hidden, rollout=None):
        return self.worth.expand(hidden.shape[:-1])


class Tenfold(Aggregation):
    """Ten times the mean over tokens."""

    def size(self, response_mask):
        return response_mask.sum()

    def mean(self, losses, response_mask):
        return 10 * losses[response_mask].mean()
'''
MEMBERS = {
    "advantage": {"constant": "Constant"},
    "policy_loss": {"linear": "Linear"},
    "aggregation": {"tenfold": "Tenfold"},
    "critic": {"known": "Known"},
}


TOY = Toy(
    "toy_ppo_parts",
    CODE,
    MEMBERS,
    row={
        "advantage": {"type": "constant", "value": 3.0},
        "policy_loss": {"type": "linear"},
        "aggregation": {"type": "tenfold"},
        "value_head": {"type": "known", "worth": 5.0},
        "minibatch_size": 8,
    },
)


def test_parts_from_outside_train_the_policy(toy_rows):
    """The loss shows them all: 10 times the mean over tokens of the advantage 3."""
    rows = toy_rows.curve("toy_ppo_parts", "ppo")
    assert rows and all(abs(row["ppo/policy/loss"] - 30) < 0.1 for row in rows)
    head = load_file(toy_rows.path / "models/toy_ppo_parts/value_head.safetensors")
    assert 4 < head["worth"] < 6 and head["worth"] != 5, "it began at 5 and has trained"
    assert all(row["ppo/optim/grad_norm"] > 0 for row in rows)
