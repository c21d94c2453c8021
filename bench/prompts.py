"""What several responses to a prompt save: ``python -m bench.prompts``.

PPO steps of the task support from its base model, with one response to each prompt and with as many
as it says, in turn. Prints the seconds of sampling and of the whole step, and what part of
the scores' variance is the prompts'. Needs ``mht apply support`` and ``dvc repro prepare`` before.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

import stages  # noqa: F401 - the process as a stage of the pipeline sets it up
from bench.figures import spread
from mht.config import Config, load_config
from mht.data.examples.example import read_examples
from mht.training.from_config import make_trainer
from mht.training.hybrid import HybridTrainer, Stats

BASE, ROWS = Path("models/base"), Path("data/prepared/train.parquet")
ROUNDS = 2


def trainer_of(config: Config, each: int) -> HybridTrainer:
    """The experiment's hybrid from its base model, with so many responses to each prompt."""
    settings = config.ppo.model_copy(update={"responses_per_prompt": each})
    rows = read_examples(ROWS)
    return make_trainer(BASE, rows, settings, section="ppo", base=config.base, model=config.model)


def tell(steps: dict[int, list[Stats]]) -> Table:
    """A line for each number of responses to a prompt: medians, and their least and most."""
    table = Table("responses to a prompt", "sampling s", "step s", "variance of the prompts")
    for each, figures in steps.items():
        cells = []
        for name in ("sample_s", "step_s"):
            taken = spread([step[f"ppo/time/{name}"] for step in figures])
            median, least, most = (f"{value:.1f}" for value in taken.values())
            cells.append(f"{median} ({least} to {most})")
        shares = [
            1 - (step["ppo/score/std_within_prompts"] / step["ppo/score/std"]) ** 2
            for step in figures
            if "ppo/score/std_within_prompts" in step
        ]
        cells.append(f"{sum(shares) / len(shares):.0%}" if shares else "")
        table.add_row(str(each), *cells)
    return table


def main() -> int:
    """Take turns, then print the table and the ratio of the steps."""
    config = load_config()
    if config.data.source.type != "support" or not ROWS.is_file():
        print("first run `mht apply support`, then `dvc repro prepare`", file=sys.stderr)
        return 2
    numbers = (1, config.ppo.responses_per_prompt)
    trainers = {each: trainer_of(config, each) for each in numbers}
    steps: dict[int, list[Stats]] = {each: [] for each in numbers}
    for _ in range(ROUNDS):
        for each, trainer in trainers.items():
            steps[each].append(trainer.next_step("ppo"))
    Console(width=110).print(tell(steps))
    ratios = [
        one["ppo/time/step_s"] / several["ppo/time/step_s"]
        for one, several in zip(*steps.values(), strict=True)
    ]
    median, least, most = spread(ratios).values()
    print(f"A step with {numbers[1]} is {median:.2f} ({least:.2f} to {most:.2f}) times as fast.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
