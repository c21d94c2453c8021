"""Text metrics, summaries and statistics: hand-worked numbers, the libraries, properties."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mht.core.errors import DataError, ModelError
from mht.data.text.sample import Sample
from mht.evaluation.metrics import METRICS, describe
from mht.evaluation.statistics import bootstrap, holm, paired_difference, perplexity
from mht.evaluation.summary import Evaluated, Units, read_samples, summarise, units, write_samples
from mht.evaluation.text_metrics import bertscore, normalise, text_metrics
from mht.evaluation.variety import distinct

TEXTS = [
    (" a fine film, and the cast shines", " a great film and the cast is fine"),
    (" the cat sat on the mat", " the cat sat on the mat"),
    (" nothing in common", " elephants dream loudly"),
    ("", " the best"),
]
SAMPLES = [Sample("The movie is", response, target) for response, target in TEXTS]


def test_bleu_is_sacrebleu() -> None:
    import sacrebleu

    expected = [sacrebleu.sentence_bleu(r, [t]).score / 100 for r, t in TEXTS]
    assert text_metrics(SAMPLES)["bleu"] == pytest.approx(expected)
    assert expected[1] == pytest.approx(1) and expected[3] == 0


def test_rouge_is_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    kinds = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    scorer = RougeScorer(list(kinds.values()), use_stemmer=True)
    found = text_metrics(SAMPLES)
    for name, kind in kinds.items():
        assert found[name] == [scorer.score(t, r)[kind].fmeasure for r, t in TEXTS]


def test_rouge_by_hand() -> None:
    found = text_metrics([Sample("", "the cat ran", "the cat sat down")])
    assert found["rouge_1"] == [pytest.approx(2 * 2 / (3 + 4))]
    assert found["rouge_2"] == [pytest.approx(2 * 1 / (2 + 3))]
    assert found["rouge_l"] == [pytest.approx(2 * 2 / (3 + 4))]


@pytest.mark.parametrize(
    ("response", "target", "f1", "exact"),
    [
        ("The cat!", " a cat", 1.0, 1.0),  # articles, case and punctuation do not count
        ("cat dog dog", "dog bird", 2 * 1 / (3 + 2), 0.0),  # dog is shared once
        ("cat", "dog", 0.0, 0.0),
        ("the", "an", 1.0, 1.0),  # nothing is left of either
        ("", "dog", 0.0, 0.0),
    ],
)
def test_f1_and_exact_match_by_hand(response: str, target: str, f1: float, exact: float) -> None:
    found = text_metrics([Sample("", response, target)])
    assert found["token_f1"] == [pytest.approx(f1)]
    assert found["exact_match"] == [exact]


def test_vader_sees_the_prompt_only_where_it_should() -> None:
    found = text_metrics([Sample("A wonderful film,", " the end")])
    assert found["vader"][0] > 0.5 and found["vader_response"] == [0.0]
    assert found["response_words"] == [2.0]


def test_metrics_without_a_target_are_left_out() -> None:
    assert sorted(text_metrics([Sample("a", " b")])) == [
        "response_words",
        "vader",
        "vader_response",
    ]
    mixed = text_metrics([Sample("a", " b"), Sample("a", " b", " b")])
    assert math.isnan(mixed["bleu"][0]) and mixed["exact_match"][1] == 1.0
    assert summarise(mixed, [Sample("a", " b")] * 2)["exact_match"]["mean"] == 1.0


def test_every_metric_is_in_its_range_and_described() -> None:
    found = text_metrics(SAMPLES)
    for name, values in found.items():
        metric = METRICS[name]
        assert len(values) == len(SAMPLES)
        low, high = metric.low or -math.inf if metric.low != 0 else 0, metric.high or math.inf
        assert all(low <= value <= high for value in values), name
    assert all(metric.meaning and metric.label for metric in METRICS.values())
    assert describe("reward/length.post").direction == "higher"
    assert normalise("A  dog's the BEST.") == "dogs best"


def test_distinct_by_hand() -> None:
    assert distinct(["a b a", "B c"], 1) == [3 / 5]  # a b a b c, case does not count
    assert distinct(["a b a b", "a b"], 2) == [2 / 4]  # ab ba ab | ab: none across responses
    assert distinct(["", "a"], 2) == [0.0]
    assert distinct(["a", "a", "b", "c", "d"], 1, group=2) == [0.5, 1.0]  # the fifth is dropped
    assert distinct(["a"] * 16, 1) == distinct(["a"] * 32, 1)[:1] == [1 / 16]


def test_repetition_is_a_metric_of_the_responses() -> None:
    samples = [Sample("p", "a b c d a b c d"), Sample("p", "a b")]
    assert units({}, samples)["repetition"] == Units([[pytest.approx(1 / 5), 0.0]], "mean")
    assert summarise({}, samples, resamples=20)["repetition"]["mean"] == 0.1


def test_bootstrap_covers_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    draws = rng.exponential(1.0, (200, 60))  # skewed, true mean 1
    hits = [low <= 1 <= high for _, low, high in (bootstrap(d, resamples=300) for d in draws)]
    assert 0.89 <= np.mean(hits) <= 0.99


def test_bootstrap_is_scipys_bca() -> None:
    from scipy import stats

    values = np.random.default_rng(1).gamma(2, size=50)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=500, method="BCa", rng=np.random.default_rng(7)
    ).confidence_interval
    found = bootstrap(values, resamples=500, seed=7)
    assert found == pytest.approx((values.mean(), expected.low, expected.high))
    assert found == bootstrap(values, resamples=500, seed=7)
    assert found != bootstrap(values, resamples=500, seed=8)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12))
def test_bootstrap_stays_within_the_values(values: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, low, high = bootstrap(values, resamples=100)
    assert mean == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


@pytest.mark.parametrize("values", [[2.0], [2.0, 2.0, 2.0]])
def test_degenerate_values_give_a_point(values: list[float]) -> None:
    assert bootstrap(values) == (2.0, 2.0, 2.0)
    assert paired_difference(values, values) == (0.0, 0.0, 0.0, 1.0)


def test_perplexity_weighs_tokens() -> None:
    nll, tokens = [math.log(2) * 3, math.log(8) * 1], [3, 1]  # 3 tokens at 2, one at 8
    assert perplexity(np.array(nll), np.array(tokens)) == pytest.approx(2 ** (6 / 4))
    mean, low, high = bootstrap(nll, tokens, statistic="perplexity")
    assert mean == pytest.approx(2**1.5) and 2 - 1e-9 <= low < mean < high <= 8 + 1e-9


def test_impossible_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one unit"):
        bootstrap([])
    with pytest.raises(ValueError, match="differ in length"):
        bootstrap([1.0, 2.0], [1.0], statistic="perplexity")
    with pytest.raises(ValueError, match="pairs must match"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="the mean of the values is nan"):
        bootstrap([1.0, math.nan])


def test_paired_difference_sees_what_noise_hides() -> None:
    rng = np.random.default_rng(0)
    b = rng.normal(0, 5, 80)
    a = b + 0.5 + rng.normal(0, 0.5, 80)
    found = paired_difference(a, b, resamples=500)
    assert found.difference == pytest.approx(np.mean(a - b))
    assert 0 < found.low < found.difference < found.high
    assert found.p < 0.01
    back = paired_difference(b, a, resamples=500)
    assert back.difference == -found.difference and back.high < 0
    shuffled = paired_difference(rng.permutation(a), b, resamples=500)
    assert shuffled.p > 0.05 and shuffled.low < 0 < shuffled.high


def test_p_value_of_four_equal_signs_is_exact() -> None:
    found = paired_difference([2.0, 3.0, 5.0, 7.0], [1.0, 1.0, 1.0, 1.0])
    assert found.p == pytest.approx(2 / 2**4)  # only all plus and all minus are as extreme


def test_p_values_are_uniform_without_a_difference() -> None:
    rng = np.random.default_rng(3)
    pairs = rng.normal(0, 1, (150, 2, 20))
    p = np.array([paired_difference(a, b, resamples=200).p for a, b in pairs])
    assert np.mean(p < 0.1) < 0.17 and 0.4 < p.mean() < 0.6


def test_paired_perplexity() -> None:
    tokens = np.array([5.0, 8.0, 13.0, 6.0, 9.0, 10.0, 11.0, 7.0])
    a, b = tokens * np.log(20), tokens * np.log(30)
    found = paired_difference([a, tokens], [b, tokens], statistic="perplexity")
    assert found.difference == pytest.approx(-10) and found.high < 0
    assert found.p == pytest.approx(2 / 2**8)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_summarise_means_groups_and_ratios() -> None:
    samples = [Sample("p", " good good film", "")] * 32
    per_sample = {
        "p_positive": [0.25, 0.75] * 16,
        "nll_human": [math.log(4) * 2] * 32,
        "tokens_human": [2.0] * 32,
        "nll_generated": [1.0 / 3] * 32,
        "tokens_generated": [1.0] * 32,
    }
    found = summarise(per_sample, samples, resamples=200, seed=0)
    assert list(found) == sorted(found)
    assert {"perplexity_human", "perplexity_generated", "distinct_1"} < set(found)
    assert not set(found) & {"nll_human", "tokens_human"}
    assert found["perplexity_human"] == {"mean": 4.0, "low": 4.0, "high": 4.0}
    assert found["perplexity_generated"]["mean"] == 1.39561  # exp(1/3), 6 digits
    assert found["distinct_1"]["mean"] == round(2 / 48, 7)
    assert found["p_positive"]["mean"] == 0.5 and found["p_positive"]["low"] < 0.5
    assert found == summarise(per_sample, samples, resamples=200, seed=0)
    json.dumps(found, allow_nan=False)


def test_a_prompt_has_the_mean_of_its_responses() -> None:
    texts = ["a b", "a c", "d d d d d", "e"]  # two rounds over two prompts
    samples = [Sample("p", text, "t") for text in texts]
    per_sample = {
        "vader": [0.0, 0.5, 1.0, -0.5],
        "bleu": [math.nan, 0.25, math.nan, 0.75],
        "nll_generated": [1.0, 2.0, 3.0, 6.0],
        "tokens_generated": [2.0, 2.0, 4.0, 2.0],
    }
    found = units(per_sample, samples, rounds=2)
    assert found["vader"].columns == [[0.5, 0.0]]
    assert math.isnan(found["bleu"].columns[0][0]) and found["bleu"].columns[0][1] == 0.5
    assert found["perplexity_generated"].columns == [[2.0, 4.0], [3.0, 2.0]]
    assert found["repetition"].columns == [[0.25, 0.0]]  # one run of four words of two is a repeat
    assert found["distinct_1"].columns == [[pytest.approx((3 / 4 + 2 / 6) / 2)]]  # within a round
    whole = summarise(per_sample, samples, rounds=2, resamples=50)
    assert whole["perplexity_generated"]["mean"] == pytest.approx(math.exp(12 / 10), rel=1e-5)
    with pytest.raises(ValueError, match="3 samples are not 2 whole rounds"):
        units({}, samples[:3], rounds=2)


def test_more_responses_to_a_prompt_take_out_what_chance_the_draws_had() -> None:
    rng, prompts, rounds = np.random.default_rng(0), 100, 16
    of_prompts, draws = rng.normal(0, 0.1, prompts), rng.normal(0, 1, (rounds, prompts))
    samples = [Sample("p", " r")] * (prompts * rounds)
    values = (of_prompts + draws).ravel().tolist()
    widths = []
    for size in (1, rounds):
        found = summarise(
            {"vader": values[: prompts * size]}, samples[: prompts * size], rounds=size
        )["vader"]
        widths.append(found["high"] - found["low"])
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.2), "1 / sqrt(16) of it"


@pytest.mark.parametrize(
    ("ids", "rounds"),
    [(["a"], 1), (["a", "b", "c"], 1), (["a", "b"] * 3, 3), (["a", "a"], 2), (["a", "b", "a"], 1)],
)
def test_rounds_are_known_by_the_ids(ids: list[str], rounds: int) -> None:
    found = Evaluated(ids, [Sample("p", " r")] * len(ids), {})
    assert (found.rounds, found.prompts) == (rounds, len(ids) // rounds)


def test_perplexity_of_nothing_generated_is_left_out() -> None:
    per_sample = {"nll_generated": [0.0, 0.0], "tokens_generated": [0.0, 0.0]}
    assert "perplexity_generated" not in summarise(per_sample, [Sample("p", "")] * 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "kl_nats: 1 values for 2 samples"),
        ([1.0, math.nan], "kl_nats: nan"),
        ([1.0, math.inf], "kl_nats: inf"),
    ],
)
def test_numbers_that_are_not_finite_stop(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarise({"kl_nats": values}, [Sample("p", " r")] * 2)


def test_samples_come_back_as_written(tmp_path: Path) -> None:
    samples = [Sample("p|é", " r\n\u2028<b>", ""), Sample('q"', "", " t")]
    path = tmp_path / "deep/samples.jsonl"
    write_samples(path, ["a", "b"], samples, {"vader": [0.1234567, -1.0], "bleu": [math.nan, 0.5]})
    found = read_samples(path)
    assert found.ids == ["a", "b"] and found.samples == samples
    assert found.per_sample["vader"] == [0.123457, -1.0]
    assert math.isnan(found.per_sample["bleu"][0]) and found.per_sample["bleu"][1] == 0.5
    first = path.read_bytes()
    write_samples(path, found.ids, found.samples, found.per_sample)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff\n", "byte 0 is not UTF-8"),
        (b"[]\n", ":1: lacks id, prompt"),
        (b'{"id":"a","prompt":"","target":"","response":"","x":"1"}\n', ":1: x has the wrong type"),
    ],
)
def test_broken_samples_say_where(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_samples(path)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny random BERT."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = sorted({w for pair in TEXTS for text in pair for w in text.replace(",", " ").split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer = BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=32)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_bertscore_is_the_librarys(encoder: str) -> None:
    from bert_score import BERTScorer

    scorer = BERTScorer(model_type=encoder, num_layers=2, device="cpu", use_fast_tokenizer=True)
    filled = [(r, t) for r, t in TEXTS if r]
    _, _, f1 = scorer.score(*map(list, zip(*filled, strict=True)))
    found = bertscore(encoder, 2)(SAMPLES)
    assert found[:3] == pytest.approx(f1.tolist(), abs=1e-5)
    assert found[1] == pytest.approx(1.0, abs=1e-5)
    assert found[3] == 0.0  # blank, which the library cannot tokenise
    assert bertscore(encoder, 2, batch_size=1)(SAMPLES) == pytest.approx(found, abs=1e-5)
    assert text_metrics(SAMPLES, bertscore_model=encoder, bertscore_layer=2)["bertscore"] == found


def test_bertscore_cuts_texts_that_are_too_long(encoder: str) -> None:
    (value,) = bertscore(encoder, 2)([Sample("", " cat" * 100, " cat")])
    assert 0 < value <= 1.00001


def test_bertscore_refuses_what_is_no_encoder(encoder: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"bertscore_layer: .*num_layers .* between 0 and 3"):
        bertscore(encoder, 4)(SAMPLES)
    with pytest.raises(ModelError, match="is no encoder"):
        bertscore(str(tmp_path), 2)(SAMPLES)
