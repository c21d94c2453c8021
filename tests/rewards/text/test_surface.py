"""Rewards of the text itself: numbers worked by hand, or from the library called directly."""

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from mht.core.errors import ConfigError
from mht.rewards import make_reward

PAIRS = [
    ("the cat sat on the mat", "the cat is on the mat"),
    ("The Cat", "the cat"),
    ("running dogs", "run dog"),
    ("a perfectly equal sentence here", "a perfectly equal sentence here"),
    ("nothing", "in common"),
    ("", "something"),
]
RESPONSES, TARGETS = [list(side) for side in zip(*PAIRS, strict=True)]


def score(spec, responses=RESPONSES, targets=TARGETS):
    return make_reward(spec)(responses, targets)


def test_exact_match():
    assert score({"type": "exact_match"}) == [0, 0, 0, 1, 0, 0]
    assert score({"type": "exact_match", "lowercase": True}) == [0, 1, 0, 1, 0, 0]
    assert score({"type": "exact_match"}, [" a\n", ""], ["a", "a"]) == [1, 0]
    assert score({"type": "exact_match", "strip": False}, [" a\n", "a"], ["a", "a"]) == [0, 1]


def test_jaccard():
    # the cat sat on mat / the cat is on mat: 4 of 6
    assert score({"type": "jaccard"}) == pytest.approx([4 / 6, 1, 0, 1, 0, 0])
    assert score({"type": "jaccard", "lowercase": False})[1] == 0
    assert score({"type": "jaccard"}, ["", "."], ["", "x"]) == [1, 0]


def test_levenshtein():
    spec = {"type": "levenshtein"}
    assert score(spec, ["kitten", "", "abc"], ["sitting", "", ""]) == pytest.approx([4 / 7, 1, 0])
    assert score(spec, ["AB"], ["ab"]) == [0]
    assert score({**spec, "lowercase": True}, ["AB"], ["ab"]) == [1]


@pytest.mark.parametrize("method", ["exp", "floor", "add-k", "none"])
@pytest.mark.parametrize("options", [{}, {"lowercase": True}, {"tokenize": "char"}])
def test_bleu_is_sacrebleus(method, options):
    direct = [
        sacrebleu.sentence_bleu(a, [b], smooth_method=method, **options).score / 100
        for a, b in PAIRS
    ]
    ours = score({"type": "bleu", "smooth_method": method, **options})
    assert ours == pytest.approx(direct) and max(ours) == 1.0


@pytest.mark.parametrize("alias", ["rouge_l", "rouge-l", "rougel"])
@pytest.mark.parametrize("stem", [True, False])
def test_rouge_l_is_rouge_scores(alias, stem):
    scorer = RougeScorer(["rougeL"], use_stemmer=stem)
    direct = [scorer.score(b, a)["rougeL"].fmeasure for a, b in PAIRS]
    assert score({"type": alias, "use_stemmer": stem}) == pytest.approx(direct)
    assert direct[0] == pytest.approx(10 / 12)  # the cat on the mat: 5 of 6 both ways


def test_rouge_l_may_keep_the_case():
    spec = {"type": "rouge_l", "lowercase": False, "use_stemmer": False}
    assert score(spec, ["The cat"], ["the cat"]) == [0.5]


def test_length_window_is_1_inside_and_falls_in_a_line_to_0():
    texts = ["w " * n for n in (0, 1, 2, 4, 5, 6, 8, 9)]
    expected = [0, 0.5, 1, 1, 0.75, 0.5, 0, 0]
    for alias in ("length_window", "length_consistency"):
        assert make_reward({"type": alias, "min": 2, "max": 4})(texts) == expected
    by_letter = {"type": "length_window", "min": 0, "max": 4, "token": "w"}
    assert make_reward(by_letter)(["www", "wwwww", ""]) == [1, 0.75, 1]
    with pytest.raises(ConfigError, match="min must not be above max, got min=5 max=4"):
        make_reward({"type": "length_window", "min": 5, "max": 4})


def test_keyword_count_counts_whole_words():
    texts = ["Good, good goods!", "a bad film", "c++ is good", ""]
    spec = {"type": "keyword_count", "keywords": ["good", "bad film", "c++"]}
    assert make_reward(spec)(texts) == [2, 1, 2, 0]
    assert make_reward({**spec, "normalize": True})(texts) == pytest.approx(
        [1 / 3, 1 / 3, 2 / 3, 0]
    )
    for wrong in ([], [""], "good"):
        with pytest.raises(ConfigError, match="reward.keywords"):
            make_reward({"type": "keyword_count", "keywords": wrong})


def test_regex_presence():
    spec = {"type": "regex_presence", "pattern": r"^\d+\."}
    assert make_reward(spec)(["1. a", "a 1.", ""]) == [1, 0, 0]
    assert make_reward({"type": "regex_presence", "pattern": "A", "ignore_case": True})("xa") == 1
    with pytest.raises(ConfigError, match="reward.pattern: is no regular expression: missing \\)"):
        make_reward({"type": "regex_presence", "pattern": "("})


def test_the_full_text_is_prompt_and_response():
    spec = {"type": "regex_presence", "pattern": "^one two$"}
    assert make_reward({**spec, "text": "full"})(" two", prompt="one") == 1
    assert make_reward(spec)(" two", prompt="one") == 0
    with pytest.raises(ConfigError, match="reward.text: should be 'response' or 'full', got 'all'"):
        make_reward({**spec, "text": "all"})


def test_pairwise_diversity_by_hand():
    # bigrams: {ab, bc}, {ab, bd}, {xy}; the Jaccard indices are 1/3, 0, 0
    reward = make_reward({"type": "diversity"})
    assert reward(["a b c", "A b d", "x y"]) == pytest.approx([1 - 1 / 6, 1 - 1 / 6, 1])
    assert reward(["same text here"] * 3) == [0, 0, 0]
    assert reward("alone") == 1
    assert reward(["one", "one", ""]) == [0.5, 0.5, 1]


def test_distinct_n_by_hand():
    reward = make_reward({"type": "diversity", "method": "distinct", "ngram": 1})
    assert reward(["a a a b", "a b", ""]) == [0.5, 1, 0]


def test_a_batch_may_come_in_any_order():
    for spec in ({"type": "diversity"}, {"type": "bleu"}, {"type": "jaccard"}):
        forward, backward = score(spec), score(spec, RESPONSES[::-1], TARGETS[::-1])
        assert forward == pytest.approx(backward[::-1])


PLAIN = '''
def score(samples, factor=1.0):
    """Longer is better."""
    return [factor * len(s.response) for s in samples]

def like_trl(prompts, completions, target, level, **columns):
    return [float(len(p + c + t) + k) for p, c, t, k in zip(prompts, completions, target, level)]
'''


def test_a_function_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLAIN)
    spec = {"type": "python", "file": str(file)}
    assert make_reward(spec)(["ab", "abc"]) == [2, 3]
    assert make_reward({**spec, "options": {"factor": 0.5}})(["ab", "abc"]) == [1, 1.5]
    reward = make_reward({**spec, "function": "like_trl"})
    assert reward(["ab", "c"], "t", prompt="p", item=[{"level": 10}, {"level": 20}]) == [14, 23]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"file": "nowhere.py"}, "reward.file: no such file, got 'nowhere.py'"),
        ({"function": "scroe"}, r"defines no function 'scroe' \(did you mean 'score'\?\)"),
    ],
)
def test_a_wrong_file_or_function_is_seen_with_the_configuration(tmp_path, change, says):
    file = tmp_path / "mine.py"
    file.write_text(PLAIN)
    with pytest.raises(ConfigError, match=says):
        make_reward({"type": "python", "file": str(file), **change})


def test_a_file_that_is_no_python_is_refused_unrun(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def score(:\n")
    with pytest.raises(ConfigError, match="reward.file: is no Python file"):
        make_reward({"type": "python", "file": str(file)})
