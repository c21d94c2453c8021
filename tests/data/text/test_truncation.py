"""How many tokens a model takes, and what is read of a text that is longer."""

import functools
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mht.config import RewardModelConfig
from mht.core.errors import ModelError
from mht.data.text.sample import Sample
from mht.data.text.truncation import beginning, end, ending, fitted, token_counts, token_limit
from mht.evaluation.text_metrics import bertscore
from mht.reward_models.classifier import train_classifier
from mht.reward_models.judged import Rated, split_compared
from mht.rewards import make_reward
from tests.support.classifiers import WORDS, word_tokenizer

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "vocab_size": 4 + len(WORDS), "pad_token_id": 0, "initializer_range": 0.5,
}  # fmt: skip
ROOM = {"max_position_embeddings": 34}
SEQ2SEQ = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
}  # fmt: skip
GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2}
LEARNED = {  # kind of model: what else its config has, and the tokens that fit
    "bert": ({}, 34),
    "electra": ({"embedding_size": 16}, 34),
    "albert": ({"embedding_size": 16}, 34),
    "distilbert": ({"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}, 34),
    "roberta": ({"pad_token_id": 1}, 32),
    "xlm-roberta": ({"pad_token_id": 5}, 28),
    "camembert": ({"pad_token_id": 0}, 33),
    "data2vec-text": ({"pad_token_id": 1}, 32),
    "luke": ({"pad_token_id": 1, "entity_vocab_size": 4, "entity_emb_size": 4}, 32),
    "mpnet": ({"pad_token_id": 1}, 32),
    "ibert": ({"pad_token_id": 1}, 32),
    "nystromformer": ({"segment_means_seq_len": 34, "num_landmarks": 2}, 34),
    "bart": (SEQ2SEQ, 34),
    "marian": (SEQ2SEQ, 34),
    "gpt2": (GPT2, 34),
    "opt": ({"ffn_dim": 16, "word_embed_proj_dim": 16}, 34),
}
UNLIMITED = {
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "n_positions": 9},
    "deberta-v2": {
        "position_biased_input": False,
        "relative_attention": True,
        "max_position_embeddings": 34,
    },
    "bloom": {"n_layer": 1, "n_head": 2},
    "xlnet": {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16},
}


def model_of(kind, **config):
    """A tiny random model of a kind; an encoder alone where that reads the text."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    made = AutoConfig.for_model(kind, **{**SMALL, **config})
    return AutoModel.from_config(made).eval()


def reads(model, tokens):
    ids = torch.full((1, tokens), 7)
    given = {"decoder_input_ids": ids[:, :1]} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), **given)[0]


@pytest.mark.parametrize("kind", LEARNED)
def test_the_limit_is_what_the_position_embeddings_have_room_for(kind):
    config, room = LEARNED[kind]
    model, tokenizer = model_of(kind, **ROOM, **config), word_tokenizer()
    tokenizer.model_max_length = int(1e30)  # as transformers has it where nothing is stated
    assert token_limit(model, tokenizer) == room
    assert torch.isfinite(reads(model, room)).all()
    if kind != "nystromformer":  # whose table has two rows more than it states
        with pytest.raises((IndexError, RuntimeError)):
            reads(model, room + 1)
    tokenizer.model_max_length = 20
    assert token_limit(model, tokenizer) == 20
    tokenizer.model_max_length = 512  # another checkpoint's
    assert token_limit(model, tokenizer) == room


@pytest.mark.parametrize("kind", UNLIMITED)
def test_relative_positions_have_no_limit_but_the_tokenizers(kind):
    model, tokenizer = model_of(kind, **UNLIMITED[kind]), word_tokenizer()
    tokenizer.model_max_length = None
    assert token_limit(model, tokenizer) is None
    assert torch.isfinite(reads(model, 80)).all()
    tokenizer.model_max_length = 20
    assert token_limit(model, tokenizer) == 20


def test_a_text_model_inside_another_states_its_own_limit():
    class Nested(torch.nn.Module):
        class config:
            text_config = type("", (), {"max_position_embeddings": 48})

        def __init__(self):
            super().__init__()
            self.vision_tower = torch.nn.ModuleDict(
                {"position_embedding": torch.nn.Embedding(9, 4)}
            )

    assert token_limit(Nested(), word_tokenizer()) == 32
    assert token_limit(Nested(), None) == 48


# -- what is left out -----------------------------------------------------------------------------


def words(*numbers):
    return " ".join(WORDS[n % len(WORDS)] for n in numbers)


def slow(tokenizer):
    """As a tokenizer that can't say where its tokens stand."""
    from unittest.mock import patch

    return patch.object(type(tokenizer), "is_fast", False)


TEXT = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)


@given(prompt=TEXT, response=TEXT, limit=st.integers(5, 40), text=st.sampled_from(["full", "pair"]))
def test_the_response_is_whole_and_the_prompt_ends_before_it(prompt, response, limit, text):
    tokenizer = word_tokenizer()
    sample = Sample(prompt + " ", response)
    found = fitted([sample], text, tokenizer, limit)
    (read,) = found.texts
    (count,) = token_counts([read], tokenizer)
    whole = sample.as_read(text)
    assert count <= limit and bool(found.note) == (token_counts([whole], tokenizer)[0] > limit)
    if not found.note:
        assert read == whole
        return
    special = tokenizer.num_special_tokens_to_add(pair=text == "pair")
    before, after = (read, "") if isinstance(read, str) else read
    if len(response.split()) + special <= limit:
        assert (after or before).endswith(response) and count == limit
        assert (prompt + " ").endswith(before.removesuffix(response) if text == "full" else before)
    else:
        assert response.startswith(before + after) and count == limit


@pytest.mark.parametrize("excess", [0, 1, 3, 9, 10])
def test_tokens_are_taken_off_either_side(excess):
    tokenizer, text = word_tokenizer(), words(*range(9))
    kept = text.split()
    with slow(tokenizer):
        pairs = [(end(text, excess, tokenizer), beginning(text, excess, tokenizer))]
    pairs.append((end(text, excess, tokenizer), beginning(text, excess, tokenizer)))
    for late, early in pairs:
        if excess:  # without one, a character less
            assert late.split() == kept[excess:] and early.split() == kept[: max(0, 9 - excess)]
        assert len(late) < len(text) > len(early)


def test_an_ending_fits():
    assert ending(words(*range(9)), word_tokenizer(), 6).split() == WORDS[5:9]
    assert ending("a good film", word_tokenizer(), 6) == "a good film"


def chat_tokenizer():
    tokenizer = word_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] or "
        "(loop.first and m.role == 'assistant') %}{{ raise_exception('no') }}{% endif %}"
        "was {{ m.content }} so {% endfor %}"
    )
    return tokenizer


def turn(role, text):
    return {"role": role, "content": text}


def test_a_conversation_keeps_system_last_turn_and_response():
    turns = [
        turn("system", "a a"), turn("user", words(*range(4, 12))), turn("assistant", "good good"),
    ]  # fmt: skip
    sample = Sample("the film", "dull plot", item={"turns": turns})
    whole, *_ = fitted([sample], "chat", chat_tokenizer(), 100).texts
    assert whole == chat_tokenizer().apply_chat_template(sample.messages, tokenize=False)
    reads = {n: fitted([sample], "chat", chat_tokenizer(), n).texts[0] for n in (26, 20, 13, 11, 9)}
    assert reads == {
        26: "was a a so was bad great dull very so is so was good good so "
        "was the film so was dull plot so ",
        20: "was a a so was the film so was dull plot so ",
        13: "was a a so was film so was dull plot so ",
        11: "was a so was  so was dull plot so ",
        9: "was  so was  so was dull so ",
    }
    empty = Sample("the film", "", item=sample.item)
    for one in (sample, empty):
        with pytest.raises(ModelError, match="special tokens leave no room for its response"):
            fitted([one], "chat", chat_tokenizer(), 7)


# -- rewards --------------------------------------------------------------------------------------


def save(folder, kind="Roberta", task="SequenceClassification", labels=("score",), **config):
    """A RoBERTa-like model of 34 positions, two of them not for tokens; its tokenizer says none."""
    import transformers

    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(labels))} if task else {}
    made = getattr(transformers, f"{kind}Config")(
        **SMALL | {"pad_token_id": 1} | ROOM | names | config
    )
    model = getattr(transformers, f"{kind}For{task}" if task else f"{kind}Model")
    model(made).save_pretrained(folder)
    tokenizer = chat_tokenizer()
    tokenizer.model_max_length = int(1e30)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):

    @functools.cache
    def make(task="SequenceClassification", *labels, **config):
        return save(tmp_path_factory.mktemp("m"), task=task, labels=labels, **config)

    return make


LONG = words(*range(80))
NLI = ("entailment", "neutral", "contradiction")
READ_BOTH = [
    {"type": "reward_model", "text": "full"},
    {"type": "reward_model", "text": "pair"},
    {"type": "reward_model", "text": "chat"},
    {"type": "qa_relevance"},
    {"type": "sentiment", "text": "full", "labels": ["bad", "positive"]},
    {"type": "legal_validity", "text": "full", "target": "good"},
    {"type": "truth_nli", "premise": "prompt"},
]


@pytest.mark.parametrize("spec", READ_BOTH, ids=lambda s: f"{s['type']}-{s.get('text')}")
def test_answers_to_a_long_prompt_differ_and_it_is_said_once(folder, spec):
    labels = {"truth_nli": NLI, "sentiment": ("bad", "good"), "legal_validity": ("bad", "good")}
    model = folder("SequenceClassification", *labels.get(spec["type"], ("score",)))
    reward = make_reward({**spec, "model": model})
    batch = [Sample(LONG, answer) for answer in ("a good film", "a dull plot", "a good plot")]
    with pytest.warns(UserWarning, match=rf"{spec['type']}: a text is longer than the 32 tokens"):
        scores = reward.evaluate(batch).score
    assert len(set(scores)) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reward.evaluate(batch).score == scores
        short = make_reward({**spec, "model": model})
        ends = [Sample(ending(LONG, word_tokenizer(), 10), s.response) for s in batch]
        assert len(set(short.evaluate(ends).score)) == 3
    changed = [Sample("great " + LONG[2:], s.response) for s in batch]  # where nothing is read
    assert reward.evaluate(changed).score == scores


SINGLE = [
    {"type": "reward_model"},
    {"type": "sentiment", "labels": ["bad", "positive"]},
    {"type": "bleurt"},
    {"type": "spelling_grammar", "method": "acceptability", "label": "good"},
    {"type": "truth_nli"},
    {"type": "topic_consistency", "method": "zero_shot", "topics": ["film", "plot"]},
    {"type": "topic_consistency"},
    {"type": "cosine_sts"},
    {"type": "bertscore", "num_layers": 1},
    {"type": "entity_consistency", "method": "model", "source": "prompt"},
    {"type": "perplexity"},
    {"type": "llm_judge"},
    {"type": "llm_judge", "method": "gptscore"},
]
TASKS = {
    "cosine_sts": None, "bertscore": None, "perplexity": "CausalLM", "llm_judge": "CausalLM",
    "entity_consistency": "TokenClassification",
}  # fmt: skip
LABELS = {
    "sentiment": ("bad", "good"), "spelling_grammar": ("bad", "good"), "truth_nli": NLI,
    "topic_consistency": NLI, "entity_consistency": ("O", "B-PER"),
}  # fmt: skip


@pytest.mark.parametrize("spec", SINGLE, ids=lambda s: f"{s['type']}-{s.get('method')}")
def test_long_texts_fit_a_roberta_that_states_no_limit(folder, spec):
    kind = spec["type"]
    task = TASKS.get(kind, "SequenceClassification")
    if kind == "topic_consistency" and "method" not in spec:
        task = None
    labels = LABELS.get(kind, ("score",)) if task and "LM" not in task else ()
    lm = {"is_decoder": True} if task == "CausalLM" else {}
    key = "model_type" if kind == "bertscore" else "model"
    spec = {**spec, key: folder(task, *labels, **lm)}
    if kind == "llm_judge":
        scored = "" if "method" in spec else " {response}"
        spec |= {"template": "{prompt} was" + scored, "verdicts": {"good": 1.0, "bad": 0.0}}
    reward = make_reward(spec)
    batch = [Sample(LONG, f"{a} {LONG}", f"is {LONG}") for a in ("good", "bad")]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scores = reward.evaluate(batch).score
        assert reward.evaluate(batch).score == scores
    assert kind == "entity_consistency" or len(set(scores)) == 2
    told = [str(w.message) for w in said if "longer than the" in str(w.message)]
    assert len(told) == (0 if kind in ("perplexity", "spelling_grammar") else 1)


def test_an_encoder_decoder_classifies_texts_of_all_its_positions(tmp_path):
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    model = save(tmp_path, "Bart", labels=("bad", "positive"), **SEQ2SEQ, **ids)
    reward = make_reward({"type": "sentiment", "model": model, "text": "full"})
    with pytest.warns(UserWarning, match="longer than the 34 tokens"):
        scores = reward(["a good film", "a dull plot"], prompt=LONG)
    assert scores[0] != scores[1]


def test_bertscore_of_an_evaluation_fits(folder):
    (value,) = bertscore(folder(None), 1)([Sample("", LONG, LONG)])
    assert value == pytest.approx(1, abs=1e-5)


def test_a_causal_model_with_an_offset_reads_all_its_positions(tmp_path):
    model = save(tmp_path, "OPT", "CausalLM", (), ffn_dim=16, word_embed_proj_dim=16)
    reward = make_reward({"type": "perplexity", "model": model, "max_length": 34, "stride": 10})
    assert 0 < reward(LONG) < 1
    said = make_reward({"type": "perplexity", "model": model, "max_length": 35, "stride": 10})
    with pytest.raises(ModelError, match="max_length 35 is above the 34 tokens that model"):
        said(LONG)


# -- training on pairs ----------------------------------------------------------------------------


def test_a_reward_model_learns_from_the_whole_answer_to_a_long_prompt():
    rows = [
        {"prompt": f"{a} {LONG}", "chosen": "a good film", "rejected": "a dull plot", "turns": "[]"}
        for a in WORDS
    ]
    config = RewardModelConfig(max_tokens=16, text="pair")
    with pytest.warns(UserWarning, match="^reward_model.max_tokens: a text is longer than the 16"):
        train, _ = split_compared(rows, config, word_tokenizer(), seed=0)
    for prompt, answer in train.chosen + train.rejected:
        assert answer in ("a good film", "a dull plot")
        assert LONG.endswith(prompt) and len(prompt.split()) == 16 - 3 - 3


def test_max_tokens_of_training_fit_the_positions(folder):
    rated = Rated(["a good film", "a dull plot"], [1, 0])
    options = {"seed": 0, "device": torch.device("cpu"), "log": lambda stats, step: None}
    config = RewardModelConfig(max_tokens=33, batch_size=2, epochs=1)
    model = folder("SequenceClassification", "bad", "good")
    with pytest.raises(
        ModelError, match="^reward_model.max_tokens: 33 is more than the encoder's 32"
    ):
        train_classifier(model, rated, config, **options)
    longer = Rated([LONG, f"good {LONG}"], [1, 0])
    train_classifier(model, longer, config.model_copy(update={"max_tokens": 32}), **options)
