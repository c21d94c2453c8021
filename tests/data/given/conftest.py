"""Tokenizers of their own for a module, as some tests change them."""

import pytest

from tests.support.models import make_tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tiny_tokenizer()


@pytest.fixture(scope="module")
def chat_tokenizer():
    return make_tiny_tokenizer(chat=True)
