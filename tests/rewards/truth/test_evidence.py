"""Rewards of truth by evidence, on tiny random checkpoints, against the libraries directly."""

import json
import shutil
from functools import lru_cache

import pytest
import torch

from mht.core.errors import ConfigError, DataError, ModelError
from mht.data.text.sample import Sample
from mht.data.text.sentences import sentences
from mht.rewards import make_reward
from mht.rewards.text.corpus import passages, pieces
from tests.support.classifiers import direct, save_bert

FACTS = [
    "the film is good",
    "the plot is bad and dull",
    "a great cast",
    "the story was not good",
    "very dull so is the movie",
]
ODD = ["", " \n", "\ud800 film", "a\x00\x07 film", "漢字です。良い映画。", "!?", "Film. " * 17_000]


@pytest.fixture(scope="module")
def nli(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("nli"), ("CONTRADICTION", "ENTAILMENT", "neutral"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("encoder"), kind="BertModel")


@pytest.fixture(scope="module")
def spec(nli, encoder):
    """``spec("truth_rag", corpus=...)``: a specification with the two tiny models."""
    return lambda kind, **options: {
        "type": kind, "nli_model": nli, "embedder": encoder, **options
    }  # fmt: skip


@lru_cache
def loaded(folder, kind):
    import sentence_transformers
    import transformers

    if kind == "SentenceTransformer":
        return sentence_transformers.SentenceTransformer(folder, device="cpu")
    return getattr(transformers, kind).from_pretrained(folder)


def shares(folder, premise, hypothesis):
    """(p_e, p_n, p_c), without any of our code."""
    tokenizer = loaded(folder, "AutoTokenizer")
    model = loaded(folder, "AutoModelForSequenceClassification").eval()
    with torch.no_grad():
        logits = model(**tokenizer(premise, hypothesis, return_tensors="pt")).logits[0]
    c, e, n = logits.softmax(-1).tolist()
    return e, n, c


def cosines(folder, text, others):
    rows = torch.tensor(loaded(folder, "SentenceTransformer").encode([text, *others]))
    return torch.cosine_similarity(rows[:1], rows[1:]).tolist()


# -- sentences and corpora ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("He left. She stayed! Why?", ["He left.", "She stayed!", "Why?"]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("Pi is 3.14 e.g. here. It is.", ["Pi is 3.14 e.g. here.", "It is."]),
        ("Dr. J. Doe of Foo Inc. came", ["Dr. J. Doe of Foo Inc. came"]),
        ("So do I. He said no. Well", ["So do I.", "He said no.", "Well"]),
        ("one line\nanother\n\n- third", ["one line", "another", "- third"]),
        ("他来了。\u300c真的\uff1f\u300d是", ["他来了。", "\u300c真的\uff1f\u300d", "是"]),
        ("Wait... what? ... !", ["Wait... what?"]),
        ("", []),
    ],
)
def test_sentences(text, found):
    assert sentences(text) == found


def test_long_texts_are_cut_between_sentences_and_long_sentences_between_words():
    assert pieces("One two. Three four five. Six.", 4) == ["One two.", "Three four five. Six."]
    assert pieces("a b c d e f g.", 3) == ["a b c", "d e f", "g."]
    long = " ".join(f"w{i}" for i in range(1000))
    assert " ".join(pieces(long, 100)) == long and len(pieces(long, 100)) == 10
    assert all(len(piece) <= 16 for piece in pieces("漢" * 100, 8))
    assert len(pieces("x" * 100_000, 100)) == 42  # words have no more than 24 characters


@pytest.fixture
def folder(tmp_path):
    import pyarrow
    import pyarrow.parquet

    place = tmp_path / "facts"
    (place / "deep").mkdir(parents=True)
    (place / "a.txt").write_text("\ufeffOne fact\nof two lines.\n\n\nAnother fact.\n", "utf-8")
    (place / "b.jsonl").write_text('{"text": "From json."}\n\n{"text": "More of it."}\n')
    pyarrow.parquet.write_table(pyarrow.table({"text": ["From parquet."]}), place / "c.parquet")
    (place / "deep" / "d.md").write_text("Deep.")
    (place / "picture.png").write_bytes(b"\xff\xd8")
    return place


def test_a_folder_is_read_whole_and_every_passage_knows_its_place(folder):
    found = [(p.text, p.place.removeprefix(f"{folder}/")) for p in passages(str(folder))]
    assert found == [
        ("One fact of two lines.", "a.txt:1"),
        ("Another fact.", "a.txt:5"),
        ("From json.", "b.jsonl:1"),
        ("More of it.", "b.jsonl:3"),
        ("From parquet.", "c.parquet: row 1"),
        ("Deep.", "deep/d.md:1"),
    ]
    file = str(folder / "a.txt")
    assert [p.text for p in passages(file, "line")] == [
        "One fact",
        "of two lines.",
        "Another fact.",
    ]
    assert len(list(passages(file, "file"))) == 1
    assert [p.place for p in passages(["x", "y"])] == ["text 1", "text 2"]


@pytest.mark.parametrize(
    ("corpus", "options", "says"),
    [
        ("nowhere", {}, "no such file or folder"),
        ("facts/a.tx", {}, "(did you mean 'a.txt'?)"),
        ("facts/picture.png", {}, "should be a .txt, .md, .jsonl, .parquet file"),
        ("facts/b.jsonl", {"column": "txt"}, "no column 'txt' (did you mean 'text'?)"),
        ("facts/c.parquet", {"column": "body"}, "no column 'body'. There are: text"),
        ("blank.txt", {}, "is empty: put texts into it"),
        ("empty", {}, "holds no .txt, .md, .jsonl, .parquet file"),
        ("latin.txt", {}, "latin.txt:1: is not UTF-8"),
        ("broken.jsonl", {}, "broken.jsonl:1: not JSON"),
        ("number.jsonl", {}, "number.jsonl:1: column 'text' should be a string, got 3"),
        ("not.parquet", {}, "not a Parquet file"),
        ([], {}, "the list is empty"),
        (["", " "], {}, "the list is empty"),
        (3, {}, "should be a valid"),
    ],
)
def test_a_corpus_that_can_not_be_read_is_refused_before_any_model_loads(
    folder, monkeypatch, corpus, options, says
):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "blank.txt").write_text(" \n\n")
    (folder.parent / "empty").mkdir()
    (folder.parent / "latin.txt").write_bytes("é".encode("latin-1"))
    (folder.parent / "broken.jsonl").write_text("{")
    (folder.parent / "number.jsonl").write_text('{"text": 3}')
    (folder.parent / "not.parquet").write_text("x")
    parts = {"facts": {"type": "truth_rag", "corpus": corpus, **options}}
    with pytest.raises(ConfigError) as caught:
        make_reward({"type": "min", "components": parts}, "ppo.reward")
    (problem,) = caught.value.problems
    assert problem.startswith("ppo.reward.components.facts.corpus: ") and says in problem


def test_what_the_corpus_needs_is_said():
    with pytest.raises(ConfigError, match="reward.corpus: is required and missing"):
        make_reward({"type": "truth_rag"})
    with pytest.raises(ConfigError, match="there is no evidence: give a corpus, or set premise"):
        make_reward({"type": "factual_accuracy", "premise": "none"})
    with pytest.raises(ConfigError, match=r"reward.unit: should be 'line', 'paragraph' or 'file'"):
        make_reward({"type": "truth_rag", "corpus": "nowhere", "unit": "word"})


# -- truth_rag ----------------------------------------------------------------------------------


@pytest.mark.parametrize("agg", ["max", "mean"])
@pytest.mark.parametrize("aggregation", ["p_e_minus_p_c", "p_e", "p_e_plus_half_neutral"])
def test_truth_rag_by_hand(spec, nli, encoder, agg, aggregation):
    """The two nearest facts and the target, each against the response."""
    options = {"corpus": FACTS, "top_k": 2, "agg": agg, "aggregation": aggregation}
    reward = make_reward(spec("truth_rag", **options))
    response, target = "the movie is not great", "a dull story"
    near = cosines(encoder, response, FACTS)
    first, second = sorted(range(len(FACTS)), key=lambda i: -near[i])[:2]
    found = [shares(nli, premise, response) for premise in (target, FACTS[first], FACTS[second])]
    forms = {
        "p_e": lambda e, n, c: e,
        "p_e_minus_p_c": lambda e, n, c: (e - c + 1) / 2,
        "p_e_plus_half_neutral": lambda e, n, c: e + n / 2,
    }
    values = [forms[aggregation](*each) for each in found]
    expected = max(values) if agg == "max" else sum(values) / 3
    assert reward(response, target) == pytest.approx(expected, abs=1e-5)

    (verdict,) = reward.explain([Sample("", response, target)])
    assert verdict.score == reward(response, target) and verdict.claim == response
    assert [e.text for e in verdict.evidence] == [target, FACTS[first], FACTS[second]]
    assert [e.place for e in verdict.evidence] == [
        "target",
        f"text {first + 1}",
        f"text {second + 1}",
    ]
    assert verdict.evidence[0].similarity is None
    retrieved = [e.similarity for e in verdict.evidence[1:]]
    assert retrieved == pytest.approx([near[first], near[second]], abs=1e-5)
    for evidence, each in zip(verdict.evidence, found, strict=True):
        assert (evidence.p_e, evidence.p_n, evidence.p_c) == pytest.approx(each, abs=1e-5)
    decided = [e.decided for e in verdict.evidence]
    assert decided == ([v == max(values) for v in values] if agg == "max" else [True] * 3)


def test_the_batch_does_not_matter_and_empty_responses_claim_nothing(spec):
    reward = make_reward(spec("truth_rag", corpus=FACTS, batch_size=2))
    responses = ["good film", "", "the plot is dull", " ", "great"]
    together = reward(responses, "a cast")
    assert together == pytest.approx([reward(r, "a cast") for r in responses], abs=1e-5)
    assert together[1] == together[3] == 0.5 and len(set(together)) == 4
    assert reward.explain([Sample("", "")])[0].score is None


def test_target_and_query_are_options(spec):
    sample = Sample("the plot", " is dull", "a good story")
    for options, texts in (
        ({"with_target": False}, (" is dull", "", "")),
        ({"query": "full"}, (" is dull", "a good story", "the plot")),
    ):
        reward = make_reward(spec("truth_rag", corpus=FACTS, top_k=1, **options))
        assert reward.reads(sample) == texts
        (verdict,) = reward.explain([sample])
        assert len(verdict.evidence) == 1 + options.get("with_target", True)
    by_prompt = verdict.evidence[-1]
    (alone,) = make_reward(spec("truth_rag", corpus=FACTS, top_k=5)).explain(
        [Sample("", sample.full)]
    )
    assert by_prompt.text == alone.evidence[0].text
    assert by_prompt.similarity == pytest.approx(alone.evidence[0].similarity, abs=1e-5)


def test_more_passages_are_asked_for_than_there_are_and_equal_ones_count_once(spec):
    reward = make_reward(spec("truth_rag", corpus=[*FACTS[:2], FACTS[0]], top_k=9))
    (verdict,) = reward.explain([Sample("", "good")])
    assert sorted(e.text for e in verdict.evidence) == sorted(FACTS[:2])


def count_encodings(monkeypatch):
    from sentence_transformers import SentenceTransformer

    seen, encode = [], SentenceTransformer.encode
    monkeypatch.setattr(
        SentenceTransformer,
        "encode",
        lambda self, texts, **x: seen.append(list(texts)) or encode(self, texts, **x),
    )
    return seen


def test_a_corpus_is_embedded_once(spec, monkeypatch):
    facts = [*FACTS, "a story"]
    seen = count_encodings(monkeypatch)
    one, two = (make_reward(spec("truth_rag", corpus=facts, top_k=k)) for k in (1, 2))
    for reward in (one, two, one):
        reward(["good", "bad"])
    assert [sorted(texts) for texts in seen] == [sorted(facts), *[["bad", "good"]] * 3]


def test_embeddings_are_kept_on_the_disk_by_content(spec, encoder, tmp_path, monkeypatch):
    from mht.rewards.truth import retrieval

    options = {"corpus": [*FACTS, "plot"], "embeddings": str(tmp_path / "kept")}
    first = make_reward(spec("truth_rag", **options))("good film")
    (file,) = (tmp_path / "kept").iterdir()
    retrieval._embedded.cache_clear()  # as in another process
    seen = count_encodings(monkeypatch)
    assert make_reward(spec("truth_rag", **options))("good film") == first
    assert seen == [["good film"]]
    make_reward(spec("truth_rag", **{**options, "corpus": [*FACTS, "cast"]}))("good film")
    assert len(list((tmp_path / "kept").iterdir())) == 2, "another corpus"
    other = tmp_path / "other"
    shutil.copytree(encoder, other)
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    make_reward({**spec("truth_rag", **options), "embedder": str(other)})("good film")
    assert len(list((tmp_path / "kept").iterdir())) == 3, "another model"
    retrieval._embedded.cache_clear()
    file.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"is damaged .*: delete it"):
        make_reward(spec("truth_rag", **options))("good film")


def test_a_corpus_that_breaks_further_down_stops_whatever_on_error_says(spec, tmp_path):
    (tmp_path / "facts.jsonl").write_text('{"text": "One."}\n{"txt": "Two."}\n')
    options = {"corpus": str(tmp_path / "facts.jsonl"), "on_error": 0.0}
    with pytest.raises(ModelError, match=r"reward \(truth_rag\): corpus: .*facts.jsonl:2: no colu"):
        make_reward(spec("truth_rag", **options))(["a", "b"])


def test_what_decides_a_score_is_named(spec, folder, nli, encoder):
    reward = make_reward(spec("truth_rag", corpus=str(folder)))
    places = ("a.txt", "b.jsonl", "c.parquet", "deep/d.md")
    assert reward.models() == (nli, encoder, *(str(folder / place) for place in places))
    assert make_reward(spec("truth_rag", corpus=FACTS)).models() == (nli, encoder)
    assert make_reward(spec("factual_accuracy")).models() == (nli,)


# -- factual_accuracy ---------------------------------------------------------------------------

SAID = ["The film is good.", "The cast was great!", "So dull?"]


@pytest.mark.parametrize("top_k", [None, 2])
def test_factual_accuracy_by_hand(spec, nli, encoder, top_k):
    target = "The story was very good. A dull plot."
    support = []
    for sentence in SAID:
        evidence = ["The story was very good.", "A dull plot."]
        if top_k:
            near = cosines(encoder, sentence, FACTS)
            evidence += [FACTS[i] for i in sorted(range(5), key=lambda i: -near[i])[:top_k]]
        support.append(max(shares(nli, e, sentence)[0] for e in evidence))
    options = {"corpus": FACTS, "top_k": top_k} if top_k else {}
    mean = make_reward(spec("factual_accuracy", threshold=None, **options))
    assert mean(" ".join(SAID), target) == pytest.approx(sum(support) / 3, abs=1e-5)
    between = sum(sorted(support)[1:]) / 2
    share = make_reward(spec("factual_accuracy", threshold=between, **options))
    assert share(" ".join(SAID), target) == pytest.approx(1 / 3)
    (verdicts,) = share.explain([Sample("", " ".join(SAID), target)])
    assert [v.claim for v in verdicts] == SAID
    assert [v.score for v in verdicts] == pytest.approx(support, abs=1e-5)


def test_factual_accuracy_without_claims_or_evidence_is_one_half(spec):
    reward = make_reward(spec("factual_accuracy"))
    assert reward(["", "?!", "good"], ["a film", "a film", ""]) == [0.5, 0.5, 0.5]
    with pytest.warns(UserWarning, match="no corpus, and no sample of this batch has a target"):
        reward("good")
    by_prompt = make_reward(spec("factual_accuracy", premise="prompt", threshold=None))
    assert by_prompt("great", prompt="a film") == make_reward(
        spec("factual_accuracy", threshold=None)
    )("great", "a film")
    only = make_reward(spec("factual_accuracy", corpus=FACTS, premise="none", threshold=None))
    assert only("great", "a film") == only("great", "") != 0.5


def test_only_the_first_sentences_are_looked_at(spec):
    reward = make_reward(spec("factual_accuracy", threshold=None, max_sentences=2))
    few = reward("Good film. Dull plot.", "A cast. A story.")
    assert reward("Good film. Dull plot. Bad.", "A cast. A story. The.") == few


# -- domains ------------------------------------------------------------------------------------

DOMAINS = ["medical_accuracy", "legal_validity", "scientific_integrity"]


@pytest.mark.parametrize("kind", DOMAINS)
def test_a_domain_is_a_classifier_or_a_corpus(spec, tmp_path, kind):
    sample = Sample("the plot", "is dull", "a story")
    by_corpus = make_reward(spec(kind, corpus=FACTS))
    assert by_corpus("is dull", "a story") == make_reward(spec("truth_rag", corpus=FACTS))(
        "is dull", "a story"
    )
    assert by_corpus.explain([sample])[0].evidence[0].place == "target"
    folder = save_bert(tmp_path, ("wrong", "right"))
    by_model = make_reward({"type": kind, "model": folder, "target": "Right"})
    expected = direct(folder, "is dull").softmax(-1)[1].item()
    assert by_model("is dull", "a story") == pytest.approx(expected, abs=1e-6)
    full = make_reward({"type": kind, "model": folder, "target": "right", "text": "full"})
    assert full.reads(sample) == ("the plot\nis dull",) and full.models() == (folder,)
    assert full("is dull", prompt="the plot ") != by_model("is dull")


def test_the_labels_of_a_domains_classifier_may_be_independent(tmp_path):
    folder = save_bert(tmp_path, ("a", "b"), problem_type="multi_label_classification")
    reward = make_reward({"type": "legal_validity", "model": folder, "target": "a"})
    assert reward("good") == pytest.approx(direct(folder, "good").sigmoid()[0].item(), abs=1e-6)
    with pytest.raises(ModelError, match="has no label 'c': set target to one of a, b"):
        make_reward({"type": "legal_validity", "model": folder, "target": "c"})("good")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "reward: give either model .* or corpus .*, got neither"),
        ({"model": "m", "target": "t", "corpus": FACTS}, "reward: give either .*, got both"),
        ({"model": "m"}, "reward.target: is missing: name the label"),
        ({"corpus": FACTS, "target": "t"}, "reward.target: .* a corpus has none: remove it"),
        ({"corpus": "nowhere"}, "reward.corpus: no such file or folder 'nowhere'"),
    ],
)
def test_a_domain_that_is_neither_or_both_is_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        make_reward({"type": "medical_accuracy", **options})


# -- all of them --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [("truth_nli", {}), ("truth_rag", {"corpus": FACTS}), ("factual_accuracy", {})]
)
def test_odd_texts_have_a_score(spec, nli, kind):
    name, options = kind
    made = {"type": name, "model": nli} if name == "truth_nli" else spec(name, **options)
    reward = make_reward(made)
    for scores in (reward(ODD, "a film"), reward("a film", ODD[4]), reward(["a film"] * 7, ODD)):
        assert all(0 <= s <= 1 for s in (scores if isinstance(scores, list) else [scores]))
    low, high = reward.bounds()
    assert (low, high) == (0, 1) and reward.direction() == "high"


def test_state_and_json(spec):
    made = spec("truth_rag", corpus=FACTS)
    reward = make_reward(json.loads(json.dumps(made)))
    assert reward.state_dict() == {}
    assert make_reward(reward.model_dump())("good") == reward("good")
