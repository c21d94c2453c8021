"""Decoding strategies compared: reward against KL, and against what they compute.

``python -m bench.decoding --model models/hybrid --reward params.yaml --judge vader`` writes
``decoding.csv`` and ``decoding.png`` into ``--out``. All strategies answer the same prompts with
the same reward; the judge, a metric of `evaluate` that needs only texts, guides none of them.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.core.errors import ModelError, UserError
from mht.core.progress import track
from mht.data.examples.example import Example, read_examples

if TYPE_CHECKING:
    from mht.evaluation.text_metrics import Score
    from mht.generation.decoding import Generated, Strategy
    from mht.generation.sampling.rollout import Responder
    from mht.rewards import Reward

COLUMNS = (
    *("strategy", "options", "score", "score_se", "judged", "judged_se", "kl_nats", "kl_is"),
    *("tokens_per_response", "seconds_per_response", "response_length", "acceptance_rate"),
)
Row = dict[str, Any]


def strategies(
    responder: Responder, folder: str, texts: Sequence[Example]
) -> Iterator[tuple[str, str, Strategy]]:
    """Name, options and strategy of each row; what the model's folder lacks is left out.

    Args:
        responder: of the model.
        folder: the model's, for its value head.
        texts: what the n-gram model is fitted on; none leaves it out.
    """
    from mht.generation.decoding import (
        MCMC,
        BestOfN,
        NGramSampling,
        Sampling,
        ValueGuided,
        read_value_head,
    )
    from mht.generation.decoding.ngram_model import NGram

    yield "sample", "", Sampling()
    for n in (2, 4, 8, 16):
        yield "best_of_n", f"n={n}", BestOfN(n)
    for heat in (0.3, 0.1):
        for steps in (5, 20):
            yield "mcmc", f"T={heat} steps={steps}", MCMC(steps, heat)
    try:
        head = read_value_head(responder.model, folder)
    except ModelError as error:
        print(f"note: without value-guided decoding: {error}", file=sys.stderr)
    else:
        for beta in (0.0, 1.0, 4.0, 16.0):  # 0: what the truncation to candidates does
            yield "value", f"beta={beta:g}", ValueGuided(head, beta)
    if texts:
        tokens = [e.prompt_ids + e.target_ids for e in texts]
        yield (
            "ngram",
            "order=3",
            NGramSampling(NGram.fit(tokens, vocabulary=len(responder.tokenizer))),
        )


def measure(
    responder: Responder,
    folder: str,
    examples: Sequence[Example],
    reward: Reward,
    *,
    samples: int,
    judge: Score | None = None,
    texts: Sequence[Example] = (),
    seed: int = 0,
) -> list[Row]:
    """A row of `COLUMNS` for each strategy.

    ``kl_nats`` is of the responses to what the model samples, per response, and ``kl_is`` says how
    it is known: 0 for sampling itself, an upper bound for best-of-n, measured for value-guided
    decoding. For MCMC it is estimated as that of the target that the chains go to,
    ``mean(score) / T - log mean(exp(score of samples / T))``; for the n-gram model it is not known.

    Args:
        responder: of the model.
        folder: the model's.
        examples: the prompts.
        reward: scores all and guides some.
        samples: responses to each prompt.
        judge: measures all and guides none.
        texts: for the n-gram model.
        seed: of all strategies.
    """
    from mht.generation.decoding import generate

    repeated = [e for e in examples for _ in range(samples)]
    rows: list[Row] = []
    sampled: list[float] = []
    for name, options, strategy in track(list(strategies(responder, folder, texts)), "decoding"):
        began = time.perf_counter()
        found = generate(strategy, responder, repeated, reward=reward, seed=seed)
        seconds = time.perf_counter() - began
        assert found.scored is not None
        sampled = sampled or found.scored.score
        kl, how = _kl(found, sampled, samples, getattr(strategy, "score_temperature", None))
        rows.append(
            {
                "strategy": name,
                "options": options,
                **_means("score", found.scored.score, samples),
                **_means("judged", _judged(judge, found), samples),
                "kl_nats": 0.0 if name == "sample" else kl,
                "kl_is": "exact" if name == "sample" else how,
                "tokens_per_response": round(found.computed_tokens / len(repeated), 2),
                "seconds_per_response": round(seconds / len(repeated), 4),
                "response_length": round(statistics.fmean(map(len, found.tokens)), 2),
                "acceptance_rate": found.figures.get("acceptance_rate", ""),
            }
        )
    return rows


def _judged(judge: Score | None, found: Generated) -> Sequence[float]:
    return judge(found.samples) if judge else ()


def _means(name: str, scores: Sequence[float], samples: int) -> dict[str, float | str]:
    """The mean, and its standard error over the prompts."""
    if not scores:
        return {name: "", f"{name}_se": ""}
    means = [statistics.fmean(group) for group in _groups(scores, samples)]
    spread = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return {name: round(statistics.fmean(means), 4), f"{name}_se": round(spread, 4)}


def _kl(
    found: Generated, sampled: Sequence[float], samples: int, heat: float | None
) -> tuple[float | str, str]:
    """Nats, and how they are known."""
    for name, how in (("kl_bound_nats", "upper bound"), ("kl_nats", "measured")):
        if name in found.figures:
            return round(found.figures[name], 4), how
    if heat is None or found.scored is None:
        return "", ""
    pairs = zip(_groups(found.scored.score, samples), _groups(sampled, samples), strict=True)
    return round(statistics.fmean(tilted_kl(a, b, heat) for a, b in pairs), 4), "estimate"


def tilted_kl(tilted: Sequence[float], plain: Sequence[float], heat: float) -> float:
    """Nats from ``p exp(score / heat) / Z`` to p, by scores of draws from both.

    >>> tilted_kl([1.0, 1.0], [1.0, 1.0], 0.5)
    0.0
    """
    top = max(plain)
    log_z = top / heat + math.log(statistics.fmean(math.exp((s - top) / heat) for s in plain))
    return statistics.fmean(tilted) / heat - log_z


def metric_of_texts(name: str) -> Score:
    """A metric that needs no model.

    Raises:
        UserError: there is none of that name.
    """
    from mht.evaluation.text_metrics import SCORES

    if name not in SCORES:
        raise UserError(f"--judge: should be one of {', '.join(SCORES)}; got {name!r}")
    return SCORES[name]


def _groups(values: Sequence[float], size: int) -> list[Sequence[float]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Score against KL, and against computed tokens."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    panels = (
        ("kl_nats", "KL to sampling (nats per response)"),
        ("tokens_per_response", "Tokens computed per response"),
    )
    for axis, (column, label) in zip(axes, panels, strict=True):
        for number, name in enumerate(dict.fromkeys(row["strategy"] for row in rows)):
            own = [r for r in rows if r["strategy"] == name and r[column] not in ("", 0)]
            if name == "sample" and column == "kl_nats":
                own = [r for r in rows if r["strategy"] == name]
            own.sort(key=lambda row: row[column])
            axis.errorbar(
                [r[column] for r in own],
                [r["score"] for r in own],
                yerr=[r["score_se"] for r in own],
                marker="o",
                linestyle="-" if name == "best_of_n" else "none",
                capsize=2,
                color=f"C{number}",
                label=name,
            )
            for row in own:
                axis.annotate(row["options"], (row[column], row["score"]), fontsize=6)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("Score")
    axes[1].set_xscale("log")
    axes[1].legend(fontsize=8)
    figure.savefig(path, dpi=150)


def write(rows: Sequence[Row], out: Path) -> None:
    """``decoding.csv`` and ``decoding.png`` in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "decoding.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        lines.writeheader()
        lines.writerows(rows)
    draw(rows, out / "decoding.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 2 after a mistake of the user's."""
    from mht.cli.generate import make_responder, read_reward

    parser = argparse.ArgumentParser(prog="python -m bench.decoding", description=__doc__)
    parser.add_argument("--model", default="models/hybrid")
    parser.add_argument("--reward", default="params.yaml", help="as for mht generate")
    parser.add_argument("--judge", help="a metric of the texts, such as vader")
    parser.add_argument("--prompts", type=Path, default=Path("data/prepared/test.parquet"))
    parser.add_argument("--texts", type=Path, default=Path("data/prepared/train.parquet"))
    parser.add_argument("--count", type=int, default=16, help="prompts")
    parser.add_argument("--samples", type=int, default=4, help="responses to each prompt")
    parser.add_argument("--response-tokens", type=int, default=20)
    parser.add_argument("--temperature", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("reports/decoding"))
    given = parser.parse_args(arguments)
    try:
        reward = read_reward(given.reward)
        judge = metric_of_texts(given.judge) if given.judge else None
        decoding = {"response_tokens": given.response_tokens, "temperature": given.temperature}
        rows = measure(
            make_responder(given.model, "auto", "float32", decoding),
            given.model,
            read_examples(given.prompts)[: given.count],
            reward,
            samples=given.samples,
            judge=judge,
            texts=read_examples(given.texts) if given.texts.exists() else (),
            seed=given.seed,
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    write(rows, given.out)
    for row in rows:
        judged = "  judged {judged:.3f} +- {judged_se:.3f}" if given.judge else ""
        line = "{strategy:10} {options:16} {score:8.3f} +- {score_se:.3f}" + judged
        print(line.format(**row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
