"""Readers and trainers of the training data that a library user gives."""

from mht.data.given.train_data import TrainData
from mht.data.text.texts import Codec
from tests.support import training
from tests.support.training import EOS, PAD

PAIRS = [("How is the film?", "A warm story."), ("How is the plot?", "It is slow .")] * 2


def reader_of(tokenizer, context=256, **columns):
    """A reader of training data for this tokenizer."""
    codec = Codec(tokenizer, {EOS})
    return TrainData(codec, pad_id=PAD, vocabulary=400, context=context, columns=columns)


def ids_of(found):
    """The token ids of each prompt and target."""
    return [(e.prompt_ids, e.target_ids) for e in found]


def trainer_of(tiny_model_dir, tokenizer, data, **options):
    """A trainer on the CPU with small settings."""
    return training.trainer_of(
        tiny_model_dir(), tokenizer, data, **{"num_layers_unfrozen": 1} | options
    )
