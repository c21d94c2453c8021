"""`mht generate`: answers from a model, by any decoding strategy, with their scores."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mht.core.errors import DataError, UserError
from mht.rewards.spec import read_reward

if TYPE_CHECKING:
    from mht.generation.decoding import Generated, Strategy
    from mht.generation.decoding.ngram_model import NGram
    from mht.generation.sampling.rollout import Responder


class Kind(StrEnum):
    """The strategies by name."""

    sample = "sample"
    best_of_n = "best_of_n"
    value = "value"
    mcmc = "mcmc"
    ngram = "ngram"


class Source(StrEnum):
    """Where MCMC's proposals come from."""

    model = "model"
    ngram = "ngram"


def generate(
    prompts: Annotated[
        list[str] | None, typer.Argument(help="prompts; none reads them from --file or stdin")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="a prompt on each line")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="prompts are a user's messages, for a chat template")
    ] = False,
    model: Annotated[str, typer.Option(help="a folder or a hub name")] = "models/hybrid",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16 or auto, as model.dtype")
    ] = "float32",
    strategy: Annotated[Kind, typer.Option(help="how responses are found")] = Kind.sample,
    reward: Annotated[
        str | None,
        typer.Option(
            help="scores the responses: a type such as readability, YAML or JSON as in params.yaml,"
            " or a file of it; of params.yaml itself, ppo.reward"
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="responses to each prompt")] = 1,
    response_tokens: Annotated[int | None, typer.Option(min=1, help="length limit")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 is greedy")] = None,
    top_k: Annotated[
        int | None, typer.Option(min=0, help="keep the k likeliest tokens; 0: all")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="keep the smallest set with this probability")
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="keep what has this share of the likeliest's"),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="best_of_n: responses to choose from")] = 8,
    beta: Annotated[float, typer.Option(help="value: nats for a unit of value")] = 1.0,
    candidates: Annotated[int, typer.Option(help="value: tokens looked at in each step")] = 8,
    steps: Annotated[int, typer.Option(help="mcmc: proposals")] = 20,
    score_temperature: Annotated[
        float, typer.Option(help="mcmc: the smaller, the more the score counts")
    ] = 0.1,
    burn_in: Annotated[int, typer.Option(help="mcmc: steps before a state is kept")] = 0,
    thin: Annotated[int, typer.Option(help="mcmc: every such state is kept")] = 1,
    proposal: Annotated[Source, typer.Option(help="mcmc: where endings come from")] = Source.model,
    ngram_order: Annotated[int, typer.Option(help="ngram: tokens in an n-gram")] = 3,
    ngram_data: Annotated[
        Path, typer.Option(help="ngram: the prepared texts that it is fitted on")
    ] = Path("data/prepared/train.parquet"),
    seed: Annotated[int, typer.Option(help="of all random numbers", min=0, max=2**63 - 1)] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="prompts at once")] = 32,
    show_all: Annotated[
        bool, typer.Option("--all", help="every response that best_of_n or mcmc looked at")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Answer prompts with a model: sampling, best-of-n, value-guided, MCMC, an n-gram model.

    Responses are drawn as `evaluate.decoding` of params.yaml says, but for the options given.
    --reward guides best_of_n and mcmc. For the other strategies it only scores.

    docs/howto/generation.md
    """
    texts = _prompts(prompts, file)
    scores = read_reward(reward) if reward else None
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"--top-p: should be above 0 and at most 1, got {top_p}")
    if scores is None and strategy in (Kind.best_of_n, Kind.mcmc):
        raise UserError(f"--strategy {strategy}: needs a reward to guide it: give --reward")

    from mht.generation.decoding import MCMC, BestOfN, NGramSampling, Sampling, prompt_examples
    from mht.generation.decoding import generate as answered
    from mht.pipeline.stage import prepare_process

    prepare_process("generate")
    decoding = _decoding(
        response_tokens=response_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
    )

    def ngram() -> NGram:
        return _ngram(ngram_data, ngram_order, responder)

    def guided() -> Strategy:
        from mht.generation.decoding import ValueGuided, read_value_head

        head = read_value_head(responder.model, model)
        return ValueGuided(head, beta=beta, candidates=candidates)

    def chains() -> Strategy:
        source = ngram() if proposal is Source.ngram else None
        return MCMC(steps, score_temperature, burn_in, thin, source)

    made: dict[Kind, Callable[[], Strategy]] = {
        Kind.sample: Sampling,
        Kind.best_of_n: lambda: BestOfN(n),
        Kind.value: guided,
        Kind.mcmc: chains,
        Kind.ngram: lambda: NGramSampling(ngram()),
    }
    responder = make_responder(model, device, dtype, decoding)
    examples = prompt_examples(
        responder.tokenizer,
        [text for text in texts for _ in range(samples)],
        chat=chat,
        codec=responder.codec,
    )
    found = answered(
        made[strategy](), responder, examples, reward=scores, seed=seed, batch_size=batch_size
    )
    if as_json:
        typer.echo(json.dumps(as_data(strategy, found, show_all=show_all), ensure_ascii=False))
    else:
        show(found, show_all=show_all)


def _prompts(given: list[str] | None, file: Path | None) -> list[str]:
    from mht.data.sources import OptionError
    from mht.data.sources.cells import has_half
    from mht.data.sources.reading import read_bytes

    if given and file:
        raise UserError("prompts: give them as arguments or by --file, not both")
    if given:
        wrong = next((text for text in given if has_half(text)), None)
        if wrong is not None:
            raise UserError(f"prompts: {wrong!r:.80} is not UTF-8")
        return given
    if file:
        try:
            return prompts_of(read_bytes(str(file)), str(file))
        except OptionError as error:
            raise DataError(f"{file}: can't be read ({error.message})") from None
    if sys.stdin.isatty():
        raise UserError('prompts: none given: write them after the command: mht generate "..."')
    return prompts_of(sys.stdin.buffer.read(), "stdin")


def prompts_of(data: bytes, place: str) -> list[str]:
    r"""The prompt on each line of a UTF-8 file; a line ends with \n or \r\n alone.

    Raises:
        DataError: a byte is not UTF-8, with its line; or no line holds a prompt.

    >>> prompts_of("\ufeffone\u2028still one\r\n\ntwo\n".encode(), "prompts.txt")
    ['one\u2028still one', 'two']
    """
    from mht.data.sources.reading import decode, lines_of

    lines = [line for _, line in lines_of(decode(data, place))]
    if not lines:
        raise DataError(f"{place}: has no prompt; one stands on each line")
    return lines


def _decoding(**given: float | int | None) -> dict[str, float | int]:
    """How responses are drawn: as the evaluation does, but for the options that were given."""
    from mht.config import load_config
    from mht.config.evaluation import DecodingConfig

    project = Path("params.yaml")
    usual = load_config(project).evaluate.decoding if project.is_file() else DecodingConfig()
    return usual.model_dump() | {name: value for name, value in given.items() if value is not None}


def make_responder(
    model: str, device: str, dtype: str, decoding: Mapping[str, float | int]
) -> Responder:
    """A model with its tokenizer, ready to write.

    Args:
        model: a folder or a hub name.
        device: as ``base.device``.
        dtype: as ``model.dtype``.
        decoding: see `mht.generation.sampling.rollout.Responder`.
    """
    from mht.assets.padding import set_pad
    from mht.generation.sampling.rollout import Responder
    from mht.models.loading import load_causal_lm, load_tokenizer, resolve_device
    from mht.models.precision import resolve_dtype

    where = resolve_device(device)
    loaded = load_causal_lm(model, dtype=resolve_dtype(dtype, where), device=where)
    tokenizer = load_tokenizer(model)
    set_pad(loaded, tokenizer)
    return Responder(loaded.requires_grad_(False), tokenizer, decoding)


def _ngram(data: Path, order: int, responder: Responder) -> NGram:
    from mht.data.examples.example import read_examples
    from mht.generation.decoding.ngram_model import NGram

    texts = [e.prompt_ids + e.target_ids for e in read_examples(data)]
    return NGram.fit(texts, vocabulary=len(responder.tokenizer), order=order)


def as_data(strategy: str, found: Generated, *, show_all: bool = False) -> dict[str, Any]:
    """What ``--json`` prints, as plain data."""
    rows: list[dict[str, Any]] = []
    for i, sample in enumerate(found.samples):
        row: dict[str, Any] = {"prompt": sample.prompt, "response": sample.response}
        row["tokens"] = len(found.tokens[i])
        if found.scored:
            row["score"] = found.scored.score[i]
            row["components"] = {k: v[i] for k, v in found.scored.components.items()}
        if show_all and found.drawn:
            pairs = zip(found.drawn[i], found.drawn_scores[i], strict=True)
            row["drawn"] = [{"response": s.response, "score": score} for s, score in pairs]
        rows.append(row)
    return {
        "strategy": str(strategy),
        "figures": dict(found.figures),
        "computed_tokens": found.computed_tokens,
        "responses": rows,
    }


def show(found: Generated, *, show_all: bool = False) -> None:
    """A table on stdout: prompts, responses, scores; the strategy's figures below it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=True)
    for column in ("prompt", "response"):
        table.add_column(column)
    if found.scored:
        table.add_column("score", justify="right")
    for i, sample in enumerate(found.samples):
        cells = [Text(sample.prompt), Text(sample.response)]
        score = [f"{found.scored.score[i]:.3f}"] if found.scored else []
        table.add_row(*cells, *score, style="bold" if show_all and found.drawn else None)
        if show_all and found.drawn:
            for each, value in zip(found.drawn[i], found.drawn_scores[i], strict=True):
                table.add_row("", Text(each.response), f"{value:.3f}")
    console = Console()
    console.print(table)
    figures = {**found.figures, "computed_tokens": found.computed_tokens}
    console.print("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
