"""Rewards to and from TRL: its documented call, its own trainer, its functions."""

import asyncio
import inspect
import sys

import pytest

from mht.core.errors import UserError
from mht.data.text.sample import Sample
from mht.rewards import RewardError, make_reward
from tests.support.reward_specs import plain_types, quietly, scores_here, spec_of

PROMPTS = ["the film: ", "the film: ", "its plot: "]
TEXTS = ["a good film", "a good film", "slow\nand dull, and slow"]
TARGETS = ["a very good film", "a very good film", "it is slow"]


def chat(role, texts):
    return [[{"role": role, "content": text}] for text in texts]


def as_trl_calls(function, *, chats, **columns):
    """GRPOTrainer's call (TRL 1.16): all by keyword, columns as lists, extras that few want."""
    return function(
        prompts=chat("user", PROMPTS) if chats else PROMPTS,
        completions=chat("assistant", TEXTS) if chats else TEXTS,
        completion_ids=[[1, 2], [1, 2], [3]],
        trainer_state=object(),
        log_extra=print,
        log_metric=print,
        **columns,
    )


@pytest.mark.parametrize("chats", [False, True])
@pytest.mark.parametrize("cls", plain_types(), ids=lambda cls: cls.type_name)
def test_every_type_is_a_reward_function(cls, chats):
    if not scores_here(cls):
        pytest.skip("it needs packages or columns that are not here")
    rows = [{"target": target, "language": "en"} for target in TARGETS]
    batch = [Sample(*parts) for parts in zip(PROMPTS, TEXTS, TARGETS, rows, strict=True)]
    expected = quietly(make_reward(spec_of(cls)), batch).score
    reward = make_reward(spec_of(cls))
    assert as_trl_calls(reward, chats=chats, target=TARGETS, language=["en"] * 3) == expected
    assert all(type(score) is float for score in expected)


def test_it_looks_like_a_function_to_trl():
    """What TRL asks: a name for the logs, and whether it is a coroutine, a module or a path."""
    reward = make_reward({"type": "rougel"})
    assert reward.__name__ == "rougel" and callable(reward) and not isinstance(reward, str)
    assert not asyncio.iscoroutinefunction(reward)
    assert not asyncio.iscoroutinefunction(type(reward).__call__)
    names = inspect.signature(reward).parameters
    assert {"prompts", "completions"} <= set(names)
    assert any(p.kind is p.VAR_KEYWORD for p in names.values())


def test_a_state_goes_on_from_call_to_call():
    spec = {"type": "jaccard", "postprocess": [{"type": "ema_normalize", "decay": 0.5}]}
    direct, called = make_reward(spec), make_reward(spec)
    batch = [Sample(*parts) for parts in zip(PROMPTS, TEXTS, TARGETS, strict=True)]
    for _ in range(3):
        assert as_trl_calls(called, chats=False, target=TARGETS) == direct.evaluate(batch).score
    assert called.state_dict() == direct.state_dict()


@pytest.mark.slow
def test_trl_s_own_trainer_takes_it(tiny_model_dir, tmp_path):
    """One step of GRPO with a tiny model."""
    import trl
    from datasets import Dataset

    parts = {"match": {"type": "rouge_l"}, "words": {"type": "jaccard"}}
    tree = make_reward({"type": "weighted_sum", "components": parts})
    trainer = trl.GRPOTrainer(
        str(tiny_model_dir(chat=True)),
        reward_funcs=[tree, make_reward({"type": "diversity"})],
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=6,
            max_steps=1,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            bf16=False,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS, "target": TARGETS}),
    )
    trainer.train()
    logged = {key for log in trainer.state.log_history for key in log}
    assert {"rewards/weighted_sum/mean", "rewards/diversity/mean"} <= logged


FUNCTIONS = '''
def length(completions, **kwargs):
    """TRL's documented example."""
    return [float(len(completion)) for completion in completions]


def think_format(completions, **kwargs):
    """The shape of trl.rewards.think_format_reward: chats in."""
    return [1.0 if c[0]["content"].startswith("a") else 0.0 for c in completions]


def solution(prompts, completions, target, level, bonus=1.0, **kwargs):
    return [bonus * (c == t) + n for c, t, n in zip(completions, target, level)]


def narrow(completions, target):
    return [float(len(c) - len(t)) for c, t in zip(completions, target)]


def of_tokens(completions, completion_ids, **kwargs):
    return [float(len(ids)) for ids in completion_ids]
'''


@pytest.fixture
def function(tmp_path):
    """A function: a reward of a function in TRL's signature."""
    file = tmp_path / "mine.py"
    file.write_text(FUNCTIONS)

    def make(name, **options):
        return make_reward({"type": "python", "file": str(file), "function": name, **options})

    return make


def test_any_function_of_trl_s_kind_is_a_reward(function):
    rows = [{"level": 1, "other": "x"}, {"level": 2}]
    batch = [Sample("p", "a b", "a b", rows[0]), Sample("q", "c", "d", rows[1])]
    assert function("length").evaluate(batch).score == [3, 1]
    assert function("solution", options={"bonus": 5}).evaluate(batch).score == [6, 2]
    assert function("narrow").evaluate(batch).score == [0, 0]
    assert function("think_format", chat=True).evaluate(batch).score == [1, 0]


def test_it_works_in_both_libraries_alike(function):
    columns = {"target": TARGETS, "level": [1, 2, 3]}
    for name, chats in (("length", False), ("solution", False), ("think_format", True)):
        module: dict = {}
        exec(FUNCTIONS, module)
        direct = as_trl_calls(module[name], chats=chats, **columns)
        assert as_trl_calls(function(name, chat=chats), chats=chats, **columns) == direct


def test_what_a_function_wants_and_nobody_has_is_said(function):
    with pytest.raises(RewardError, match=r"of_tokens in .*mine.py takes completion_ids, which ne"):
        function("of_tokens").evaluate([Sample("p", "r")])
    with pytest.raises(UserError, match=r"^reward \(python\): solution in .* takes level, which"):
        function("solution").evaluate([Sample("p", "r")])


def test_a_reward_of_trl_s_library_is_two_lines(tmp_path):
    file = tmp_path / "theirs.py"
    file.write_text(
        "def score(completions, **columns):\n"
        "    from trl.rewards import think_format_reward\n"
        "    return think_format_reward(completions, **columns)\n"
    )
    reward = make_reward({"type": "python", "file": str(file), "chat": True})
    assert reward(["<think>\nyes\n</think>\nno", "no"]) == [1.0, 0.0]
    assert "trl" in sys.modules
