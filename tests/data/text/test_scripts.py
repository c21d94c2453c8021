# ruff: noqa: RUF001
"""Texts of every script: what a word is, what is equal, and what each metric makes of them."""

import re
import time
import unicodedata
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize
from sacrebleu.metrics import BLEU, CHRF

from mht.core.errors import ConfigError
from mht.data.examples.tokenize import cut_row
from mht.data.text.clean import clean, content_key, group_key
from mht.data.text.rouge import RougeTokenizer
from mht.data.text.sample import Sample
from mht.data.text.sentences import sentences
from mht.data.text.words import ScriptWarning, chunks, fold, words
from mht.evaluation.text_metrics import text_metrics
from mht.evaluation.variety import repetition
from mht.rewards import make_reward


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("Well, this is  (quite)\na good film.", "Well, this is  (quite)\na"),
        ("这部电影很好看，我喜欢。", "这部电影很"),
        ("我说：「真好看」，是吗？", "我说：「真好看」，"),
        ("私はコーヒーが好き", "私はコーヒ"),
        ("iPhone很好用，我喜欢它", "iPhone很好用，我"),
        ("फिल्म बहुत अच्छी थी और कहानी भी", "फिल्म बहुत अच्छी थी और"),
        ("กำลังดูหนังอยู่", "กำลังดูห"),
        ("영화가 정말 재미있고 배우들도 좋았어요 추천", "영화가 정말 재미있고 배우들도 좋았어요"),
    ],
)
def test_a_prompt_is_five_words_in_every_script(text, prompt):
    cut = cut_row({"text": text}, 5)
    assert (cut.prompt, cut.prompt + cut.target) == (prompt, text)


@given(st.text(alphabet="ab,.;:!?()\"' -\n\t", max_size=40), st.integers(1, 6))
def test_a_text_with_spaces_is_cut_at_them(text, words):
    head = re.match(rf"(?:\S+\s+){{0,{words - 1}}}\S+", text.strip())
    assert cut_row({"text": text.strip()}, words).prompt == (head[0] if head else "")


# cleaning


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("a&region=1&copy=2", "a&region=1&copy=2"),
        ("&notit; &amp &lt;b&gt; &copy;", "&notit; &amp <b> ©"),
        ("&#8217;&#x1F600;&#128;", "’😀€"),
        ("&#" + "9" * 5000 + ";", "&#" + "9" * 5000 + ";"),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿 and 👨‍👩‍👧 and ❤️ and 1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿 and 👨‍👩‍👧 and ❤️ and 1️⃣"),
        ("hid\U000e0041\U000e0042den", "hidden"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\u0661\u0600\u0662", "\u0661\u0600\u0662"),
        ("שלום\u200f!", "שלום\u200f!"),
        ("hello\u200f!", "hello!"),
        ("\u202eabc\u202c \u2066d\u2069", "abc d"),
        ("ភាសា\u200bខ្មែរ", "ភាសា\u200bខ្មែរ"),
        ("co\u00adop\u200berate", "cooperate"),
        ("page\x0cnext\x85line\u2028end", "page\nnext\nline\nend"),
        ("e\x00\u0301", "é"),
    ],
)
def test_clean_keeps_what_scripts_and_emoji_need(dirty, expected):
    assert clean(dirty) == expected


@given(st.text())
def test_clean_gives_nfc_and_ends(text):
    assert unicodedata.is_normalized("NFC", clean(text.replace("&", "")))


def test_cleaning_and_keys_take_time_in_proportion_to_the_text():
    odd = [" " * 50_000 + "x", "% " * 25_000, "x" + "\u200c" * 50_000, "&" * 50_000, "(" * 50_000]
    start = time.perf_counter()
    for text in odd:
        content_key(clean(text))
        words(text)
    assert time.perf_counter() - start < 5


DIFFERENT = [
    ("return a % b", "return a & b"),
    ("a * b", "a / b"),
    ("C++", "C"),
    ("C#", "C"),
    ("a_b", "ab"),
    ("50%", "50"),
    ("#1", "1"),
    ("mail me@home", "mail me home"),
    ("if (!ready)", "if (ready)"),
    ("a != b", "a = b"),
    ("x > -5", "x > 5"),
    ("x -= 1", "x = 1"),
    ("p -> q", "p > q"),
    ("2*(3+4)", "2*3+4"),
    ("x[1:]", "x[1]"),
    ("5² = 25", "52 = 25"),
    ("2½", "21/2"),
    ("R&B", "RB"),
    ("की", "का"),
    ("🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏴"),
]
ALIKE = [
    ("A film, truly.", "a film  TRULY!"),
    ("don’t", "dont"),
    ("well-known", "well known"),
    ("«good» — fine…", '"good" - fine...'),
    ("这部电影，很好。", "这部电影很好"),
    ("फिल्म अच्छी है।", "फिल्म अच्छी है"),
    ("¿Qué?", "que\u0301"),
    ("Wow! (Great)", "wow great"),
    ("covid-19", "covid 19"),
    ("ＡＢＣ", "abc"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_signs_with_a_meaning_tell_texts_apart(one, other):
    assert content_key(one) != content_key(other)


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_sentence_punctuation_does_not_tell_texts_apart(one, other):
    assert content_key(one) == content_key(other) and group_key(one) == group_key(other)


def test_texts_that_differ_in_a_sign_stay_in_one_split():
    assert group_key("return a % b") == group_key("return a & b")
    cuts = [cut_row({"text": f"return a {sign} b and nothing else"}, 2) for sign in "%&"]
    assert cuts[0].key != cuts[1].key and cuts[0].group == cuts[1].group
    assert cuts[0].key[:8] == cuts[1].key[:8] == cuts[0].group[:8]
    assert cuts[0].key[8:16] != cuts[1].key[8:16]  # nor do they share an id


# words, and what is equal

SCRIPTS = {  # language: a text and another one, and the words of the first
    "English": ("A warm, funny film", "A dull plot", ["a", "warm", "funny", "film"]),
    "German": ("Die Straße ist naß", "Ein guter Film", ["die", "strasse", "ist", "nass"]),
    "Russian": ("Это хороший фильм", "Она читает книгу", ["это", "хороший", "фильм"]),
    "Greek": ("Ωραία ταινία", "Κακό βιβλίο", ["ωραία", "ταινία"]),
    "Hindi": ("फिल्म अच्छी है", "वह किताब पढ़ती", ["फिल्म", "अच्छी", "है"]),
    "Tamil": ("நல்ல படம்", "அவர் வீடு", ["நல்ல", "படம்"]),
    "Arabic": ("فيلم جميل جدا", "كتاب ممل", ["فيلم", "جميل", "جدا"]),
    "Persian": ("می\u200cخواهم ببینم", "کتاب خوب", ["می\u200cخواهم", "ببینم"]),
    "Hebrew": ("סרט טוב", "ספר ישן", ["סרט", "טוב"]),
    "Korean": ("영화가 좋아요", "책을 읽는다", ["영화가", "좋아요"]),
    "Chinese": ("电影好看", "他在读书", ["电", "影", "好", "看"]),
    "Japanese": ("コーヒーを飲む", "寒い朝に", ["コ", "ー", "ヒ", "ー", "を", "飲", "む"]),
    "Thai": ("กำลังดู", "สวย", ["กำ", "ลั", "ง", "ดู"]),
    "Lao": ("ພາສາ", "ຫນັງ", ["ພ", "າ", "ສ", "າ"]),
    "Khmer": ("ខ្មែរ", "ផ្ទះ", None),
    "Burmese": ("မြန်မာ", "ကိုယ်", None),
    "Amharic": ("ጥሩ ፊልም", "መጥፎ መጽሐፍ", ["ጥሩ", "ፊልም"]),
    "emoji": ("😀 👨‍👩‍👧🇩🇪", "🎉", ["😀", "👨‍👩‍👧", "🇩🇪"]),
}
EQUAL_IS_ONE = [
    {"type": "exact_match"},
    {"type": "jaccard"},
    {"type": "levenshtein"},
    {"type": "bleu"},
    {"type": "chrf"},
    {"type": "chrf", "word_order": 2},
    {"type": "rouge_l"},
    {"type": "rouge_l", "use_stemmer": False, "lowercase": False},
    {"type": "ter", "scale": True, "invert": True},
    {"type": "meteor", "gamma": 0.0},
]
OF_WORDS = [s for s in EQUAL_IS_ONE if s["type"] not in ("levenshtein", "chrf", "ter")]


def names(spec):
    return "-".join(str(value) for value in spec.values())


@pytest.mark.parametrize("language", SCRIPTS)
def test_words(language):
    text, _, expected = SCRIPTS[language]
    found = words(fold(text))
    assert found == expected if expected else "".join(found) == text
    assert words(fold(unicodedata.normalize("NFD", text))) == found


@pytest.mark.parametrize("language", SCRIPTS)
@pytest.mark.parametrize("spec", EQUAL_IS_ONE, ids=names)
def test_a_text_is_equal_to_itself_and_to_no_other_text(spec, language):
    text, other, _ = SCRIPTS[language]
    reward = make_reward(spec)
    assert reward(text, text) == 1
    assert reward(unicodedata.normalize("NFD", text), text) == 1
    if spec in OF_WORDS and language != "English":
        assert reward(other, text) == 0


@pytest.mark.parametrize("language", SCRIPTS)
def test_metrics_of_a_text_and_itself(language):
    text, other, _ = SCRIPTS[language]
    decomposed = unicodedata.normalize("NFD", text)
    batch = [Sample("", t, text) for t in (text, decomposed, other)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScriptWarning)
        found = text_metrics(batch)
    for name in ("bleu", "rouge_1", "rouge_l", "token_f1", "exact_match"):
        assert found[name][:2] == [1, 1], name
        assert found[name][2] < 0.5, name
    count = len(words(text))
    assert found["rouge_2"][0] == (count > 1)
    assert found["response_words"][0] in (count, count - 1)  # two emoji that cling together


@pytest.mark.parametrize("language", ["Chinese", "Japanese", "Thai", "Hindi", "Russian"])
def test_a_part_of_a_text_has_a_part_of_its_score(language):
    text, other, _ = SCRIPTS[language]
    joint = "" if " " not in text else " "
    both = f"{text}{joint}{other}"
    for spec in EQUAL_IS_ONE[1:]:
        assert 0 < make_reward(spec)(both, text) < 1, spec


WORD_TEXT = st.text(max_size=30).filter(lambda text: words(fold(text).replace("_", " ")))


def equal_to_itself(text):
    for spec in EQUAL_IS_ONE:
        reward = make_reward(spec)
        assert reward(text, text) == 1, spec
        composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
        assert reward(composed, "a " + text) == reward(decomposed, "a " + text), spec


@settings(derandomize=True, max_examples=60, deadline=None)
@given(WORD_TEXT)
def test_any_text_with_a_word_is_equal_to_itself(text):
    equal_to_itself(text)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(WORD_TEXT)
def test_many_texts_with_a_word_are_equal_to_themselves(text):
    equal_to_itself(text)


ENGLISH = st.text(alphabet=st.sampled_from("abceghinrst ABT.,!?'-_0129$%&()\n"), max_size=60)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(ENGLISH, ENGLISH)
@pytest.mark.filterwarnings("ignore:.* compares with targets")
def test_texts_in_ascii_have_the_figures_of_the_libraries(response, target):
    scorers = {
        True: RougeScorer(["rougeL"], use_stemmer=True),
        False: RougeScorer(["rougeL"], use_stemmer=False),
    }
    for stem, scorer in scorers.items():
        direct = scorer.score(target, response)["rougeL"].fmeasure
        ours = make_reward({"type": "rouge_l", "use_stemmer": stem})(response, target)
        assert ours == pytest.approx(direct)
        assert RougeTokenizer(stem).tokenize(target) == tokenize(
            target, PorterStemmer() if stem else None
        )
    direct = BLEU(effective_order=True).sentence_score(response, [target]).score / 100
    assert make_reward({"type": "bleu"})(response, target) == min(1, direct)
    direct = CHRF(word_order=2).sentence_score(response, [target]).score / 100
    assert make_reward({"type": "chrf", "word_order": 2})(response, target) == min(1, direct)
    assert words(response) == re.findall(r"\w+", response)
    assert chunks(response) == response.split()


# single rewards


def test_case_is_folded_in_every_script():
    reward = make_reward({"type": "exact_match", "lowercase": True})
    pairs = [
        ("STRASSE", "straße"),
        ("İSTANBUL", "istanbul"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("ФИЛЬМ", "фильм"),
    ]
    assert [reward(a, b) for a, b in pairs] == [1] * 4


@pytest.mark.parametrize(
    ("keyword", "text", "count"),
    [
        ("क", "की", 0),
        ("की", "राम की किताब, की", 2),
        ("电影", "这部电影很好，电影!", 2),
        ("ก", "กำ ก", 1),
        ("films", "film", 0),
        ("C", "C++, C# and C.", 1),
        ("C++", "C++ is no C++11", 1),
        ("new york", "New\nYork", 1),
        ("don't", "I don’t", 1),
        ("straße", "STRASSE", 1),
        ("خواهم", "می\u200cخواهم", 0),
        ("e\u0301te\u0301", "L'été", 1),
        ("ab ab", "xab ab ab", 1),
        ("手机", "iPhone手机", 1),
        (".", "a. b.", 2),
    ],
)
def test_keywords_are_whole_words(keyword, text, count):
    assert make_reward({"type": "keyword_count", "keywords": [keyword]})(text) == count


@settings(derandomize=True, max_examples=100, deadline=None)
@given(WORD_TEXT)
def test_every_word_of_a_text_is_found_in_it(text):
    for word in words(fold(text)):
        shown = {"type": "keyword_count", "keywords": [word], "normalize": True}
        attached = re.search(rf"{re.escape(word)}[+#]", fold(text))
        assert attached or make_reward(shown)(text) == 1, word


def test_texts_without_a_word_are_compared_as_they_are():
    reward = make_reward({"type": "jaccard"})
    assert reward(["= ?", "+", ""], ["=  ?", "-", ""]) == [1, 0, 1]


def test_lengths_and_n_grams_count_words_of_scripts_without_spaces():
    window = {"type": "length_window", "min": 4, "max": 4}
    assert make_reward(window)("电影好看。") == 1
    assert make_reward({**window, "segmenter": "spaces"})("电影好看。") == 0.25
    distinct = make_reward({"type": "diversity", "method": "distinct"})
    assert distinct("好好好") == 0.5
    assert make_reward({"type": "diversity"})(["好看的书", "好看的花"]) == [0.5, 0.5]
    assert repetition(["好看好看"], 2) == [pytest.approx(1 / 3)]


def test_novelty_finds_copies_in_scripts_without_spaces(tmp_path):
    (tmp_path / "c.txt").write_text("这部电影很好看", encoding="utf-8")
    spec = {"type": "novelty", "corpus": str(tmp_path / "c.txt"), "ngram": 2}
    assert make_reward(spec)("电影很长") == pytest.approx(1 / 3)


def test_patterns_see_words_with_their_marks():
    pattern = make_reward({"type": "regex_presence", "pattern": r"^\w+$"})
    assert pattern(["की", "cafe\u0301", "two words"]) == [1, 1, 0]
    accent = make_reward({"type": "regex_presence", "pattern": "e\u0301$"})
    assert accent("café") == 1


def test_names_are_found_in_scripts_without_spaces_and_without_case():
    reward = make_reward({"type": "entity_consistency", "method": "pattern"})
    assert reward("Он видел Москву", "МОСКВУ он видел") == 1
    assert reward("它有 330.5 米", "高330.5米") == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("他来了。是的！", 2),
        ("यह अच्छा है। ठीक॥", 2),
        ("هل أنت هنا؟ نعم.", 2),
        ("یہ اچھا ہے۔ ہاں۔", 2),
    ],
)
def test_sentences_of_other_scripts(text, count):
    assert len(sentences(text)) == count


# what does not handle a script says so


@pytest.mark.parametrize(
    ("spec", "text", "says"),
    [
        ({"type": "readability"}, "这部电影很好看", "readability has formulas for English"),
        ({"type": "spelling_grammar"}, "хороший фильм", "a dictionary of the language 'en'"),
        ({"type": "spelling_grammar", "language": "ru"}, "a good film", "language 'ru'"),
        ({"type": "entity_consistency", "method": "pattern"}, "वह दिल्ली गया", "by their capitals"),
        ({"type": "bleu", "tokenize": "13a"}, "电影好看", "tokenize: 13a takes a whole run"),
    ],
)
def test_what_is_for_another_script_warns(spec, text, says):
    with pytest.warns(ScriptWarning, match=re.escape(says)):
        make_reward(spec)(text, text)


def test_vader_warns_and_is_no_silent_zero():
    with pytest.warns(ScriptWarning, match="vader is a list of English words"):
        text_metrics([Sample("", "отличный фильм")])


def test_texts_of_the_right_script_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_reward({"type": "readability"})("A naïve café, 5 € (好).")
        make_reward({"type": "spelling_grammar", "language": "ru"})("хороший фильм")
        make_reward({"type": "entity_consistency", "method": "pattern"})("Москва", "Москва")
        make_reward({"type": "bleu", "tokenize": "13a"})("фильм", "фильм")


def test_the_warning_is_seen_where_stages_hide_those_of_libraries():
    assert not issubclass(ScriptWarning, UserWarning | FutureWarning | DeprecationWarning)


# segmenters


def test_an_unknown_segmenter_is_refused():
    with pytest.raises(ConfigError, match="reward.segmenter: should be characters, icu or spaces"):
        make_reward({"type": "jaccard", "segmenter": "jieba"})


def test_icu_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("mht.core.bounds.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install icu4py"):
        make_reward({"type": "jaccard", "segmenter": "icu"})


def test_icu_knows_words():
    pytest.importorskip("icu4py")
    assert words("我喜欢电影", "icu") == ["我", "喜欢", "电影"]
    assert words("ภาษาไทย", "icu") == ["ภาษา", "ไทย"]
    keyword = {"type": "keyword_count", "keywords": ["มา"], "segmenter": "icu"}
    assert make_reward(keyword)(["มาก", "มา"]) == [0, 1]
