"""A task from an installed package: its data, reward and settings, in the real pipeline."""

import json

from tests.support.plugins import Toy

pytest_plugins = ["tests.support.plugins"]

COUNTING = '''
from mht.data.sources.base import Source
from mht.rewards import Reward

WORDS = "the a film story of man dog old and warm".split()


class Counting(Source):
    """Sentences of known words, as prompts and targets."""

    count: int = 60

    def rows(self):
        words = len(WORDS)
        return [
            {
                "prompt": f"number {n} : {WORDS[n % words]} {WORDS[n // words]}",
                "target": f" {WORDS[(n + 1) % words]} .",
                "item": {"number": n},
            }
            for n in range(self.count)
        ]


class Even(Reward):
    """1 where a response has an even number of words, else 0."""

    score_range = (0.0, 1.0)

    def score(self, samples):
        return [float(len(sample.response.split()) % 2 == 0) for sample in samples]
'''

SETTINGS = """
data:
  source: {type: counting, count: 80}
ppo:
  reward: {type: even}
"""


TOY = Toy(
    "acme_counting",
    COUNTING,
    {
        "source": {"counting": "Counting"},
        "reward": {"even": "Even"},
        "task": {"counting": "acme_counting"},
    },
    settings=SETTINGS,
)


def test_a_task_from_outside_runs_in_the_pipeline(foreign):
    rows = (foreign.path / "data/raw/examples.jsonl").read_text().splitlines()
    assert len(rows) == 80 and json.loads(rows[3])["item"] == {"number": 3}
    scores = [row["ppo/score/mean"] for row in foreign.curve("hybrid", "ppo")]
    assert scores and all(0 <= score <= 1 for score in scores)
