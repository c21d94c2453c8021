"""A model that is not a transformer, from outside: a GRU that a package registers.

It is made from the data's words, learns by SFT and PPO, writes with a state of its own, is saved
and measured like any other, without a change anywhere else.
"""

import pytest
import torch

from mht.assets.fetch import fetch_policy
from mht.config import Config, ModelConfig, read_yaml
from mht.core.component import build
from mht.core.errors import ConfigError, ModelError
from mht.generation.sampling.decode import sample
from mht.generation.sampling.seeds import RowSeeds
from mht.models.loading import load_causal_lm, load_tokenizer
from mht.models.logprobs import response_logprobs
from mht.models.policy import Policy
from mht.models.readers import policy_model
from tests.support.plugins import Toy
from tests.support.training import rollout_of

pytest_plugins = ["tests.support.plugins"]

GRU = '''
    import torch
    from torch import nn

    from mht.config.fresh import FreshModel, Shape
    from mht.core.bounds import Positive
    from mht.models.base import Decoding, Seen
    from mht.models.language_model import LanguageModel


    class Recurrent(LanguageModel):
        """One GRU layer; a token that is padding leaves the state as it is."""

        def __init__(self, config, width):
            super().__init__(config, width)
            self.cell = nn.GRUCell(width, width)

        def states(self, input_ids, attention_mask):
            state, found = self.words.weight.new_zeros(len(input_ids), self.width), []
            for column in range(input_ids.shape[1]):
                state = self.read(state, input_ids[:, column], attention_mask[:, column])
                found.append(state)
            return torch.stack(found, 1)

        def read(self, state, tokens, mask):
            return torch.where(mask[:, None].bool(), self.cell(self.words(tokens), state), state)

        def start(self, positions):
            return Stateful(self)


    class Stateful(Decoding):
        def __init__(self, model):
            self.model, self.state = model, None

        def step(self, tokens, mask=None):
            state, real = self.state, torch.ones_like(tokens) if mask is None else mask
            if state is None:
                state = self.model.words.weight.new_zeros(len(tokens), self.model.width)
            for column in range(tokens.shape[1]):
                state = self.model.read(state, tokens[:, column], real[:, column])
            self.state = state
            return Seen(self.model.output(state), state[:, None])

        def select(self, index):
            self.state = self.state[index]


    class Gru(FreshModel):
        """A fresh GRU.

        Attributes:
            width: of its state.
            context: most tokens of a text.
        """

        width: Positive = 16
        context: Positive = 128

        def shape(self):
            return Shape(context=self.context)

        def build(self, settings):
            return Recurrent(settings, self.width)
'''
TOY = Toy(
    "toy_gru",
    GRU,
    {"model": {"gru": "Gru"}},
    params={
        "model.name": {"type": "gru", "width": 16},
        "model.num_layers_unfrozen": "all",
    },
)
TEXTS = ["one two three four five six seven", "eight nine ten two one"]
PROMPTS = [[2, 3, 4, 5], [6], [7, 8]]


@pytest.fixture
def folder(site, tmp_path):
    fetch_policy(ModelConfig(name={"type": "gru", "width": 8}), tmp_path / "base", TEXTS)
    return tmp_path / "base"


def test_it_comes_back_from_its_folder(folder, tmp_path):
    model, tokenizer = load_causal_lm(folder), load_tokenizer(folder)
    assert type(model).__name__ == "Recurrent" and policy_model(model) is model
    assert (model.vocabulary, model.width, model.context) == (len(tokenizer), 8, 128)
    assert model.ends == {tokenizer.eos_token_id}
    policy = Policy(model)
    torch.nn.init.normal_(policy.value_head.weight)
    policy.save(tmp_path / "saved", tokenizer)
    again = Policy(load_causal_lm(tmp_path / "saved"))
    assert again.load_value_head(tmp_path / "saved")
    for mine, other in zip(policy.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_what_it_writes_is_what_is_scored(folder):
    model = load_causal_lm(folder)
    batch = rollout_of(PROMPTS * 4, [[9]] * 12, left=2)
    rollout = sample(
        model, batch.prompt_ids, batch.prompt_mask, generator=RowSeeds(list(range(12))),
        response_tokens=6, eos_ids={5, 6}, pad_id=0, share_prompts=True,
    )  # fmt: skip
    assert len(set(rollout.lengths.tolist())) > 1, "no row left the batch early"
    forced = response_logprobs(model, rollout, 1.0)
    torch.testing.assert_close(rollout.logprobs, forced, atol=1e-5, rtol=0)


def test_what_it_can_not_do_is_refused(folder):
    with pytest.raises(ModelError, match=r"model.num_layers_unfrozen: Recurrent has no list of"):
        Policy(load_causal_lm(folder), 1)
    data = read_yaml("params.yaml")
    data["model"]["name"] = {"type": "gru", "wdth": 8}
    with pytest.raises(ConfigError, match=r"model\.name\.wdth: no such option .*'width'"):
        build(Config, data)


def test_the_pipeline_trains_and_measures_it(foreign):
    trained = foreign.json("metrics/hybrid.json")
    assert trained["ppo/policy/ratio_max"] >= 1 and trained["sft/loss"] > 0
    measured = foreign.json("metrics/evaluate/hybrid.json")
    assert measured["kl_nats"]["mean"] != 0, "PPO has not moved the model"
    assert foreign.json("models/hybrid/config.json")["mht_model"]["type"] == "gru"
