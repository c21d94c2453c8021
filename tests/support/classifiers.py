"""Tiny random BERTs that read a few words, for the tests of rewards behind models."""

import pytest
import torch

from mht.core.errors import ModelError
from mht.rewards import make_reward

SENTENCE = "a an the film movie good bad great dull very so is was and not story cast plot"
WORDS = SENTENCE.split()
TEXTS = ["a good film", "the movie is very dull and the plot is bad", "", "great", "a good film"]


def word_tokenizer():
    """A tokenizer of BERT that knows WORDS and its special tokens alone."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    )


def save_bert(folder, labels=None, kind="BertForSequenceClassification", **config):
    """A tiny random BERT of this kind with these labels, as a folder."""
    import transformers

    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(labels)), "num_labels": len(labels)} if labels else {}
    model = getattr(transformers, kind)(
        transformers.BertConfig(
            vocab_size=4 + len(WORDS),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
            initializer_range=0.5,
            **names,
            **config,
        )
    )
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


def direct(folder, text, pair=None):
    """The logits of one text alone, without any of our code."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**tokenizer(text, pair, return_tensors="pt")).logits[0]


def error_of(spec):
    """The one line of the error that scoring with this spec ends in."""
    with pytest.raises(ModelError) as caught:
        make_reward(spec)("a good film", "a film")
    assert "\n" not in str(caught.value)
    return str(caught.value)


ORIGINAL = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]


def save(folder, kind, labels, **config):
    """A tiny random classifier of this architecture with these labels, as a folder."""
    import transformers

    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    if kind != "Bert":  # BERT alone of these tells segments apart by their own embedding
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    sizes = {"vocab_size": 4 + len(WORDS), "max_position_embeddings": 40, "pad_token_id": 0}
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 32, "initializer_range": 0.5}
    if kind == "DistilBert":
        small = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "initializer_range": 0.5}
    made = getattr(transformers, f"{kind}Config")(
        **sizes,
        **small,
        **config,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    getattr(transformers, f"{kind}ForSequenceClassification")(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
