"""A reward model from labels or preferences: its data, losses, figures, training, stage."""

import csv
import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import brier_score_loss
from transformers import BertConfig, BertModel

from mht.assets.encoders import fetch_encoder
from mht.config import DataConfig, RewardModelConfig
from mht.core.component import build
from mht.core.errors import ConfigError, DataError, ModelError
from mht.data.judgements.judgements import Judgements, read_judgements, set_apart, write_judgements
from mht.data.prepare.labels import judged
from mht.data.sources import OptionError, Source
from mht.data.sources.fetch import fetch_rows
from mht.data.text.sample import Sample
from mht.reward_models.calibration import compared_quality, labelled_quality
from mht.reward_models.classifier import outputs
from mht.reward_models.judged import preference_loss, split_compared, split_labelled
from mht.reward_models.learn import learn
from mht.rewards import make_reward
from stages.reward_model import main
from tests.support.classifiers import word_tokenizer
from tests.support.pipeline import save_encoder

CPU = torch.device("cpu")


def rows(tmp_path, table, **options):
    file = tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    spec = {"type": "jsonl", "path": str(file), **options}
    return build(Source, spec, path="data.labels").rows()


# -- columns ----------------------------------------------------------------------------------


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_labels_come_from_their_column_and_stay_in_the_item(tmp_path):
    table = [{"text": "a", "label": "joy"}, {"text": "b", "label": 3}]
    expected = [
        {"text": "a", "label": "joy", "item": {"label": "joy"}},
        {"text": "b", "label": "3", "item": {"label": 3}},
    ]
    assert rows(tmp_path, table) == expected
    other = [{"text": r["text"], "mood": r["label"], "rating": 1.0} for r in table]
    found = rows(tmp_path, other, columns={"label": "mood"})
    assert [(r["label"], r["item"]["rating"]) for r in found] == [("joy", 1.0), ("3", 1.0)]
    both = rows(tmp_path, [{"text": "a", "label": "joy", "rating": 1}])
    assert both == [{"text": "a", "rating": 1.0, "item": {"label": "joy"}}]  # as ever


def test_a_column_called_label_may_hold_anything_for_the_policy(tmp_path):
    table = [{"text": "a", "label": [1, 2]}, {"text": "b", "label": None}]
    assert rows(tmp_path, table) == [
        {"text": "a", "item": {"label": [1, 2]}},
        {"text": "b", "item": {"label": None}},
    ]


def test_two_answers_to_a_prompt(tmp_path):
    table = [{"prompt": "p", "chosen": "good", "rejected": "bad", "who": "x"}]
    expected = [{"prompt": "p", "target": "good", "rejected": "bad", "item": {"who": "x"}}]
    assert rows(tmp_path, table) == expected
    named = [{"q": "p", "best": "good", "worst": "bad", "who": "x"}]
    mapping = {"prompt": "q", "chosen": "best", "rejected": "worst"}
    assert rows(tmp_path, named, columns=mapping) == expected
    kept = rows(tmp_path, table, columns={"target": "chosen"})  # for the policy alone
    assert kept[0]["target"] == "good" and kept[0]["item"]["rejected"] == "bad"


def test_two_answers_as_conversations(tmp_path):
    before = [user("capital?"), assistant("of what?"), user("France")]
    pair = {"chosen": [*before, assistant("Paris")], "rejected": [*before, assistant("Rome")]}
    turns = {"turns": before[:2]}
    expected = [{"prompt": "France", "target": "Paris", "rejected": "Rome", "item": turns}]
    assert rows(tmp_path, [pair]) == expected
    short = {k: [user("France"), assistant(v)] for k, v in (("chosen", "P"), ("rejected", "R"))}
    found = rows(tmp_path, [{**short, "prompt": "France"}])
    assert found == [{"prompt": "France", "target": "P", "rejected": "R"}]
    with pytest.raises(DataError, match="column 'rejected': an answer must end with the assistant"):
        rows(tmp_path, [{**pair, "rejected": before}])


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"chosen": "a", "text": "b"}, "chosen and rejected are two answers"),
        ({"rating": "a", "label": "b"}, "give rating, or label, or chosen and rejected"),
    ],
)
def test_columns_that_do_not_go_together(tmp_path, columns, says):
    with pytest.raises(ConfigError, match=says):
        rows(tmp_path, [{"text": "a"}], columns=columns)


def test_the_other_answer_is_missing(tmp_path):
    with pytest.raises(OptionError, match="has no column 'rejected'; it has: prompt, best"):
        rows(tmp_path, [{"prompt": "p", "best": "a"}], columns={"chosen": "best"})


def test_rows_of_two_kinds_are_refused(tmp_path):
    file = tmp_path / "labels.jsonl"
    file.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": null}\n')
    source = {"type": "jsonl", "path": str(file)}
    config = build(DataConfig, {"source": source, "labels": source}, path="data")
    with pytest.raises(DataError, match=r"data\.labels: row 2 of the source 'jsonl' has no label"):
        fetch_rows(config, tmp_path / "raw")


# -- preparing --------------------------------------------------------------------------------


def test_a_text_has_the_label_that_most_give_it():
    table = [("A film", "x"), ("a  film.", "x"), ("a film", "y"), ("tied", "x"), ("tied", "y")]
    found = judged([{"text": t, "label": label} for t, label in table])
    assert found == Judgements("labels", [{"text": "A film", "label": "x"}])


def pair(prompt, chosen, rejected, **item):
    row = {"prompt": prompt, "target": chosen, "rejected": rejected}
    return {**row, "item": item} if item else row


def test_pairs_are_cleaned_and_each_is_there_once():
    table = [
        pair("Why?", "so &amp; so", "no"),
        pair("why", "so & so!", "No."),
        pair("Why?", "no", "so & so"),  # judged the other way round by someone else
        pair("Why?", "same", "Same!"),
        pair("Why?", "", "no"),
    ]
    found = judged(table)
    assert found.kind == "preferences"
    assert sorted((r["chosen"], r["rejected"]) for r in found.rows) == [
        ("no", "so & so"),
        ("so & so", "no"),
    ]


def test_a_pair_keeps_its_conversation():
    turns = [user("capital?"), assistant("of what?")]
    (row,) = judged([pair("France", "Paris", "Rome", turns=turns)]).rows
    assert row["prompt"] == "capital?\nof what?\nFrance"
    assert json.loads(row["turns"]) == turns


@pytest.mark.parametrize(
    "judgements",
    [
        Judgements("ratings", [{"text": "a", "rating": 1.5}]),
        Judgements("labels", [{"text": "a", "label": "é"}]),
        Judgements("preferences", [{"prompt": "", "chosen": "a", "rejected": "b", "turns": "[]"}]),
        Judgements("ratings", []),
    ],
)
def test_judgements_come_back_as_they_were_written(tmp_path, judgements):
    write_judgements(tmp_path / "labels.parquet", judgements)
    assert read_judgements(tmp_path / "labels.parquet") == judgements


# -- losses and figures -----------------------------------------------------------------------


def test_the_preference_loss_by_hand():
    chosen, rejected = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    plain = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert preference_loss(chosen, rejected).item() == pytest.approx(plain)
    wide = (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(2.5))) / 2
    assert preference_loss(chosen, rejected, margin=0.5).item() == pytest.approx(wide)
    centred = preference_loss(chosen, rejected, centering=0.1).item()
    assert centred == pytest.approx(plain + 0.1 * (1 + 4) / 2)


def test_the_preference_loss_only_sees_differences_until_it_is_centred():
    chosen = torch.tensor([1.0, -0.3], requires_grad=True)
    rejected = torch.tensor([0.2, 0.4], requires_grad=True)
    moved = preference_loss(chosen + 7, rejected + 7)
    assert moved.item() == pytest.approx(preference_loss(chosen, rejected).item(), abs=1e-6)
    preference_loss(chosen, rejected).backward()
    assert chosen.grad.tolist() == pytest.approx((-rejected.grad).tolist())
    assert (chosen.grad < 0).all()  # a higher score of the chosen one lowers the loss


def test_figures_of_pairs_by_hand():
    """P = .75, .25 and .5: bins at .75 (one right, one wrong) and .5 (a draw)."""
    ahead = torch.tensor([math.log(3), -math.log(3), 0.0], dtype=torch.float64)
    figures, bins = compared_quality(ahead + 1, torch.ones(3))
    assert figures["accuracy"] == pytest.approx(0.5)
    assert figures["brier"] == pytest.approx((0.25**2 + 0.75**2 + 0.5**2) / 3)
    assert figures["calibration_error"] == pytest.approx(2 / 3 * 0.25)
    assert figures["held_out_pairs"] == 3 and figures["score_rejected"] == 1
    assert [row["observed"] for row in bins] == [0.5, 0.5]


def test_figures_of_classes():
    shares = torch.tensor([[0.72, 0.2, 0.08], [0.1, 0.28, 0.62], [0.04, 0.92, 0.04]])
    figures, bins = labelled_quality(shares, [0, 1, 1])
    assert figures["accuracy"] == pytest.approx(2 / 3)
    squares = [0.28, 0.2, 0.08, 0.1, 0.72, 0.62, 0.04, 0.08, 0.04]
    assert figures["brier"] == pytest.approx(sum(x * x for x in squares) / 3)
    assert figures["calibration_error"] == pytest.approx((0.28 + 0.62 + 0.08) / 3)
    assert sum(row["share"] for row in bins) == pytest.approx(1)
    two = torch.rand(50, generator=torch.Generator().manual_seed(0))
    labels = [i % 2 for i in range(50)]
    found, _ = labelled_quality(torch.stack([1 - two, two], 1), labels)
    assert found["brier"] == pytest.approx(2 * brier_score_loss(labels, two))


# -- splits -----------------------------------------------------------------------------------


def compared(prompts, answers=3):
    return [
        {"prompt": p, "chosen": f"{p} good {i}", "rejected": f"{p} bad {i}", "turns": "[]"}
        for p in prompts
        for i in range(answers)
    ]


def test_a_question_is_trained_on_or_held_out():
    config = RewardModelConfig(holdout=0.3)
    table = compared([f"q{i}" for i in range(10)])
    train, held = split_compared(table, config, word_tokenizer(), seed=1)
    asked = [{text[0] for text in part.chosen} for part in (train, held)]
    assert len(asked[1]) == 3 and len(asked[0]) == 7 and not asked[0] & asked[1]
    assert len(train.chosen) + len(held.chosen) == 30
    assert held.chosen[0][0] == held.rejected[0][0]
    assert split_compared(table, config, word_tokenizer(), seed=1) == (train, held)
    no_prompt = split_compared(compared(["", ""]), config, word_tokenizer(), seed=0)
    assert [len(part.chosen) for part in no_prompt] == [4, 2]
    with pytest.raises(DataError, match=r"data\.labels: 3 pairs with 1 different questions are t"):
        split_compared(compared(["q"]), config, word_tokenizer(), seed=0)


def test_what_is_read_of_a_pair():
    table = compared(["p", "q"], answers=1)
    reads = {}
    for text in ("response", "full", "pair"):
        config = RewardModelConfig(holdout=0.5, text=text)
        train, _ = split_compared(table, config, word_tokenizer(), seed=0)
        reads[text] = train.chosen[0]
    prompt = reads["pair"][0]
    assert reads["pair"] == (prompt, f"{prompt} good 0")
    assert reads["response"] == f"{prompt} good 0"
    assert reads["full"] == f"{prompt}\n{prompt} good 0"


def test_classes_need_texts():
    def table(**counts):
        return [{"text": f"{n} {i}", "label": n} for n, k in counts.items() for i in range(k)]

    train, held = split_labelled(table(b=20, a=20), holdout=0.25, seed=0)
    assert train.names == ("a", "b") and len(held.texts) == 10
    assert Counter(train.labels + held.labels) == {0: 20, 1: 20}
    with pytest.raises(DataError, match=r"a classifier needs two labels, got \['a'\]"):
        split_labelled(table(a=9), holdout=0.5, seed=0)
    with pytest.raises(DataError, match=r"no text is held out: give more"):
        split_labelled(table(a=2, b=2), holdout=0.1, seed=0)


# -- training ---------------------------------------------------------------------------------

SUBJECTS = ["film", "plot", "cast", "story", "music", "scene"]
SETTINGS = {"batch_size": 8, "lr": 3e-3, "holdout": 0.25, "max_tokens": 32}
PREFERENCES = Judgements(
    "preferences",
    [
        {"prompt": f"the {s} was", "chosen": good, "rejected": bad, "turns": "[]"}
        for s in SUBJECTS
        for good, bad in (("good", "bad"), ("warm", "dull"), ("funny", "slow"))
    ],
)
LABELS = Judgements(
    "labels",
    [
        {"text": f"the {s} was {word} {'it ' * i}", "label": label}
        for s in SUBJECTS
        for i in range(3)
        for word, label in (("good", "praise"), ("bad", "blame"), ("calm", "neither"))
    ],
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(folder)
    config = BertConfig.from_pretrained(folder, initializer_range=0.3)  # tells words apart
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return str(folder)


def learnt(judgements, folder, **changes):
    losses = []
    config = RewardModelConfig(**SETTINGS | changes)
    found = learn(
        judgements.kind, judgements.rows, folder, config, seed=0, device=CPU,
        log=lambda stats, step: losses.append(stats["reward_model/loss"]),
    )  # fmt: skip
    return found, losses


def test_preferences_become_a_score_that_the_reward_type_uses(encoder, tmp_path):
    found, losses = learnt(PREFERENCES, encoder, epochs=15)
    assert sum(losses[-3:]) < sum(losses[:3]) / 2
    assert found.figures["accuracy"] == 1 and found.figures["held_out_pairs"] == 6
    assert found.model.config.num_labels == 1
    found.model.save_pretrained(tmp_path)
    found.tokenizer.save_pretrained(tmp_path)
    reward = make_reward({"type": "reward_model", "model": str(tmp_path), "text": "pair"})
    batch = [Sample("the ending was", answer) for answer in ("good", "bad", "warm", "dull")]
    scores = reward.evaluate(batch).score
    assert min(scores[0], scores[2]) > max(scores[1], scores[3])
    texts = [sample.as_read("pair") for sample in batch]
    direct = outputs(found.model, found.tokenizer, texts, max_tokens=32)[:, 0]
    assert scores == pytest.approx(direct.tolist(), abs=1e-5)
    with pytest.raises(ModelError, match="was trained on text pair: set text to it"):
        make_reward({"type": "reward_model", "model": str(tmp_path)})("good")


def test_centering_keeps_the_scores_around_zero(encoder):
    free, _ = learnt(PREFERENCES, encoder, epochs=3)
    kept, _ = learnt(PREFERENCES, encoder, epochs=3, centering=1.0)
    middle = [abs(f.figures["score_chosen"] + f.figures["score_rejected"]) for f in (free, kept)]
    assert middle[1] < middle[0]


def test_the_seed_decides(encoder):
    runs = [learnt(PREFERENCES, encoder, epochs=1) for _ in range(2)]
    assert runs[0][1] == runs[1][1] and runs[0][0].figures == runs[1][0].figures


def test_labels_become_classes_that_the_reward_type_uses(encoder, tmp_path):
    found, _ = learnt(LABELS, encoder, epochs=8)
    assert found.model.config.id2label == {0: "blame", 1: "neither", 2: "praise"}
    assert found.figures["accuracy"] == 1 and set(found.figures) == {
        "accuracy", "brier", "calibration_error", "held_out_texts",
    }  # fmt: skip
    found.model.save_pretrained(tmp_path)
    found.tokenizer.save_pretrained(tmp_path)
    spec = {"type": "reward_model", "model": str(tmp_path), "activation": "sigmoid"}
    for label, word in (("praise", "good"), ("neither", "calm"), ("BLAME", "bad")):
        assert make_reward({**spec, "target": label})(f"the film was {word}") > 0.5


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_causal_lm_may_be_the_encoder(tiny_model_dir, tmp_path, kind):
    asset = fetch_encoder(str(tiny_model_dir(kind, chat=True)), tmp_path / "encoder")
    assert asset["source"] == "a local folder"
    found, losses = learnt(
        PREFERENCES, str(tmp_path / "encoder"), text="chat", num_layers_unfrozen=1, epochs=12
    )
    assert sum(losses[-3:]) < sum(losses[:3])
    assert found.tokenizer.padding_side == "right"
    trained = {n for n, p in found.model.named_parameters() if p.requires_grad}
    assert any("score" in n for n in trained) and not any("embed" in n for n in trained)
    found.model.save_pretrained(tmp_path / "out")
    found.tokenizer.save_pretrained(tmp_path / "out")
    spec = {"type": "reward_model", "model": str(tmp_path / "out"), "text": "chat"}
    one, two = Sample("the film was", "good"), Sample("the film was it", "bad it was")
    together = make_reward({**spec, "max_tokens": 32}).evaluate([one, two]).score
    chats = [s.as_read("chat", found.tokenizer) for s in (one, two)]
    direct = outputs(found.model, found.tokenizer, chats, max_tokens=32)[:, 0].tolist()
    assert together == pytest.approx(direct, abs=1e-5)


def test_chat_needs_a_template(encoder):
    with pytest.raises(ModelError, match="has no chat template: set text to pair or full"):
        learnt(PREFERENCES, encoder, text="chat")


@pytest.mark.parametrize("judgements", [PREFERENCES, LABELS], ids=lambda j: j.kind)
def test_the_stage_writes_its_outputs(encoder, tmp_path, monkeypatch, judgements):
    write_judgements(tmp_path / "data/prepared/labels.parquet", judgements)
    (tmp_path / "data/raw").mkdir()
    (tmp_path / "data/raw/encoder").symlink_to(encoder)
    monkeypatch.chdir(tmp_path)
    said = {}
    run = SimpleNamespace(log=lambda *_: None, summary=said.update, model=lambda folder: None)
    settings = RewardModelConfig(**SETTINGS, epochs=1)
    base = SimpleNamespace(seed=0, device="cpu")
    main(SimpleNamespace(reward_model=settings, base=base), run)
    figures = json.loads(Path("metrics/reward_model.json").read_text())
    assert said["accuracy"] == pytest.approx(figures["accuracy"], rel=1e-5)
    with Path("plots/reward_model_calibration.csv").open() as file:
        bins = list(csv.DictReader(file))
    assert sum(float(row["share"]) for row in bins) == pytest.approx(1, abs=1e-5)
    assert Path("models/reward_model/model.safetensors").is_file()


def test_a_share_set_apart_shares_no_text(tmp_path):
    table = [{"text": f"film {i}", "rating": float(i % 3)} for i in range(400)]
    rest, apart = set_apart(Judgements("ratings", table), 0.25)
    texts = [{row["text"] for row in side.rows} for side in (rest, apart)]
    assert not texts[0] & texts[1] and sum(map(len, texts)) == 400
    assert 70 < len(apart.rows) < 130, "about a quarter"
    assert set_apart(Judgements("ratings", table[::-1]), 0.25)[1].rows == apart.rows[::-1]
    assert not set_apart(rest, 0.0)[1].rows
    pairs = [
        {"prompt": f"q {i % 20}", "chosen": str(i), "rejected": "b", "turns": turns}
        for i, turns in enumerate(["[]", '[{"role": "user", "content": "opening"}]'] * 100)
    ]
    sides = set_apart(Judgements("preferences", pairs), 0.5)
    openings = [{r["prompt"] if r["turns"] == "[]" else "opening" for r in s.rows} for s in sides]
    assert openings[0] and openings[1] and not openings[0] & openings[1]


def test_the_stage_trains_a_judge_on_what_is_set_apart(encoder, tmp_path, monkeypatch):
    write_judgements(tmp_path / "data/prepared/labels.parquet", LABELS)
    (tmp_path / "data/raw").mkdir()
    (tmp_path / "data/raw/encoder").symlink_to(encoder)
    monkeypatch.chdir(tmp_path)
    logged: list[str] = []
    run = SimpleNamespace(
        log=lambda stats, step: logged.extend(stats), summary=lambda _: None, model=lambda _: None
    )
    settings = RewardModelConfig(**SETTINGS, epochs=1, judge_share=0.5)
    base = SimpleNamespace(seed=0, device="cpu")
    main(SimpleNamespace(reward_model=settings, base=base), run)
    figures = json.loads(Path("metrics/reward_model.json").read_text())
    assert {"held_out_texts", "judge/held_out_texts"} <= figures.keys()
    assert any(name.startswith("judge/") for name in logged)
    both = [
        Path(f"models/reward_model{at}/model.safetensors").read_bytes() for at in ("", "/judge")
    ]
    assert both[0] != both[1]
