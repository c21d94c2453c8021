"""What holds for every reward: the specs that load, calls, checks, names, state."""

import asyncio
import inspect
import json
import random
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from mht.core.errors import ConfigError, UserError
from mht.data.text.sample import Sample
from mht.rewards import Reward, RewardError, make_reward
from mht.rewards.base import REWARDS

MISSION = """
{"REWARD": {"type": "weighted_sum",
  "components": [
    {"type": "sentiment", "target": "positive", "scale": true, "weight": 0.4},
    {"type": "truth_nli", "aggregation": "p_e_minus_p_c", "weight": 0.3},
    {"type": "perplexity", "model": "gpt2", "stride": 512, "max_length": 1024,
     "reward_mode": "exp_neg_loss", "weight": 0.3}],
  "postprocess": [{"type": "clip", "min": 0, "max": 1}, {"type": "ema_normalize", "decay": 0.995}]}}
"""
BUILT_IN = {
    "bertscore bleu cosine_sts diversity exact_match gate jaccard keyword_count",
    "length_consistency length_window levenshtein min perplexity product python regex_presence",
    "mixture self_play",
    "reward_model rouge-l rouge_l rougel sentiment sts truth_nli truthfulness weighted_sum",
    "factual_accuracy fluency legal_validity llm_judge medical_accuracy scientific_integrity",
    "comet truth_rag",
    "chrf entity_consistency exploration format_accuracy meteor novelty readability",
    "spelling_grammar ter",
    "bias bleurt classifier detoxify emotion formality hate_speech offensiveness qa_relevance",
    "sarcasm topic_consistency toxicity",
}


class Fixed(Reward):
    """Gives what it was made with."""

    values: list

    def score(self, samples):
        """The values."""
        return self.values


def samples(*responses, target=""):
    return [Sample("", response, target) for response in responses]


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_json_of_the_mission_loads_as_it_stands(wrapped):
    spec = json.loads(MISSION)
    reward = make_reward(spec if wrapped else spec["REWARD"])
    assert [c.weight for c in reward.children().values()] == [0.4, 0.3, 0.3]
    assert list(reward.children()) == ["sentiment", "truth_nli", "perplexity"]
    assert [step.type for step in reward.postprocess] == ["clip", "ema_normalize"]
    assert make_reward(reward) is reward


def test_the_same_in_yaml_without_quotes_aliases_too():
    text = """
    type: weighted_sum
    components:
      a: {type: rouge-l, weight: 2}
      b: {type: rougel}
      c: {type: sts}
      d: {type: truthfulness}
      e: {type: length_consistency, min: 1, max: 9}
    """
    reward = make_reward(YAML(typ="safe").load(text))
    primary = [c.type_name for c in reward.children().values()]
    assert primary == ["rouge_l", "rouge_l", "cosine_sts", "truth_nli", "length_window"]


def test_a_spec_under_the_reward_key_has_that_in_its_paths():
    with pytest.raises(ConfigError, match=r"reward.REWARD.type: unknown reward 'blue'"):
        make_reward({"REWARD": {"type": "blue"}})
    with pytest.raises(ConfigError, match=r"nothing else may stand beside REWARD, got \['x'\]"):
        make_reward({"REWARD": {"type": "bleu"}, "x": 1})


def test_every_built_in_type_is_registered_and_importing_them_is_light():
    assert set(REWARDS.names()) >= set(" ".join(BUILT_IN).split())
    heavy = "torch transformers sentence_transformers bert_score sacrebleu numpy"
    code = f"import sys, mht.rewards; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_text_gives_a_float_and_a_list_a_list():
    reward = make_reward({"type": "exact_match"})
    assert reward("a", "a") == 1.0
    assert reward("a", "b", prompt="p", item={"k": 1}) == 0.0
    assert reward(["a", "b"], "a") == [1.0, 0.0]
    assert reward(["a", "b"], ["b", "b"], prompt=["p", "q"], item=[{}, {}]) == [0.0, 1.0]
    assert reward([]) == []
    with pytest.raises(ValueError, match="2 responses but 3 of target"):
        reward(["a", "b"], ["b", "b", "c"])
    with pytest.raises(TypeError, match="needs a response"):
        reward(target="a")


def test_a_chat_is_scored_by_its_assistant_turns():
    chat = [
        {"role": "user", "content": "capital of France?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Paris"}]},
    ]
    assert make_reward({"type": "exact_match"})(chat, "Paris") == 1.0


@pytest.mark.parametrize("chat", [False, True])
def test_it_is_a_reward_function_for_trl(chat):
    reward = make_reward({"type": "jaccard"})

    def as_chat(role, text):
        return [{"role": role, "content": text}] if chat else text

    scores = reward(
        prompts=[as_chat("user", "p"), as_chat("user", "q")],
        completions=[as_chat("assistant", "a b"), as_chat("assistant", "c")],
        completion_ids=[[1, 2], [3]],
        target=["a b", "a b"],
        trainer_state=object(),
        log_metric=print,
    )
    assert scores == [1.0, 0.0]
    assert reward.__name__ == "jaccard" and type(reward).__name__ == "Jaccard"
    assert callable(reward) and not asyncio.iscoroutinefunction(reward)
    assert not inspect.isclass(reward)


def test_columns_reach_the_item():
    seen = []

    class Spy(Reward):
        def score(self, samples):
            seen.extend(samples)
            return [0.0] * len(samples)

    Spy()(prompts=["p", "q"], completions=["a", "b"], target=["t", "u"], level=[1, 2], k="one")
    assert seen == [
        Sample("p", "a", "t", {"target": "t", "level": 1}),
        Sample("q", "b", "u", {"target": "u", "level": 2}),
    ]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0.0, float("nan")], "gave nan for the response 'two'"),
        ([float("-inf"), 0.0], "gave -inf for the response 'one'"),
        ([0.0], "gave 1 scores for 2 samples"),
        ([0.0, None], "not a list of numbers"),
    ],
)
def test_a_bad_score_stops_with_the_components_name(values, says):
    reward = make_reward(
        {
            "type": "min",
            "components": {"fine": {"type": "exact_match"}, "odd": Fixed(values=values)},
        }
    )
    outer = make_reward({"type": "weighted_sum", "components": {"inner": reward}})
    with pytest.raises(RewardError) as caught:
        outer.evaluate(samples("one", "two", target="x"), "ppo")
    assert str(caught.value).startswith("ppo.inner.odd (Fixed): ") and says in str(caught.value)


def test_a_postprocess_that_overflows_stops_with_its_name():
    reward = make_reward({"type": "exact_match", "postprocess": [{"type": "scale", "mul": 1e308}]})
    outer = make_reward(
        {"type": "product", "components": [reward], "postprocess": [{"type": "scale", "mul": 10}]}
    )
    with pytest.raises(RewardError, match=r"reward.postprocess\[0\] \(scale\): gave inf"):
        outer("a", "a")


def test_an_error_in_a_component_keeps_its_kind_and_gains_the_name():
    class Broken(Reward):
        def score(self, samples):
            raise {"user": UserError("set x"), "bug": ZeroDivisionError("bug")}[samples[0].response]

    reward = make_reward({"type": "product", "components": {"b": Broken()}})
    with pytest.raises(UserError, match=r"^reward.b \(Broken\): set x$"):
        reward("user")
    with pytest.raises(ZeroDivisionError) as caught:
        reward("bug")
    assert caught.value.__notes__ == ["in the reward component reward.b (Broken)"]


def test_a_batch_without_any_target_is_not_silent():
    with pytest.warns(UserWarning, match="rouge_l compares with targets, but no sample"):
        make_reward({"type": "rouge_l"})(["a", "b"])


TEXTS = ["a good film", "bad", "", "a good film again", "é 漢字 \u0000", " "]
LEAVES = [
    {"type": "exact_match", "lowercase": True},
    {"type": "jaccard"},
    {"type": "levenshtein"},
    {"type": "rougel", "use_stemmer": False},
    {"type": "bleu", "smooth_method": "floor"},
    {"type": "length_window", "min": 1, "max": 3},
    {"type": "keyword_count", "keywords": ["good"], "normalize": True},
    {"type": "regex_presence", "pattern": "^a"},
    {"type": "diversity", "method": "distinct"},
]
STEPS = [
    {"type": "clip", "min": 0.1},
    {"type": "scale", "mul": -2, "add": 1},
    {"type": "whiten"},
    {"type": "ema_normalize", "decay": 0.5},
]


def random_spec(rng, depth=3):
    """A valid reward spec."""
    kind = rng.choice(["leaf", "weighted_sum", "product", "min", "gate"]) if depth else "leaf"
    if kind == "leaf":
        spec = dict(rng.choice(LEAVES))
    elif kind == "gate":
        inner = [random_spec(rng, depth - 1) for _ in range(2)]
        spec = {"type": "gate", "reward": inner[0], "when": inner[1], "threshold": rng.random()}
    else:
        parts = [random_spec(rng, depth - 1) for _ in range(rng.randint(1, 3))]
        if kind == "weighted_sum":
            parts = [{**part, "weight": rng.uniform(0.1, 2)} for part in parts]
        named = {f"part_{i}": part for i, part in enumerate(parts)}
        spec = {"type": kind, "components": rng.choice([parts, named])}
    steps = [dict(rng.choice(STEPS)) for _ in range(rng.choice([0, 0, 1, 2]))]
    return {**spec, "postprocess": steps} if steps else spec


def nodes(spec, path="reward"):
    """Every component and postprocess of a spec, with its path."""
    yield path, spec
    for i, step in enumerate(spec.get("postprocess", [])):
        yield f"{path}.postprocess[{i}]", step
    parts = spec.get("components", {})
    pairs = parts.items() if isinstance(parts, dict) else enumerate(parts)
    for key, part in pairs:
        yield from nodes(
            part,
            f"{path}.components"
            + (f"[{key}]" if parts is not None and isinstance(key, int) else f".{key}"),
        )
    for key in ("reward", "when"):
        if key in spec:
            yield from nodes(spec[key], f"{path}.{key}")


def broken(rng, path, node):
    """Break a node in place; what the error must start with."""
    how = rng.choice(["key", "type", "no type", "wrong type"])
    if how == "key":
        node["wieght_"] = 1
        return f"{path}.wieght_: no such option 'wieght_'"
    if how == "type":
        node["type"] = "nosuchtype"
        return f"{path}.type: unknown "
    if how == "no type":
        del node["type"]
        return f"{path}.type: a "
    node["postprocess" if "postprocess" in path or "weight" not in node else "weight"] = "x"
    return f"{path}."


@pytest.mark.parametrize("seed", range(60))
def test_random_specs_load_score_and_survive_json(seed):
    rng = random.Random(seed)
    spec = json.loads(json.dumps(random_spec(rng)))
    reward, again = make_reward(spec), make_reward(spec)
    batch = [Sample("p ", text, rng.choice(TEXTS[:2])) for text in TEXTS]
    scored = reward.evaluate(batch)
    assert all(len(values) == len(batch) for values in scored.components.values())
    assert scored.score == scored.components.get("reward.post", scored.components["reward"])
    again.load_state_dict(json.loads(json.dumps(reward.state_dict())))
    assert again.evaluate(batch) == reward.evaluate(batch)


@pytest.mark.parametrize("seed", range(60))
def test_random_mistakes_are_all_found_at_their_paths(seed):
    rng = random.Random(1000 + seed)
    spec = random_spec(rng)
    leaves = [
        (p, n) for p, n in nodes(spec) if not {"components", "reward", "postprocess"} & set(n)
    ]
    chosen = rng.sample(leaves, min(len(leaves), rng.randint(1, 4)))
    expected = [broken(rng, path, node) for path, node in chosen]
    with pytest.raises(ConfigError) as caught:
        make_reward(spec)
    for start in expected:
        assert any(line.startswith(start) for line in caught.value.problems), (start, caught.value)
    assert len(caught.value.problems) == len(set(expected))
