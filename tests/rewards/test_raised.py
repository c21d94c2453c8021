"""A user's reward function that raises: the line, the error, and the response it failed on."""

import pytest

from mht.core.errors import RewardError
from mht.rewards import make_reward

GOOD, BAD = "one two", "one two three"


def failing(tmp_path, code, responses, **options):
    """The message of a reward whose file has this code."""
    file = tmp_path / "mine.py"
    file.write_text(code)
    reward = make_reward({"type": "python", "file": str(file), **options})
    with pytest.raises(RewardError) as caught:
        reward(responses, [""] * len(responses), prompt=[f"prompt {r}" for r in responses])
    text = str(caught.value)
    assert "Traceback" not in text and len(text.splitlines()) < 15
    return text.replace(str(tmp_path), "rewards")


def test_the_line_and_the_sample_are_shown(tmp_path):
    code = "def score(samples):\n    return [1 / (len(s.response.split()) - 3) for s in samples]\n"
    text = failing(tmp_path, code, [GOOD, BAD, GOOD])
    assert "rewards/mine.py:2, in " in text and "ZeroDivisionError: division by zero" in text
    assert "return [1 / (len(s.response.split()) - 3) for s in samples]" in text
    assert f"on response 2 of 3: {BAD!r}" in text and f"to the prompt: 'prompt {BAD}'" in text


def test_a_deeper_call_shows_the_user_s_own_last_line(tmp_path):
    code = "import json\n\ndef inner(s):\n    return json.loads(s.response)\n\n"
    code += "def score(samples):\n    return [inner(s) for s in samples]\n"
    text = failing(tmp_path, code, ["1.0", "{"])
    assert "rewards/mine.py:4, in inner: JSONDecodeError" in text and "on response 2 of 2" in text


def test_what_only_the_batch_raises_is_said(tmp_path):
    code = "def score(samples):\n    assert len(samples) < 2, 'too many'\n    return [0.0]\n"
    text = failing(tmp_path, code, [GOOD, BAD])
    assert "AssertionError: too many" in text
    assert "on all 2 responses together; on none of them alone" in text


def test_a_function_of_trl_s_kind_is_tried_the_same_way(tmp_path):
    code = "def score(completions, **_):\n    return [float(c) for c in completions]\n"
    text = failing(tmp_path, code, ["1", "x"])
    assert "could not convert string to float" in text and "on response 2 of 2: 'x'" in text


def test_a_file_that_cannot_be_run_is_named_with_its_line(tmp_path):
    code = "import nowhere_to_be_found\n\ndef score(samples):\n    return [0.0]\n"
    text = failing(tmp_path, code, [GOOD])
    assert "rewards/mine.py:1, in <module>: ModuleNotFoundError" in text


def test_a_long_response_is_cut_off(tmp_path):
    code = "def score(samples):\n    raise KeyError('x')\n"
    text = failing(tmp_path, code, ["word " * 1000])
    assert max(map(len, text.splitlines())) < 300 and "..." in text
