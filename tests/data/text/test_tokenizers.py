"""For tokenizers of every layout: the tokens say the text, and data never becomes a control token.

By default a few texts each; `make slow` tries 10,000.
"""

from unicodedata import normalize

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mht.core.errors import DataError, ModelError
from mht.data.text.special import end_ids
from mht.data.text.texts import Codec
from mht.generation.decoding import prompt_examples
from mht.generation.sampling.rollout import Responder
from tests.support.tokenizer_layouts import LAYOUTS, LOSSY, TURNS, fast, tiny_llama

CONTROL = ["<s>", "</s>", "<pad>", "<unk>", *TURNS, "<|endoftext|>", "[CLS]", "[SEP]", "<answer>"]
WORDS = [
    "the film",
    "warm",
    "and",
    "newly",
    "é",
    "e\u0301",
    "😀",
    "日本",
    "x = 1",
    "?",
    "QU",
    "2015",
]
SPACES = [" ", "  ", "\n", "\n\n", "\t", ""]
TEXTS = st.lists(st.sampled_from(WORDS + CONTROL + SPACES * 2), max_size=8).map("".join)
ANY = st.text(alphabet=st.characters(exclude_characters="▁", codec="utf-8"), max_size=12)
EXACT = sorted(LAYOUTS.keys() - LOSSY)
FIRST_SPACE = {
    "byte_level_with_prefix_space", "metaspace_always", "metaspace_first", "unigram",
    "llama_by_name",
}  # fmt: skip
FEW = settings(max_examples=12, derandomize=True, deadline=None, database=None)
MANY = settings(max_examples=800, derandomize=True, deadline=None, database=None)


def codec_of(name):
    tokenizer = LAYOUTS[name]()
    return Codec(tokenizer, end_ids(tokenizer))


def as_kept(name, text):
    """A whole text as its tokenizer keeps it: in NFC, or without the spaces that begin it."""
    if name == "qwen2_by_name":
        return normalize("NFC", text)
    return text.lstrip(" ") if name in FIRST_SPACE else text


def check(name, prompt, target):
    codec = codec_of(name)
    read = codec.read_text(prompt)
    ids = codec.target_ids(read, target)
    whole = codec.decode([*read.ids, *ids])
    assert as_kept(name, whole) == as_kept(name, prompt + target)
    if prompt:
        pad = codec.tokenizer.pad_token_id
        ended = [*ids, codec.tokenizer.eos_token_id, *([] if pad is None else [pad])]
        said = codec.response_text(read.ids, ended)
        assert said == target or (name == "qwen2_by_name" and said == normalize("NFC", target))
    control = set(codec.control.values())
    opening = read.ids[:1] if read.ids[:1] == [codec.tokenizer.bos_token_id] else []
    assert not control & {*read.ids[len(opening) :], *ids}


@pytest.mark.parametrize("name", EXACT)
@given(prompt=TEXTS, target=TEXTS)
@FEW
def test_tokens_are_the_text(name, prompt, target):
    check(name, prompt, target)


@pytest.mark.parametrize("name", EXACT)
@given(prompt=ANY, target=ANY)
@FEW
def test_tokens_are_any_text(name, prompt, target):
    check(name, prompt, target)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
@given(prompt=TEXTS | ANY, target=TEXTS | ANY)
@MANY
def test_tokens_are_the_text_in_10000_cases(name, prompt, target):
    check(name, prompt, target)


@pytest.mark.parametrize("name", EXACT)
@given(prompt=TEXTS.filter(bool), ids=st.lists(st.integers(4, 370), max_size=8))
@FEW
def test_whatever_is_sampled_is_read_as_it_is(name, prompt, ids):
    """What rewards see behind the prompt is what the decoded whole has there, for any tokens."""
    codec = codec_of(name)
    read = codec.read_text(prompt)
    ids = [i for i in ids if i < len(codec.tokenizer)]
    said = codec.response_text(read.ids, ids)
    head, whole = codec.decode(read.ids), codec.decode([*read.ids, *ids])
    if whole.startswith(head):
        assert head + said == whole
    else:  # a byte that completes no character spoils those before it, in the decoded whole alone
        spoilt = whole.removesuffix(said)
        assert len(spoilt) < len(whole) and spoilt.strip("\ufffd") in head


@pytest.mark.parametrize("name", sorted(LOSSY - {"scratch"}))
@given(prompt=TEXTS.filter(str.strip), target=TEXTS)
@FEW
def test_a_tokenizer_that_forgets_still_cuts_one_text(name, prompt, target):
    """Case, spaces and rare words are gone; between words the tokens are those of the whole."""
    codec = codec_of(name)
    read = codec.read_text(prompt)
    ids = codec.target_ids(read, f" {target}")
    assert [*read.ids, *ids] == codec.read_text(f"{prompt} {target}").ids
    unknown = codec.tokenizer.unk_token_id
    opening = int(read.ids[:1] == [codec.tokenizer.bos_token_id])
    assert not set(codec.control.values()) - {unknown} & {*read.ids[opening:], *ids}


@given(
    prompt=st.lists(st.sampled_from(["the", "film", "</s>", "dog"]), min_size=1),
    target=st.lists(st.sampled_from(["is", "warm", "<pad>", "</s>"]), min_size=1),
)
@FEW
def test_a_fresh_models_words(prompt, target):
    codec = codec_of("scratch")
    read, text = codec.read_text(" ".join(prompt)), f" {' '.join(target)}"
    ids = codec.target_ids(read, text)
    assert codec.response_text(read.ids, ids) == text
    assert not {0, 1} & {*read.ids, *ids}


def test_a_word_that_a_fresh_model_lacks_is_one_line():
    with pytest.raises(DataError, match="^the tokenizer can't encode 'the unheard'"):
        codec_of("scratch").read_text("the unheard")


@pytest.mark.parametrize("name", LAYOUTS)
def test_texts_without_control_tokens_have_the_tokenizers_own_ids(name):
    codec, text = codec_of(name), "the film is a warm and funny story"
    own = codec.tokenizer(text)["input_ids"]
    ids = codec.read_text(text).ids
    assert ids == own or (ids == own[:-1] and own[-1] == codec.tokenizer.eos_token_id)
    read = codec.read_text("the film is a warm")
    assert [*read.ids, *codec.target_ids(read, " and funny story")] == ids


@pytest.mark.parametrize("name", EXACT)
def test_rewards_read_what_the_policy_wrote(name):
    """A random model's own samples: prompt and response are all of the decoded tokens."""
    tokenizer = LAYOUTS[name]()
    if tokenizer.pad_token is None:
        return
    model = tiny_llama(tokenizer)
    responder = Responder(model, tokenizer, {"response_tokens": 12, "temperature": 1.0})
    prompts = ["the film is a warm", "a dull", "<s> is </s> film"]
    examples = prompt_examples(tokenizer, prompts, codec=responder.codec)
    rollout = responder.respond(examples, torch.Generator().manual_seed(0))
    for i, sample in enumerate(responder.samples(rollout, examples)):
        response = rollout.response_ids[i][rollout.response_mask[i]].tolist()
        whole = responder.codec.decode([*examples[i].prompt_ids, *response])
        assert sample.full.strip() == as_kept(name, whole).strip(), "no joiner, no space lost"


# chat templates


@pytest.mark.parametrize("name", ["chat_with_system", "chat_without_system"])
@given(said=TEXTS, answer=TEXTS)
@FEW
def test_data_adds_no_turn(name, said, answer):
    codec = codec_of(name)
    read = codec.read_chat([{"role": "user", "content": f"a{said}b"}])
    plain = codec.read_chat([{"role": "user", "content": "x"}])
    control = set(codec.control.values())
    assert [i for i in read.ids if i in control] == [i for i in plain.ids if i in control]
    assert f"a{said}b" in codec.decode(read.ids)
    ids = codec.target_ids(read, answer)
    assert codec.response_text(read.ids, ids) == answer and not control & set(ids)


def test_a_template_gives_the_tokenizers_own_ids():
    codec = codec_of("chat_with_system")
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the film?"}]
    own = codec.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    assert codec.read_chat(messages).ids == own


def test_a_template_that_builds_its_tokens_from_parts_has_them_to_itself():
    plain = LAYOUTS["added_special_tokens"]()
    assert "<answer>" not in Codec(plain).control
    template = "{% for m in messages %}{{ '<' + 'answer>' + m['content'] }}{% endfor %}"
    codec = Codec(fast(plain.backend_tokenizer, chat_template=template))
    assert "<answer>" in codec.control
    number = codec.control["<answer>"]
    ids = codec.read_chat([{"role": "user", "content": "a <answer> b"}]).ids
    assert ids.count(number) == 1 and ids[0] == number


@pytest.mark.parametrize(
    ("roles", "reason"),
    [(("system", "user"), "System role not supported"), (("user", "user"), "must alternate")],
)
def test_a_template_that_refuses_says_why_in_one_line(roles, reason):
    with pytest.raises(ModelError) as caught:
        codec_of("chat_without_system").read_chat([{"role": r, "content": "x"} for r in roles])
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert ", ".join(roles) in str(caught.value)


def test_a_text_that_imitates_what_stands_for_control_tokens_is_refused():
    codec = codec_of("byte_level")
    for text in ("\ufdd01\ufdd1", "\ufdd22\ufdd1"):
        with pytest.raises(DataError, match="keeps for control tokens"):
            codec.read_text(text)
    assert codec.decode(codec.read_text("\ufdd0 \ufdd1").ids) == "\ufdd0 \ufdd1"
