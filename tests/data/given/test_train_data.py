"""Training data in every form that a library user has: token ids, texts, chats, frames, lists."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset
from torch.utils.data import DataLoader, TensorDataset

from mht import make_reward
from mht.algorithms.sft import batch_loss
from mht.core.errors import DataError, UserError
from mht.data.given.row_forms import rows_of
from tests.support.given import PAIRS, ids_of, reader_of, trainer_of
from tests.support.models import make_tiny_tokenizer
from tests.support.training import EOS, PAD, TEXTS, examples


def token_rows(tokenizer, side="right", width=None):
    """Prepared examples as the rows of a tokenised data set, padded to a width or not at all."""
    rows = []
    for e in examples(tokenizer):
        ids = e.prompt_ids + e.target_ids
        labels = [-100] * len(e.prompt_ids) + e.target_ids
        padding = (width or len(ids)) - len(ids)
        left, right = (padding, 0) if side == "left" else (0, padding)
        rows.append(
            {
                "input_ids": [PAD] * left + ids + [PAD] * right,
                "attention_mask": [0] * left + [1] * len(ids) + [0] * right,
                "labels": [-100] * left + labels + [-100] * right,
            }
        )
    return rows


# -- what rows come in --------------------------------------------------------------------------


class MapStyle(torch.utils.data.Dataset):
    """A data set of torch's."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "Dataset": Dataset.from_list,
    "Dataset of tensors": lambda rows: Dataset.from_list(rows).with_format("torch"),
    "Dataset of arrays": lambda rows: Dataset.from_list(rows).with_format("numpy"),
    "Dataset of frames": lambda rows: Dataset.from_list(rows).with_format("pandas"),
    "DataFrame": pd.DataFrame,
    "DataFrame with an index": lambda rows: pd.DataFrame(rows, index=range(5, 5 + len(rows))),
    "columns": lambda rows: {k: [row[k] for row in rows] for k in rows[0]},
    "arrow": lambda rows: Dataset.from_list(rows).data.table,
    "torch Dataset": MapStyle,
    "tensors in dicts": lambda rows: [
        {k: torch.tensor(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows
    ],
}


@pytest.mark.parametrize("container", list(CONTAINERS))
def test_token_rows_in_any_container(tokenizer, container):
    found = reader_of(tokenizer).read(CONTAINERS[container](token_rows(tokenizer)))
    assert ids_of(found) == ids_of(examples(tokenizer))
    assert [e.prompt for e in found] == [prompt for prompt, _ in TEXTS]
    assert [e.target for e in found] == [target for _, target in TEXTS]
    assert all(e.item == {} for e in found)


@pytest.mark.parametrize("container", list(CONTAINERS))
def test_texts_in_any_container(tokenizer, container):
    rows = [{"prompt": p, "target": t, "stars": 3} for p, t in PAIRS]
    found = reader_of(tokenizer).read(CONTAINERS[container](rows))
    assert [(e.prompt, e.target, e.item["stars"]) for e in found] == [(p, t, 3) for p, t in PAIRS]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mask", [True, False])
def test_padding_in_the_rows_is_left_out(tokenizer, side, mask):
    rows = token_rows(tokenizer, side, width=60)
    rows = rows if mask else [{k: v for k, v in r.items() if k != "attention_mask"} for r in rows]
    assert ids_of(reader_of(tokenizer).read(rows)) == ids_of(examples(tokenizer))


def test_the_mask_says_what_is_padding(tokenizer):
    row = {"input_ids": [PAD, 40, PAD, 50, PAD], "labels": [-100, -100, -100, 50, PAD]}
    (bare,) = reader_of(tokenizer).read([row])
    assert (bare.prompt_ids, bare.target_ids) == ([40, PAD], [50])
    (masked,) = reader_of(tokenizer).read([row | {"attention_mask": [1] * 5}])
    assert (masked.prompt_ids, masked.target_ids) == ([PAD, 40, PAD], [50, PAD])


def test_prepared_examples_stay_as_they_are(tokenizer):
    given = examples(tokenizer)
    found = reader_of(tokenizer).read(given)
    assert all(a is b for a, b in zip(found, given, strict=True))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (lambda: [], "train_data: has no rows"),
        (lambda: Dataset.from_list([]), "train_data: has no rows"),
        (lambda: pd.DataFrame(), "train_data: has no rows"),
        (lambda: "train.jsonl", "got a path or text 'train.jsonl': read it first"),
        (lambda: Path("train.jsonl"), "got a path or text 'train.jsonl'"),
        (lambda: DatasetDict(train=Dataset.from_list([{"text": "a"}]),
                             test=Dataset.from_list([{"text": "a"}])),
         "a DatasetDict with the splits train, test: give one, such as data..train.."),
        (lambda: IterableDataset.from_generator(lambda: iter([{"text": "a"}])),
         "got a IterableDataset, whose length is not known: give a list"),
        (lambda: iter([{"text": "a"}]), "whose length is not known"),
        (lambda: DataLoader([{"text": "a"}]), "got a DataLoader: give its rows, loader.dataset"),
        (lambda: 3, "got a int: give a datasets.Dataset, a pandas DataFrame, or a list"),
        (make_tiny_tokenizer, "got a tokenizer"),
        (lambda: {"prompt": ["a", "b"], "target": ["c"]}, "lists of one length, got prompt 2, tar"),
        (lambda: {"prompt": "a", "target": "b"}, "lists of one length, got prompt no list"),
        (lambda: ["a text", "another"], r"train_data\[0\]: should be a dict of columns, got 'a te"),
        (lambda: TensorDataset(torch.ones(2, 3)), r"train_data\[0\]: should be a dict"),
        (lambda: [{"text": "a b c d e f g"}, None], r"train_data\[1\]: should be a dict"),
    ],
)  # fmt: skip
def test_what_is_no_data(tokenizer, data, says):
    with pytest.raises(DataError, match=says) as caught:
        reader_of(tokenizer).read(data())
    assert "\n" not in str(caught.value)


def test_rows_of_names_the_argument():
    with pytest.raises(DataError, match="^rows: has no rows"):
        rows_of([], "rows")


# -- token ids ----------------------------------------------------------------------------------


def test_every_stretch_of_labels_is_an_example(tokenizer):
    """The turns of a chat: each label is learnt once, from what stands before it."""
    ids = [1, 40, 41, 50, EOS, 42, 60, 61, EOS, 43]
    labels = [-100, -100, -100, 50, EOS, -100, 60, 61, EOS, -100]
    found = reader_of(tokenizer).read([{"input_ids": ids, "labels": labels, "who": "me"}])
    assert ids_of(found) == [
        ([1, 40, 41], [50, EOS]),
        ([1, 40, 41, 50, EOS, 42], [60, 61, EOS]),
    ]
    assert all(e.item == {"who": "me"} for e in found)


def test_the_loss_of_the_examples_is_that_of_the_rows(tokenizer, tiny_model_dir):
    from mht.data.examples.example import collate_sft
    from tests.support.training import model_of

    model = model_of(tiny_model_dir())
    ids = [1, 40, 41, 50, EOS, 42, 60, 61, EOS]
    labels = [-100, -100, -100, 50, EOS, -100, 60, 61, EOS]
    found = reader_of(tokenizer).read([{"input_ids": ids, "labels": labels}])
    row = {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([labels]),
        "attention_mask": torch.ones(1, 9),
    }
    with torch.no_grad():
        expected = batch_loss(model, row)
        torch.testing.assert_close(
            batch_loss(model, collate_sft(found, PAD)), expected, atol=1e-5, rtol=0
        )


def test_a_row_without_a_prompt_begins_with_its_first_token(tokenizer):
    (found,) = reader_of(tokenizer).read([{"input_ids": [1, 40, 41], "labels": [1, 40, 41]}])
    assert (found.prompt_ids, found.target_ids) == ([1], [40, 41])


@pytest.mark.parametrize("name", ["completion_mask", "assistant_masks"])
def test_trl_s_masks(tokenizer, name):
    (found,) = reader_of(tokenizer).read([{"input_ids": [1, 40, 41], name: [0, 0, 1]}])
    assert (found.prompt_ids, found.target_ids) == ([1, 40], [41])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"labels": [-100] * 3}, "labels: nothing to learn"),
        ({"labels": [40, -100, -100]}, "nothing to learn, every one is -100 or stands first"),
        ({"attention_mask": [0, 0, 0]}, "nothing to learn"),
        ({"labels": [-100, 41]}, "labels has 2 numbers, input_ids 3"),
        ({"labels": [-100, 42, 43]}, "labels has 42 where input_ids has 41.* the shift by one"),
        ({"input_ids": [40, 41, 400], "labels": [-100, -100, 400]}, "token 400, but the model has"),
        ({"input_ids": [[40, 41, 42]]}, r"input_ids should hold whole numbers, got \[40, 41, 42\]"),
        ({"input_ids": ["a", "b", "c"]}, "input_ids should hold whole numbers, got 'a'"),
        ({"input_ids": "a film"}, "input_ids should be a list of whole numbers, got 'a film'"),
        ({"input_ids": []}, "input_ids should be a list"),
        ({"input_ids": [40, None, 42]}, "input_ids should hold whole numbers, got None"),
        ({"labels": None}, "labels should be a list"),
    ],
)
def test_a_row_of_tokens_that_does_not_fit(tokenizer, row, says):
    good = {"input_ids": [40, 41, 42], "labels": [-100, 41, 42], "attention_mask": [1, 1, 1]}
    with pytest.raises(DataError, match=rf"^train_data\[1\]: .*{says}") as caught:
        reader_of(tokenizer).read([good, good | row])
    assert "\n" not in str(caught.value)


def test_ids_without_labels(tokenizer):
    with pytest.raises(DataError, match="has input_ids but no labels: -100 where nothing is lear"):
        reader_of(tokenizer).read([{"input_ids": [1, 2, 3], "attention_mask": [1, 1, 1]}])
    with pytest.raises(DataError, match=r"train_data\[1\]: lacks input_ids or labels"):
        reader_of(tokenizer).read([{"input_ids": [1, 2], "labels": [-100, 2]}, {"input_ids": [1]}])


# -- texts --------------------------------------------------------------------------------------


def test_texts_are_cut_and_short_ones_left_out(tokenizer):
    rows = [{"text": "the film is a warm and funny story"}, {"text": "too short"}]
    with pytest.warns(UserWarning, match="1 of 2 texts have no more than 5 words"):
        (found,) = reader_of(tokenizer).read(rows)
    assert (found.prompt, found.target) == ("the film is a warm", " and funny story")
    with pytest.raises(DataError, match="there is no target"):
        reader_of(tokenizer).read(rows[1:])


def test_prompts_alone_serve_ppo(tokenizer):
    found = reader_of(tokenizer).read([{"prompt": p, "answer_key": t} for p, t in PAIRS])
    assert [(e.prompt, e.target, e.target_ids) for e in found] == [(p, "", []) for p, _ in PAIRS]
    assert found[0].item == {"answer_key": "A warm story."}


# -- the trainer --------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["tokens", "frame", "text"])
def test_it_trains_on_them(tiny_model_dir, tokenizer, data):
    rows = {
        "tokens": lambda: Dataset.from_list(token_rows(tokenizer)).with_format("torch"),
        "frame": lambda: pd.DataFrame([{"prompt": p, "target": t} for p, t in PAIRS]),
        "text": lambda: [{"text": p + t} for p, t in TEXTS],
    }[data]()
    figures = []
    trainer = trainer_of(tiny_model_dir, tokenizer, rows)
    trainer.train([(1, 1)], log=lambda stats, step: figures.append(stats))
    assert figures[0]["sft/loss"] > 0 and "ppo/score/mean" in figures[1]


def test_tokens_train_as_prepared_examples_do(tiny_model_dir, tokenizer):
    losses = []
    for data in (examples(tokenizer), Dataset.from_list(token_rows(tokenizer, width=60))):
        trainer = trainer_of(tiny_model_dir, tokenizer, data)
        trainer.train([(2, 1)], log=lambda stats, step: losses.append(stats.get("sft/loss")))
    assert losses[:3] == losses[3:]


def test_prompts_alone_can_not_be_learnt(tiny_model_dir, tokenizer):
    trainer = trainer_of(tiny_model_dir, tokenizer, [{"prompt": p} for p, _ in PAIRS])
    trainer.train([(0, 1)])
    with pytest.raises(UserError, match="no label to learn"):
        trainer.train([(1, 0)])


@pytest.mark.parametrize("form", ["tokens", "texts", "examples"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_loop_with_the_trainer_s_own_collating(tiny_model_dir, tokenizer, form, batch_size):
    """Rows of different lengths, of any form, with texts for the reward."""
    data = {
        "tokens": lambda: Dataset.from_list(token_rows(tokenizer)),
        "texts": lambda: Dataset.from_list([{"prompt": p, "target": t} for p, t in PAIRS]),
        "examples": lambda: examples(tokenizer),
    }[form]()
    reward = make_reward({"type": "jaccard"})
    trainer = trainer_of(tiny_model_dir, tokenizer, data, reward_fn=reward)
    seen = []
    for batch in DataLoader(data, batch_size=batch_size, collate_fn=trainer.collate):
        assert trainer.sft_step(batch) > 0
        response_ids = trainer.respond_to_batch(batch["prompt_ids"], batch["prompt_mask"])
        texts = trainer.decode_responses(batch["prompt_ids"], response_ids, batch["prompt_mask"])
        scores = reward(texts, batch["target"], prompt=batch["prompt"], item=batch["item"])
        stats = trainer.ppo_step(
            batch["prompt_ids"], response_ids, scores, batch["prompt_mask"], batch["item"]
        )
        assert stats["score/mean"] == pytest.approx(np.mean(scores))
        seen += batch["target"]
    assert seen == [e.target for e in trainer.reader.read(data)]
