"""The policy's own best responses as SFT targets."""

import numpy as np
import pytest
import torch

from mht.data.examples.example import collate_sft
from mht.memory import Attempt, Rows, make_memory
from mht.training.attempts import as_examples
from mht.training.hybrid import HybridTrainer
from mht.training.practice import Practice
from tests.support.training import EOS, PAD, TokenShare, examples, hybrid_config, model_of


def attempt(row, response, score, *, ended=True, step=0):
    return Attempt(
        row=row,
        prompt="",
        response="text",
        target="",
        prompt_ids=[5, 6],
        response_ids=response,
        logprobs=[-1.0] * len(response),
        ended=ended,
        score=score,
        loss=0.0,
        step=step,
    )


def memory_of(attempts, rows=10):
    data = Rows(["a"] * rows, ["b"] * rows, [[5, row] for row in range(rows)])
    memory = make_memory("adaptive", data)
    memory.remember(attempts)
    return memory


def best(memory, n=10, min_quantile=0.5, seed=0):
    return memory.best(n, np.random.default_rng(seed), min_quantile)


# -- which are best ---------------------------------------------------------------------------


def test_the_best_are_at_or_above_the_quantile():
    """Scores 0 to 9: the quantile .5 is 4.5, .9 is 8.1."""
    memory = memory_of([attempt(i, [7, EOS], float(i)) for i in range(10)])
    assert sorted(a.score for a in best(memory)) == [5, 6, 7, 8, 9]
    assert [a.score for a in best(memory, min_quantile=0.9)] == [9]
    assert len(best(memory, n=3)) == 3


def test_of_each_prompt_its_best_and_of_equals_the_newest():
    tried = [
        attempt(0, [7, EOS], 1.0),
        attempt(0, [8, EOS], 3.0),
        attempt(0, [9, EOS], 3.0),
        attempt(1, [10, EOS], 2.0),
        attempt(2, [11, EOS], 0.0),
    ]
    found = best(memory_of(tried), min_quantile=0.0)
    assert sorted(a.response_ids for a in found) == [[9, EOS], [10, EOS]]


def prompts_of(*scores):
    """A prompt for each list of scores, with a row for each score."""
    numbers = [prompt for prompt, own in enumerate(scores) for _ in own]
    data = Rows(["a"] * len(numbers), ["b"] * len(numbers), [[5, p] for p in numbers])
    memory = make_memory("adaptive", data)
    flat = [score for own in scores for score in own]
    memory.remember([attempt(row, [7, EOS], score) for row, score in enumerate(flat)])
    return memory


def test_a_hard_prompt_tried_often_teaches_its_best_and_one_tried_seldom_does_not():
    """The quantile .9 of the 22 scores is 8.3. Ten tries are enough, nine are not."""
    easy, often, seldom = [9.0, 9.0, 9.0], [0.0] * 9 + [2.0], [0.0] * 8 + [2.0]
    memory = prompts_of(easy, often, seldom)
    assert sorted(a.score for a in best(memory, min_quantile=0.9)) == [2, 9]
    assert {a.row for a in best(memory, min_quantile=0.9)} == {2, 12}
    assert len(best(memory, min_quantile=0.88)) == 3, "nine of 1 - 0.88 is more than one"


def test_of_one_prompt_what_is_no_better_than_its_mean_is_not_best():
    found = best(prompts_of([9.0, 9.0, 9.0], [0.1] * 12, [0.0]), min_quantile=0.9)
    assert [a.score for a in found] == [9], "the sum of twelve 0.1 is not 1.2"


def test_where_a_prompts_best_was_cut_the_best_that_ended_counts():
    data = Rows(["a"] * 4, ["b"] * 4, [[5], [5], [5], [6]])
    memory = make_memory("adaptive", data)
    memory.remember([
        attempt(0, [7, 8], 9.0, ended=False), attempt(1, [7, EOS], 6.0), attempt(2, [8, EOS], 0.0),
        attempt(3, [9, EOS], 9.0),
    ])  # fmt: skip
    assert sorted(a.score for a in best(memory, min_quantile=0.5)) == [6, 9]
    assert [a.score for a in best(memory, min_quantile=0.9)] == [9]


def test_a_response_that_was_cut_is_no_target():
    tried = [attempt(0, [7, 8], 9.0, ended=False), attempt(1, [7, EOS], 5.0)]
    tried += [attempt(2, [7, EOS], 0.0)]
    assert [a.row for a in best(memory_of(tried))] == [1]


def test_where_all_are_alike_nothing_is_best():
    assert best(memory_of([attempt(i, [7, EOS], 0.0) for i in range(5)])) == []
    assert best(memory_of([])) == []


# -- as targets -------------------------------------------------------------------------------


def settings(share=0.5, **changes):
    own = {"share": share, "min_quantile": 0.5}
    return {"type": "adaptive", "prompts": 0.0, "rehearsal": 1.0, "own_responses": own} | changes


def practice_of(tokenizer, memory, **changes):
    config = hybrid_config(memory=memory, sft_batch_size=8, **changes)
    return Practice(examples(tokenizer, 11), config, 0, tokenizer)


def test_the_response_is_the_target_token_by_token(tiny_tokenizer):
    """Ids that no text stands for stay as they were: nothing is tokenised again."""
    practice = practice_of(tiny_tokenizer, settings())
    odd = [300, 301, 300, EOS]
    (example,) = as_examples([attempt(3, odd, 1.0)], practice.examples([3]))
    data = practice.examples([3])[0]
    assert example.target_ids == odd
    assert example.target == "text"
    assert (example.prompt_ids, example.item) == (data.prompt_ids, data.item)
    batch = collate_sft([example], PAD)
    labels = batch["labels"][0]
    assert labels[labels != -100].tolist() == odd


@pytest.mark.parametrize(
    ("share", "rehearsal", "own"), [(0.5, 1.0, 4), (0.25, 0.5, 1), (1.0, 0.5, 4)]
)
def test_the_share_is_of_the_rehearsed_rows(tiny_tokenizer, share, rehearsal, own):
    practice = practice_of(tiny_tokenizer, settings(share, rehearsal=rehearsal))
    practice.memory.remember([attempt(i, [7, EOS], float(i)) for i in range(11)])
    found = practice.draw_own_responses()
    assert len(found) == own
    rows = practice.take_sft_rows(len(found))
    assert len(rows) == 8 - own
    assert practice.positions[0] == 8 - round(rehearsal * 8), "as many of the data as without"


def test_losses_of_own_responses_are_not_the_rows(tiny_tokenizer):
    practice = practice_of(tiny_tokenizer, settings())
    own = [attempt(3, [7, EOS], 2.0), attempt(4, [7, EOS], 4.0)]
    figures = practice.remember_examples([1, 2], [0.5, 0.25], 0, own)
    losses = practice.memory.records["sft_loss"]
    assert np.flatnonzero(~np.isnan(losses)).tolist() == [1, 2]
    assert figures["own_responses/rows"] == 2
    assert figures["own_responses/score_mean"] == 3


def test_off_means_no_draw_and_no_figure(tiny_tokenizer):
    practice = practice_of(tiny_tokenizer, settings(0.0))
    practice.memory.remember([attempt(i, [7, EOS], float(i)) for i in range(11)])
    before = practice.generator.bit_generator.state
    assert practice.draw_own_responses() == []
    assert practice.generator.bit_generator.state == before
    assert not any("own" in name for name in practice.remember_examples([1], [0.5], 0))


def test_sft_makes_the_best_responses_likelier(tiny_model_dir, tiny_tokenizer):
    """A trainer whose batches are its own best: those gain probability."""
    config = hybrid_config(memory=settings(1.0), reward=TokenShare(), sft_batch_size=4, sft_lr=1e-2)
    trainer = HybridTrainer(
        model_of(tiny_model_dir()), tiny_tokenizer, examples(tiny_tokenizer, 11),
        config=config, device="cpu",
    )  # fmt: skip
    memory = trainer.practice.memory
    tried = [attempt(i, [7, 8, 9, EOS], float(i > 5)) for i in range(11)]
    memory.remember(tried)
    ids = trainer.practice.examples([8])[0].prompt_ids
    prompt, response = torch.tensor([ids]), torch.tensor([[7, 8, 9, EOS]])

    def likelihood():
        rollout = trainer.responder.rebuild(prompt, response)
        with torch.no_grad():
            return trainer.policy.score(rollout).logprobs.sum().item()

    before = likelihood()
    for _ in range(3):
        stats = trainer.next_step("sft")
        assert stats["sft/own_responses/rows"] == 4
        assert stats["sft/own_responses/score_mean"] == 1
    assert likelihood() > before + 1
