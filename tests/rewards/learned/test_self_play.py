"""Rewards with a memory: self_play, mixture, and what a trained reward model reads of a chat."""

import json
import math
import random
import shutil
from typing import ClassVar

import pytest
import torch

from mht.core.errors import ConfigError, ModelError
from mht.data.text.sample import Sample
from mht.rewards import Reward, RewardError, make_reward
from mht.rewards.composed.mixture import quantile
from mht.training.hybrid import HybridTrainer
from mht.training.resume.state import State, capture, restore
from tests.support.training import examples, hybrid_config

JUDGE = {"type": "keyword_count", "keywords": ["good"]}  # how often "good" occurs
ODD = ["", "  ", "good film " * 10_000, "漢字 عربى", "\x00\x1b\u200b", "\ud800", "good"]


def play(**options):
    return make_reward({"type": "self_play", "judge": JUDGE, **options})


def sample(response, prompt="p", target=""):
    return Sample(prompt, response, target)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# -- self_play --------------------------------------------------------------------------------


def test_the_chance_to_beat_the_target():
    batch = [sample("good good", target="good"), sample("bad", target="good"), sample("good")]
    found = play(temperature=0.5).evaluate(batch)
    assert found.score == pytest.approx([sigmoid(2), sigmoid(-2), 0.5])
    assert found.components["reward.judge"] == [2, 0, 1]
    assert found.components["reward.games"] == [1, 1, 0]
    assert play(count="wins").evaluate(batch).score == [1, 0, 0.5]
    assert play(count="wins")("good", "good") == 0.5


def test_an_earlier_answer_of_the_policy_is_the_opponent_once_there_is_one():
    reward = play(against="earlier", count="wins")
    assert reward.evaluate([sample("bad", target="good")]).score == [0]  # the target, at first
    assert reward.evaluate([sample("good good", target="good")]).score == [1]  # "bad" now
    assert reward.evaluate([sample("good", "q")]).score == [0.5]  # nobody to play against
    # its two answers so far were "bad" and "good good": one game won, one lost
    both = play(against="earlier", count="wins", opponents=5)
    both.load_state_dict(reward.state_dict())
    scored = both.evaluate([sample("good")], update=False)
    assert scored.score == [0.5] and scored.components["reward.games"] == [2]


def test_opponents_stay_frozen_until_the_pool_is_refreshed():
    reward = play(against="earlier", count="wins", refresh_every=3)
    for response in ("bad", "bad", "good"):
        assert reward.evaluate([sample(response)]).score == [0.5]
    state = reward.state_dict()["."]
    (key, answers), *others = state["pool"]
    assert sorted(answers) == ["bad", "good"] and not others and not state["waiting"]
    for _ in range(2):
        reward.evaluate([sample("good good")])
        assert reward.state_dict()["."]["pool"] == [[key, answers]]
    reward.evaluate([sample("good good")])
    assert "good good" in reward.state_dict()["."]["pool"][0][1]


def test_the_pool_is_bounded_and_keeps_the_newest():
    reward = play(against="earlier", pool_size=2, max_prompts=3)
    for number in range(6):
        reward.evaluate([sample(f"answer {number}", "same"), sample("x", f"prompt {number}")])
    pool = dict(reward.state_dict()["."]["pool"])
    assert len(pool) == 3 and ["answer 4", "answer 5"] in pool.values()


def test_evaluation_adds_no_opponents():
    reward = play(against="earlier")
    before = reward.state_dict()
    reward.evaluate([sample("bad")], update=False)
    reward.score([sample("bad")])
    assert reward.state_dict() == before != {}


def test_a_judge_that_compares_the_batch_sees_responses_and_opponents_together():
    judge = {**JUDGE, "postprocess": [{"type": "ema_normalize"}]}
    reward = make_reward({"type": "self_play", "judge": judge})
    reward.evaluate([sample("good good good", target="good"), sample("")])
    assert reward.state_dict()["judge.postprocess[0]"]["mean"] == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": 0.0}, "reward.temperature: should be greater than 0"),
        ({"against": "me"}, "reward.against: should be 'reference' or 'earlier'"),
        (
            {"judge": {"type": "perplexity", "reward_mode": "raw"}},
            "reward.judge.invert: a low score is the good one of this reward: set it to true",
        ),
    ],
)
def test_what_self_play_refuses(options, says):
    with pytest.raises(ConfigError) as caught:
        play(**options)
    assert says in str(caught.value)
    play(judge={"type": "perplexity", "reward_mode": "raw", "invert": True})


@pytest.mark.parametrize("state", [{}, {"batches": 1, "pool": 3, "waiting": []}])
def test_a_broken_state_of_self_play_is_refused(state):
    with pytest.raises(RewardError, match="the saved state of self_play is not whole"):
        play().load_state_dict({".": state})


# -- mixture ----------------------------------------------------------------------------------

BATCH = [Sample("", response, "a") for response in ("a", "b", "a b", "")]
MATCH = {"type": "exact_match"}  # 1 0 0 0 on BATCH, .25 in the mean
SHARE = {"type": "jaccard"}  # 1 0 .5 0, .375 in the mean


def mix(**options):
    parts = options.pop("components", {"match": MATCH, "share": SHARE})
    return make_reward({"type": "mixture", "components": parts, **options})


def test_the_component_that_lags_gains_weight_by_hedge():
    reward = mix(rate=0.5, share=0.1)
    first = reward.evaluate(BATCH)
    assert first.score == [1, 0, 0.25, 0]  # paid with equal weights
    assert first.components["reward.weight_match"] == [0.5] * 4
    grown = math.exp(0.5 * 0.75), math.exp(0.5 * 0.625)
    expected = 0.9 * grown[0] / sum(grown) + 0.05
    second = reward.evaluate(BATCH)
    assert second.components["reward.weight_match"][0] == pytest.approx(expected)
    assert second.score[2] == pytest.approx((1 - expected) * 0.5)


def test_it_starts_from_the_components_weights():
    reward = mix(components=[{**MATCH, "weight": 3}, SHARE])
    assert reward.weights() == {"exact_match": 0.75, "jaccard": 0.25}


class Told(Reward):
    """Scores what the test says."""

    score_range: ClassVar = (0.0, 1.0)

    values: list

    def score(self, samples):
        return [self.values[0]] * len(samples)


def told_mix(**options):
    parts = {name: Told(values=[0.5]) for name in ("up", "flat")}
    return mix(components=parts, **options), parts


@pytest.mark.parametrize(("favours", "winner"), [("improving", "up"), ("stalled", "flat")])
def test_progress_is_the_quantile_among_its_own_last_levels(favours, winner):
    reward, parts = told_mix(favours=favours, rate=1.0, share=0.01)
    assert quantile(3.0, [1.0, 3.0, 5.0]) == 0.5 and quantile(0.0, []) == 0.5
    for level in (0.5, 0.6, 0.7, 0.8):
        parts["up"].values[0] = level
        reward.evaluate(BATCH)
    weights = reward.weights()
    assert max(weights, key=weights.get) == winner
    # three gains of 1 against three of .5 (the first batch has nothing to compare with)
    assert max(weights.values()) == pytest.approx(sigmoid(1.5), abs=0.02)


def test_weights_stay_alive_and_turn_round_when_the_policy_does():
    reward, parts = told_mix(rate=0.5, share=0.1)
    parts["up"].values[0], parts["flat"].values[0] = 0.0, 1.0
    for _ in range(200):
        reward.evaluate(BATCH)
    weights = reward.weights()
    assert weights["flat"] >= 0.05 and weights["up"] > 0.85
    assert sum(weights.values()) == pytest.approx(1)
    parts["up"].values[0], parts["flat"].values[0] = 1.0, 0.0
    for _ in range(10):
        reward.evaluate(BATCH)
    assert reward.weights()["flat"] > 0.5


def test_the_regret_is_within_hedges_bound():
    """Against the best component in hindsight: at most ln K / rate + rate T / 8 (share about 0)."""
    rng, rounds, rate = random.Random(1), 200, 0.1
    reward, parts = told_mix(rate=rate, share=1e-9)
    paid, gains = 0.0, dict.fromkeys(parts, 0.0)
    for _ in range(rounds):
        parts["up"].values[0], parts["flat"].values[0] = rng.random(), rng.random() * 0.8
        gain = {name: 1 - part.values[0] for name, part in parts.items()}
        paid += sum(w * gain[name] for name, w in reward.weights().items())
        gains = {name: total + gain[name] for name, total in gains.items()}
        reward.evaluate(BATCH)
    assert max(gains.values()) - paid <= math.log(2) / rate + rate * rounds / 8


def test_its_range_is_its_components():
    wide = {**SHARE, "postprocess": [{"type": "scale", "mul": 4, "add": -1}]}
    assert mix(components=[MATCH, wide]).bounds() == (-1, 3)
    # a level is the place in that range: the mean of wide is .5 of [-1, 3]
    reward = mix(components={"a": wide, "b": MATCH})
    reward.evaluate(BATCH)
    assert reward.state_dict()["."]["levels"] == {"a": [0.375], "b": [0.25]}


@pytest.mark.parametrize(
    ("components", "says"),
    [
        ({"a": {**MATCH, "weight": 0}, "b": SHARE}, "each must be above 0: a=0"),
        ({"weight_a": MATCH, "b": SHARE}, "'weight_a' would be mistaken for a weight"),
        (
            [MATCH, {"type": "perplexity", "reward_mode": "raw"}],
            "reward.components[1].invert: a low score is the good one",
        ),
    ],
)
def test_what_a_mixture_refuses(components, says):
    with pytest.raises(ConfigError) as caught:
        mix(components=components)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "state", [{}, {"weights": {"match": 1.0}}, {"weights": {"match": "x", "share": 0.5}}]
)
def test_a_broken_state_of_a_mixture_is_refused(state):
    with pytest.raises(RewardError, match="the saved state of mixture has no"):
        mix().load_state_dict({".": state})


def test_a_failed_batch_teaches_nothing():
    class Broken(Told):
        def score(self, samples):
            raise ZeroDivisionError

    reward = mix(components={"a": MATCH, "b": Broken(values=[])}, on_error=0.5)
    before = reward.weights()
    assert reward.evaluate(BATCH).score == [0.5] * 4
    assert reward.weights() == before


# -- both -------------------------------------------------------------------------------------

TREE = {
    "type": "mixture",
    "components": {
        "play": {"type": "self_play", "judge": JUDGE, "against": "earlier", "refresh_every": 2},
        "length": {
            "type": "length_window",
            "min": 1,
            "max": 3,
            "postprocess": [{"type": "ema_normalize", "decay": 0.9}],
        },
    },
    "favours": "stalled",
}


def batches(seed, count=4):
    rng = random.Random(seed)
    words = ["good", "bad", "film", "the"]
    return [
        [
            Sample(rng.choice("pqr"), " ".join(rng.choices(words, k=rng.randint(0, 5))), "good")
            for _ in range(12)
        ]
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_within_a_batch_changes_neither_scores_nor_state(seed):
    forward, shuffled = make_reward(TREE), make_reward(TREE)
    for batch in batches(seed):
        order = random.Random(seed).sample(range(len(batch)), len(batch))
        scores = forward.evaluate(batch).score
        assert shuffled.evaluate([batch[i] for i in order]).score == [scores[i] for i in order]
        assert json.dumps(forward.state_dict()) == json.dumps(shuffled.state_dict())


def test_state_changes_once_a_batch_and_only_in_training():
    reward = make_reward(TREE)
    (batch,) = batches(0, 1)
    for count in (1, 2):
        reward.evaluate(batch)
        state = reward.state_dict()
        assert state["play"]["batches"] == state["length.postprocess[0]"]["batches"] == count
        assert all(len(levels) == count for levels in state["."]["levels"].values())
        reward.evaluate(batch, update=False)
        reward.score(batch)
        assert reward.state_dict() == state


def test_a_run_continues_exactly_from_its_saved_state():
    whole, resumed = make_reward(TREE), make_reward(TREE)
    first, second = batches(0, 5), batches(1, 5)
    for batch in first:
        whole.evaluate(batch)
    saved = json.dumps(whole.state_dict(), sort_keys=True)
    resumed.load_state_dict(json.loads(saved))
    for batch in second:
        assert resumed.evaluate(batch) == whole.evaluate(batch)
    assert resumed.state_dict() == whole.state_dict()


@pytest.mark.parametrize("spec", [TREE, TREE["components"]["play"]])
def test_odd_texts_are_scored(spec):
    reward = make_reward(spec)
    batch = [Sample(text, text, text) for text in ODD]
    for _ in range(3):
        assert all(map(math.isfinite, reward.evaluate(batch).score))
    reward.load_state_dict(json.loads(json.dumps(reward.state_dict())))


def test_a_trainer_takes_them_up_bitwise(tiny_model_dir, tiny_tokenizer):
    def trainer():
        return HybridTrainer(
            tiny_model_dir(),
            tiny_tokenizer,
            examples(tiny_tokenizer, 6),
            config=hybrid_config(reward=make_reward(TREE)),
            num_layers_unfrozen=1,
            seed=3,
            device="cpu",
        )

    whole, resumed = trainer(), trainer()
    for _ in range(2):
        stats = whole.next_step("ppo")
    assert stats["ppo/reward/weight_play"] + stats["ppo/reward/weight_length"] == pytest.approx(1)
    assert stats["ppo/reward/play.games"] == 1
    state = capture(whole.states)
    tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
    restore(resumed.states, State(tensors, json.loads(json.dumps(state.plain))))
    assert resumed.reward.state_dict() == whole.reward.state_dict()
    after = [t.next_step("ppo") for t in (whole, resumed)]
    after = [{k: v for k, v in stats.items() if "/time/" not in k} for stats in after]
    assert after[0] == after[1]
    assert resumed.reward.state_dict() == whole.reward.state_dict()
    weights = zip(whole.policy.model.parameters(), resumed.policy.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


# -- what a reward model reads ----------------------------------------------------------------

TURNS = [{"role": "user", "content": "capital?"}, {"role": "assistant", "content": "of what?"}]
CHAT = Sample("capital?\nof what?\nFrance", "Paris", item={"turns": TURNS})


def test_a_sample_is_a_conversation():
    assert CHAT.messages == [
        *TURNS,
        {"role": "user", "content": "France"},
        {"role": "assistant", "content": "Paris"},
    ]
    assert Sample("a", "b").messages == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]


def test_a_chat_is_read_in_the_template_without_a_second_bos(tiny_chat_tokenizer):
    said = CHAT.as_read("chat", tiny_chat_tokenizer)
    assert said == tiny_chat_tokenizer.apply_chat_template(CHAT.messages, tokenize=False)
    assert said.startswith("<s>user\ncapital?</s>") and said.endswith("assistant\nParis</s>\n")

    class AddsBos:
        chat_template, bos_token, bos_token_id = "x", "<s>", 1
        eos_token_id, added_tokens_decoder = None, {}
        eos_token = unk_token = sep_token = pad_token = cls_token = mask_token = None
        apply_chat_template = tiny_chat_tokenizer.apply_chat_template

        def __call__(self, text):
            return {"input_ids": [1]}

    assert CHAT.as_read("chat", AddsBos()) == said.removeprefix("<s>")
    assert CHAT.as_read("pair") == (CHAT.prompt, "Paris")


@pytest.mark.parametrize("text", ["response", "full", "pair", "chat"])
def test_a_text_never_holds_a_control_token_for_a_judge(tiny_chat_tokenizer, text):
    sample = Sample("a </s> b", "good</s>\n<s>user\nmore <pad>", item={})
    control = {tiny_chat_tokenizer.bos_token_id, tiny_chat_tokenizer.eos_token_id}
    plain = Sample("a b", "good user more")
    read, expected = (s.as_read(text, tiny_chat_tokenizer) for s in (sample, plain))

    def count(given):
        given = given if isinstance(given, tuple) else (given,)
        ids = [tiny_chat_tokenizer(part, add_special_tokens=False)["input_ids"] for part in given]
        return sum(i in control | {tiny_chat_tokenizer.pad_token_id} for row in ids for i in row)

    assert count(read) == count(expected)
    assert "< /s>" in "".join(read)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory, tiny_chat_tokenizer):
    """A folder with a random causal LM that scores texts, and a chat template."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    folder = tmp_path_factory.mktemp("scorer")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_chat_tokenizer), hidden_size=16, intermediate_size=32,
        num_hidden_layers=1, num_attention_heads=2, num_labels=1, initializer_range=0.5,
        pad_token_id=tiny_chat_tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tiny_chat_tokenizer.save_pretrained(folder)
    return str(folder)


def test_reward_model_scores_a_conversation(scorer, tiny_chat_tokenizer):
    from transformers import AutoModelForSequenceClassification

    reward = make_reward({"type": "reward_model", "model": scorer, "text": "chat"})
    one_turn = Sample(CHAT.prompt, "Paris")  # the same prompt, but as a single question
    found = reward.evaluate([CHAT, one_turn, CHAT]).score
    model = AutoModelForSequenceClassification.from_pretrained(scorer).eval()
    for sample_, score in zip((CHAT, one_turn), found, strict=False):
        ids = tiny_chat_tokenizer.apply_chat_template(sample_.messages, return_dict=False)
        with torch.no_grad():
            direct = model(torch.tensor([ids])).logits.item()
        assert score == pytest.approx(direct, abs=1e-5)
    assert found[0] == found[2] != found[1]
    pair = make_reward({"type": "reward_model", "model": scorer, "text": "pair"})
    assert pair.evaluate([CHAT]).score == pair.evaluate([one_turn]).score


def test_a_model_without_a_template_says_so(tmp_path, tiny_tokenizer, scorer):
    shutil.copytree(scorer, tmp_path / "plain")
    for file in tmp_path.joinpath("plain").glob("*.jinja"):
        file.unlink()
    tiny_tokenizer.save_pretrained(tmp_path / "plain")
    spec = {"type": "reward_model", "model": str(tmp_path / "plain"), "text": "chat"}
    with pytest.raises(ModelError, match="has no chat template: set text to pair or full"):
        make_reward(spec)("Paris")


@pytest.mark.parametrize("text", ["response", "full", "pair", "chat"])
def test_a_reward_model_scores_odd_texts(scorer, text):
    reward = make_reward({"type": "reward_model", "model": scorer, "text": text, "max_tokens": 64})
    scores = reward.evaluate([Sample("the film", odd) for odd in ODD]).score
    assert all(map(math.isfinite, scores)) and len(set(scores)) > 1
