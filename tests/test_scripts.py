# ruff: noqa: RUF001
"""Texts of every script: what a word is, what is equal, and what each metric makes of them."""

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mht.data.clean import clean, content_key, group_key
from mht.data.tokenize import cut_row
from mht.words import words


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
