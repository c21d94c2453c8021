"""entity_consistency and spelling_grammar: by hand, and on tiny classifiers made here.

And what every reward of text does with odd texts.
"""

import math

import pytest
import torch

from mht.core.errors import ConfigError, ModelError
from mht.data.text.sample import Sample
from mht.rewards import make_reward
from mht.rewards.learned.entities import Tagger, pattern_entities, spans
from mht.rewards.models.shared import load
from mht.rewards.text.spelling import dictionary

WORDS = ["ann", "smith", "rome", "saw", "in", "and", "bob", "the", "good", "bad", "."]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TAG_OF = {"ann": "B-PER", "smith": "I-PER", "bob": "B-PER", "rome": "B-LOC"}


def tokenizer(pieces=()):
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS, *pieces])}
    made = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=32,
    )  # fmt: skip


def bert(folder, kind, labels, **config):
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, kind)(
        transformers.BertConfig(
            vocab_size=4 + len(WORDS) + 1, hidden_size=32, num_hidden_layers=1,
            num_attention_heads=2, intermediate_size=32, max_position_embeddings=32,
            initializer_range=0.5, id2label=dict(enumerate(labels)), num_labels=len(labels),
            **config,
        )
    )  # fmt: skip
    return model, folder


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    """A BERT that tags each word as TAG_OF has it: what is before its head passes words through."""
    model, folder = bert(tmp_path_factory.mktemp("tagger"), "BertForTokenClassification", TAGS)
    embeddings = model.bert.embeddings
    with torch.no_grad():
        embeddings.position_embeddings.weight.zero_()
        embeddings.token_type_embeddings.weight.zero_()
        layer = model.bert.encoder.layer[0]
        for part in (layer.attention.output.dense, layer.output.dense):
            part.weight.zero_()
            part.bias.zero_()
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "##y"]
        tags = [TAGS.index(TAG_OF.get(name, "O")) for name in names]
        ids = torch.arange(len(names))[None]
        seen = model.bert(ids).last_hidden_state[0]
        wanted = torch.nn.functional.one_hot(torch.tensor(tags), len(TAGS)).float()
        ones = torch.cat([seen, torch.ones(len(names), 1)], 1).double()
        solved = (torch.linalg.pinv(ones) @ wanted.double()).float()
        model.classifier.weight.copy_(solved[:-1].T)
        model.classifier.bias.copy_(solved[-1])
    model.save_pretrained(folder)
    tokenizer(["##y"]).save_pretrained(folder)
    return str(folder)


def direct(folder, text):
    """The tag of each word by transformers alone."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tok = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        best = model(**tok(text, return_tensors="pt")).logits[0].argmax(-1)[1:-1]
    return [model.config.id2label[i] for i in best.tolist()]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_tagger_finds_the_entities_of_a_batch(tagger, batch_size):
    assert direct(tagger, "Ann Smith saw Rome") == ["B-PER", "I-PER", "O", "B-LOC"]
    texts = ["Ann Smith saw Rome.", "", "saw the good", "Ann Bob and Rome in Rome", " "]
    found = load(tagger, "cpu", "token classifier", Tagger).entities(texts, batch_size)
    assert found == [["Ann Smith", "Rome"], [], [], ["Ann", "Bob", "Rome", "Rome"], []]


def test_spans_by_hand():
    words, offsets = [None, 0, 0, 1, 2, None], [(0, 0), (0, 2), (2, 5), (6, 9), (10, 13), (0, 0)]
    assert spans(["O", "B-PER", "O", "I-PER", "O", "O"], words, offsets) == [(0, 9)]
    assert spans(["O", "I-PER", "O", "B-PER", "I-LOC", "O"], words, offsets) == [
        (0, 5), (6, 9), (10, 13),
    ]  # fmt: skip
    assert spans(["O", "PER", "PER", "PER", "LOC", "O"], words, offsets) == [(0, 9), (10, 13)]
    assert spans(["O", "O", "B-PER", "S-PER", "S-PER", "O"], words, offsets) == [(6, 9), (10, 13)]


def test_entity_consistency_with_a_model(tagger):
    spec = {"type": "entity_consistency", "model": tagger}
    target = "Rome saw Ann Smith."
    responses = ["Ann Smith and Bob in Rome", "ann smith", "Smith Ann", "good", ""]
    precision = make_reward(spec)(responses, target)
    # Smith is I-PER, an entity of its own at the start; "Ann" stands in the target too
    assert precision == pytest.approx([2 / 3, 1, 1, 1, 1])
    assert make_reward({**spec, "nothing": 0.0})(responses, target)[3:] == [0, 0]
    recall = make_reward({**spec, "mode": "recall"})(responses, target)
    assert recall == pytest.approx([1, 1 / 2, 0, 0, 0])
    f1 = make_reward({**spec, "mode": "f1"})(responses, target)
    assert f1 == pytest.approx([2 * (2 / 3) / (2 / 3 + 1), 2 / 3, 0, 0, 0])


@pytest.mark.parametrize(("source", "value"), [("target", 1 / 2), ("prompt", 1 / 2), ("both", 1.0)])
def test_the_source_may_be_prompt_target_or_both(source, value):
    reward = make_reward({"type": "entity_consistency", "method": "pattern", "source": source})
    assert reward("So NASA met Ann", "Did Ann?", prompt="At NASA") == value


def test_pattern_entities_by_hand():
    text = (
        "The Piano by Jane Campion won 3 Oscars in 1994. It cost 1,500.5 dollars. NASA liked it! "
        "Mr. Smith, I think, met Jean-Luc Godard. I'm done."
    )
    assert pattern_entities(text) == [
        "Piano", "Jane Campion", "3", "Oscars", "1994", "1,500.5", "NASA", "Smith",
        "Jean-Luc Godard",
    ]  # fmt: skip
    assert pattern_entities("Åsa met Élodie in 東京 at 10:30") == ["Élodie", "10:30"]
    assert pattern_entities("") == pattern_entities("no names here. None.") == []


def test_entities_match_as_whole_words():
    reward = make_reward({"type": "entity_consistency", "method": "pattern"})
    assert reward("in Rome", "Romeo and Juliet") == 0
    assert reward("in ROME", "rome!") == 1
    assert reward("It is 3", "It is 3.5") == 0
    assert reward("by Jane Campion", "by Campion, Jane") == 0
    assert reward("it is in New York", "a New\nYork story") == 1


def test_a_folder_without_a_tagger_is_refused(tmp_path):
    model, folder = bert(tmp_path, "BertForTokenClassification", ["a", "b"])
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    said = "finds no entities: its labels are a, b, not such as O, B-PER"
    with pytest.raises(ModelError, match=said):
        make_reward({"type": "entity_consistency", "model": str(folder)})("Ann", "Ann")


def test_long_texts_are_cut_for_the_tagger(tagger):
    reward = make_reward({"type": "entity_consistency", "model": tagger, "max_tokens": 4})
    assert reward("saw ann bob bob", "ann") == 1  # special tokens and two words
    assert make_reward({"type": "entity_consistency", "model": tagger})("saw ann bob", "ann") == 0.5


def test_spelling_by_hand():
    reward = make_reward({"type": "spelling_grammar"})
    assert reward("The film is good.") == 1
    assert reward("Teh film iz good") == 2 / 4
    assert reward("Don\u2019t say the film's bad, he'd said 3D and 42") == 1
    assert reward(["", "42", " . "]) == [0, 0, 0]
    more = make_reward({"type": "spelling_grammar", "allowed": ["Zorblax"]})
    assert more("zorblax's film") == 1 and reward("Zorblax's film") == 1 / 2
    french = make_reward({"type": "spelling_grammar", "language": "fr"})
    assert french("Les enfants, été") == french("Les enfants, e\u0301te\u0301") == 1
    assert reward("été") == 0


def test_the_dictionary_is_that_of_the_package():
    from spellchecker import SpellChecker

    assert {"the", "don't"} <= dictionary("en")
    languages = {"ar", "de", "en", "es", "eu", "fa", "fr", "it", "lv", "nl", "pt", "ru"}
    assert languages <= set(SpellChecker.languages())
    with pytest.raises(ConfigError, match="reward.language: should be 'ar', 'de', 'en'"):
        make_reward({"type": "spelling_grammar", "language": "xx"})


@pytest.fixture(scope="module")
def cola(tmp_path_factory):
    """``cola("unacceptable", "acceptable") -> folder``, made once each."""
    made = {}

    def make(*labels):
        if labels not in made:
            model, folder = bert(
                tmp_path_factory.mktemp("cola"), "BertForSequenceClassification", labels
            )
            model.save_pretrained(folder)
            tokenizer(["##y"]).save_pretrained(folder)
            made[labels] = str(folder)
        return made[labels]

    return make


@pytest.mark.parametrize(
    ("labels", "label", "place"),
    [
        (("unacceptable", "acceptable"), None, 1),
        (("Acceptable", "Unacceptable"), None, 0),
        (("LABEL_0", "LABEL_1"), None, 1),
        (("fine", "wrong"), "Fine", 0),
    ],
)
def test_acceptability_is_the_probability_of_its_label(cola, labels, label, place):
    from transformers import AutoModelForSequenceClassification

    folder = cola(*labels)
    spec = {"type": "spelling_grammar", "method": "acceptability", "model": folder, "label": label}
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        inputs = tokenizer(["##y"])("the bad film", return_tensors="pt")
        expected = model(**inputs).logits.softmax(-1)[0, place].item()
    found = make_reward(spec)(["the bad film", "", "the bad film", "..."])
    assert found == pytest.approx([expected, 0, expected, 0], abs=1e-6)
    one, two, together = make_reward(spec)(["the bad.", "good ann", "the bad.\ngood ann"])
    assert together == pytest.approx((one + two) / 2, abs=1e-6) and one != two
    both = make_reward({**spec, "method": "both"})("the bad fillm")
    alone = make_reward(spec)("the bad fillm")
    assert both == pytest.approx((alone + 2 / 3) / 2, abs=1e-6)


def test_an_unclear_label_is_asked_for(cola):
    spec = {"type": "spelling_grammar", "method": "acceptability", "model": cola("fine", "wrong")}
    with pytest.raises(ModelError, match="is not clear: set label to one of fine, wrong"):
        make_reward(spec)("good")
    with pytest.raises(ModelError, match="is not clear: set label to one of fine, wrong"):
        make_reward({**spec, "label": "right"})("good")


ODD = {
    "empty": "",
    "blank": " \n\t \u00a0",
    "long": "word, and so on. " * 6000,
    "long line": "y" * 100_000,
    "brackets": "[" * 100_000,
    "digits": "1" * 9000,
    "marks": "?!" * 9000,
    "scripts": "漢字かな 한국어 العربية עברית ไทย हिन्दी Ελληνικά 👩‍👩‍👧",
    "control": "a\x00b\x07\x1b[0m\u202e\ufeff\u2028c",
    "NUL": "\x00",
    "surrogate": "a\ud800 b \udfff",
    "case": "İSTANBUL ß ŉ ǅ",
}
TYPES = {
    "exact_match": {},
    "jaccard": {},
    "levenshtein": {"lowercase": True},
    "bleu": {"tokenize": "intl"},
    "chrf": {"word_order": 2},
    "rouge_l": {},
    "meteor": {},
    "ter": {"normalized": True, "asian_support": True},
    "numbered list": {"type": "format_accuracy", "format": "numbered_list"},
    "paragraphs": {"type": "format_accuracy", "format": "paragraphs", "max": 3},
    "json": {"type": "format_accuracy", "format": "json", "json_schema": {"type": "object"}},
    "regex": {"type": "format_accuracy", "format": "regex", "pattern": "a.*b"},
    "entities": {"type": "entity_consistency", "mode": "f1", "source": "both"},
    "pattern": {"type": "entity_consistency", "method": "pattern", "mode": "f1"},
    "readability": {},
    "grade window": {"type": "readability", "index": "flesch_reading_ease", "min": 50.0},
    "spelling": {"type": "spelling_grammar"},
    "grammar": {"type": "spelling_grammar", "method": "both"},
    "novelty": {"corpus": "corpus.txt"},
    "copies": {"type": "novelty", "method": "longest_copy", "corpus": "corpus.txt", "ngram": 2},
    "exploration": {},
    "simhash": {"type": "exploration", "method": "simhash"},
    "diversity": {},
}


@pytest.mark.parametrize("name", TYPES)
def test_odd_texts_get_a_score_in_the_range(name, tmp_path, tagger, cola):
    (tmp_path / "corpus.txt").write_text("word, and so on. a b c\n" * 3)
    spec = {"type": name, **TYPES[name]}
    if "corpus" in spec:
        spec["corpus"] = str(tmp_path / "corpus.txt")
    if name == "entities":
        spec["model"] = tagger
    if name == "grammar":
        spec["model"] = cola("unacceptable", "acceptable")
    reward = make_reward(spec)
    batch = [Sample("a b ", text, "a b c") for text in ODD.values()]
    batch += [Sample("", text, text) for text in ODD.values() if len(text) < 50_000]
    batch += [Sample("", "a b c", text) for text in ODD.values() if len(text) < 50_000]
    scores = reward.evaluate(batch).score
    low, high = reward.bounds()
    assert all(low <= value <= high and math.isfinite(value) for value in scores)
