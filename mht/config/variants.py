"""The variants of an experiment: the rows of ``baselines`` and those of ``untrained``.

Stages, checks, report and command line have them from `variants_of` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mht.config.overlays.layers import lay_over
from mht.config.training import HybridConfig
from mht.core.bounds import Label
from mht.core.component import Section, did_you_mean

if TYPE_CHECKING:
    from mht.config import Config

STARTS = ("base", "sft")  # models that are there before the cycles: fetched, and fine-tuned
TAKEN = (*STARTS, "reward_model")  # folders of models/ that other stages write


class BaselineConfig(HybridConfig):
    """One variant: the model that it starts from, and the settings of its cycles.

    Attributes:
        start: "base" (the fetched model), "sft" (the fine-tuned one), or another variant.
        like: "ppo" takes the settings of ``ppo``, except those that stand here.
    """

    start: Label
    like: Literal["ppo"] | None = None


class UntrainedConfig(Section):
    """A model that is measured as it is.

    Attributes:
        start: "base" or "sft", its folder in models/; also the row's name.
    """

    start: Literal["base", "sft"]


@dataclass(frozen=True)
class Variant:
    """A variant as the stages see it.

    Attributes:
        name: of its folders and its column.
        start: the model that it starts from; models/<start>.
        settings: of its cycles; None if it is measured as it is.
        optimizer_steps: that its weights have seen, those of its start included.
        sft_rows: rows of SFT batches that its start has seen.
    """

    name: str
    start: str
    settings: BaselineConfig | None
    optimizer_steps: int
    sft_rows: int = 0

    @property
    def section(self) -> str:
        """The place of its settings in params.yaml, for messages."""
        return "ppo" if self.settings and self.settings.like else f"baselines.{self.name}"

    @property
    def has_ppo(self) -> bool:
        """Whether some of its steps are PPO's."""
        return self.settings is not None and self.settings.steps[1] > 0

    def as_plain(self) -> dict[str, Any]:
        """Everything that decides its training, as plain data."""
        own = self.settings
        return {
            "name": self.name,
            "start": self.start,
            "settings": own and own.model_dump(mode="json", exclude={"start", "like"}),
            "optimizer_steps": self.optimizer_steps,
        }


def variants_of(config: Config) -> dict[str, Variant]:
    """All variants by name, in the order of tables: the untrained ones, then the baselines."""
    steps = {"base": 0, "sft": config.sft.steps}
    untrained = {
        name: Variant(name, row.start, None, steps[row.start])
        for name, row in config.untrained.items()
    }
    rows = {"base": 0, "sft": config.sft.steps * config.sft.batch_size}
    for name in in_order(config.baselines):
        row = config.baselines[name]
        steps[name] = steps[row.start] + row.optimizer_steps
        rows[name] = rows[row.start] + row.steps[0] * row.sft_batch_size
    trained = {
        name: Variant(name, row.start, row, steps[name], rows[row.start])
        for name, row in config.baselines.items()
    }
    return {**untrained, **trained}


def loops_of(config: Config) -> dict[str, HybridConfig]:
    """Every section of cycles by its place in params.yaml; a row that only repeats ppo is none."""
    ppo = config.ppo.model_dump()
    rows = {
        f"baselines.{name}": row
        for name, row in config.baselines.items()
        if row.model_dump(exclude={"start", "like"}) != ppo
    }
    return {"ppo": config.ppo, **rows}


def in_order(rows: Mapping[str, BaselineConfig]) -> list[str]:
    """The names so that each comes after the variant that it starts from."""
    found: list[str] = []
    while len(found) < len(rows):
        found += [
            name
            for name, row in rows.items()
            if name not in found and (row.start in STARTS or row.start in found)
        ]
    return found


def resolve_rows(rows: Any, ppo: HybridConfig | None) -> Any:
    """The rows with the settings of ``ppo`` below those that say ``like: ppo``.

    Args:
        rows: plain data of ``baselines``.
        ppo: the checked section; None if it is wrong, which is reported by itself: the rows that
            need it are left out.
    """
    if not isinstance(rows, Mapping):
        return rows
    found = {}
    for name, row in rows.items():
        if not isinstance(row, Mapping) or row.get("like") != "ppo":
            found[name] = row
        elif ppo is not None:
            found[name] = ppo.model_dump()
            lay_over(found[name], row)
    return found


def written_rows(
    rows: Mapping[str, BaselineConfig], ppo: HybridConfig, mode: str
) -> dict[str, dict[str, Any]]:
    """Plain data of ``baselines``, from which `resolve_rows` makes the same rows.

    Args:
        rows: resolved; one with ``like: ppo`` says only in what it differs.
        ppo: the section that such rows follow.
        mode: pydantic's: "python" or "json".
    """
    found, above = {}, ppo.model_dump(mode=mode)
    for name, row in rows.items():
        plain = row.model_dump(mode=mode)
        own = {key: v for key, v in plain.items() if key not in above or above[key] != v}
        found[name] = own if row.like else plain
    return found


def untrained_problems(rows: Mapping[str, UntrainedConfig]) -> Iterator[tuple[str, str]]:
    """Key and sentence for each row whose name is not its model's."""
    for name, row in rows.items():
        if name != row.start:
            yield f"untrained.{name}", f"is measured in models/{row.start}: call it {row.start}"


def row_problems(rows: Mapping[str, BaselineConfig]) -> Iterator[tuple[str, str]]:
    """Key and sentence for each row whose name or start can't be."""
    known = [*STARTS, *rows]
    for name, row in rows.items():
        if name in TAKEN:
            yield f"baselines.{name}", f"models/{name} is another stage's: choose another name"
        if row.start not in known:
            close = did_you_mean(row.start, known)
            what = f"no such model {row.start!r}{close}. There are {', '.join(known)}"
            yield f"baselines.{name}.start", what
        elif name in _chain(rows, row.start):
            yield f"baselines.{name}.start", f"{row.start} starts from {name} itself: set base"


def choice_problems(key: str, chosen: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Key and sentence where a setting names no variant."""
    if chosen not in names:
        close = did_you_mean(chosen, names)
        yield key, f"no such variant {chosen!r}{close}. There are {', '.join(names)}"


def _chain(rows: Mapping[str, BaselineConfig], start: str) -> list[str]:
    """The variants that lead to a start, itself first."""
    found: list[str] = []
    while start in rows and start not in found:
        found.append(start)
        start = rows[start].start
    return found
