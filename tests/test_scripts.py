# ruff: noqa: RUF001
"""Texts of every script: what a word is, what is equal, and what each metric makes of them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mht.data.tokenize import cut_row


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
