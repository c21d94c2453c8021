"""Raw rows to prepared splits: clean, cut, remove duplicates, tokenise, split by content."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mht.config import Config, DataConfig
from mht.core.errors import DataError
from mht.core.model_files.folder import check_files, reading, stored_config
from mht.core.progress import track
from mht.core.stable_files import read_jsonl, write_json
from mht.data.examples.encoder import Encoder
from mht.data.examples.example import Example, write_table
from mht.data.examples.limits import Limits, context_of, response_lengths
from mht.data.examples.split import REWARD_MODEL, TEST, TRAIN, VALIDATION, assign, place
from mht.data.examples.tokenize import Cut, cut_row
from mht.data.judgements.judgements import write_judgements
from mht.data.prepare.labels import clean_row, judged, policy_texts
from mht.data.prepare.lengths import length_statistics, plot_lengths
from mht.data.text.sample import joiner
from mht.data.text.special import end_ids
from mht.data.text.texts import Codec
from mht.data.text.words import chunks

Row = dict[str, Any]


def prepare(
    config: Config,
    *,
    raw: str | Path = "data/raw",
    model: str | Path = "models/base",
    out: str | Path = "data/prepared",
    metrics: str | Path = "metrics/prepare.json",
    plots: str | Path = "plots",
) -> dict[str, float]:
    """Write the prepared splits, the labels, their statistics and a histogram.

    Args:
        config: the whole of params.yaml; ``data`` and the lengths of responses are read.
        raw: folder that `fetch` wrote.
        model: folder with the policy's tokenizer and config.
        out: folder for ``{train,validation,test,labels}.parquet``.
        metrics: JSON file for the statistics.
        plots: folder for ``lengths.csv`` and ``lengths.png``.

    Returns:
        The statistics, flat.

    Raises:
        DataError: a prompt is too long, or a split ends up empty.
    """
    counts: Counter[str] = Counter()
    encoder = load_encoder(config, model)
    rows = read_jsonl(Path(raw, "examples.jsonl"))
    examples, leftover = make_examples(rows, encoder, counts)
    own_labels = config.data.labels is not None and config.data.labels == config.data.source
    shares = _shares(config.data, own_labels)
    splits = assign((cut.group for cut, _ in examples), shares)
    parts = {name: _part(examples, splits, name) for name in (TRAIN, VALIDATION, TEST)}
    _check_filled(parts, config.data, counts)
    if own_labels:
        cuts = [cut for cut, _ in examples] + leftover
        kept = {c.key for c in cuts if splits.get(c.group, place(c.group, shares)) == REWARD_MODEL}
        labels = judged(rows, keep=kept)
    else:
        taken = {k for cut, _ in examples for k in policy_texts(cut)}
        labels = judged(read_jsonl(Path(raw, "labels.jsonl")), avoid=taken)
    _check_labels(labels.rows, config.data)
    for name, part in parts.items():
        write_examples(Path(out, f"{name}.parquet"), part)
    write_judgements(Path(out, "labels.parquet"), labels)
    everything = [example for part in parts.values() for example in part]
    figures: dict[str, float] = {"rows_read": len(rows), **counts, "label_texts": len(labels.rows)}
    figures |= {f"{name}_examples": len(part) for name, part in parts.items()}
    figures |= length_statistics(everything)
    write_json(metrics, figures)
    plot_lengths(everything, plots)
    return figures


def load_encoder(config: Config, model: str | Path) -> Encoder:
    """The tokenising of the policy in a folder, with the limits of its context.

    Raises:
        ModelError: the folder has no tokenizer.
        DataError: its context has no room for a prompt.
    """
    from transformers import AutoTokenizer

    trust = config.model.trust_remote_code
    with reading(f"{model}: no tokenizer there; run the stage fetch"):
        check_files(model)
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust)
        settings = stored_config(model, trust_remote_code=trust)
    tokenizer.model_max_length = 10**9  # lengths are checked here, not warned about there
    lengths = response_lengths(config)
    limits = Limits(
        config.data.max_prompt_tokens, context_of(settings), max(lengths.values()), lengths
    )
    limits.check()
    ends = end_ids(tokenizer, settings.get_text_config(), _generation(model))
    return Encoder(Codec(tokenizer, ends), config.data, limits)


def _generation(model: str | Path) -> Any:
    """The folder's settings for generation, which may name more tokens that end a response."""
    from transformers import GenerationConfig

    if not Path(model, "generation_config.json").exists():
        return None
    with reading(f"{model}: its generation_config.json can't be read"):
        return GenerationConfig.from_pretrained(model)


def make_examples(
    rows: Sequence[Row], encoder: Encoder, counts: Counter[str]
) -> tuple[list[tuple[Cut, Example]], list[Cut]]:
    """The policy's examples, each once unless ``data.duplicates`` keeps them.

    Args:
        rows: as a source gives them.
        encoder: makes the token ids.
        counts: gets how many rows were dropped, by reason.

    Returns:
        The examples with their cuts, and the cuts that are too short or too long to be one.
    """
    config = encoder.config
    counts.update(
        dict.fromkeys(
            ("dropped_empty", "dropped_short", "dropped_long_prompt", "dropped_duplicate",
             "dropped_near_duplicate", "prompts_truncated", "targets_cut"), 0,
        )
    )  # fmt: skip
    examples, leftover = [], []
    exact: set[tuple[str, str]] = set()
    seen: set[str] = set()
    for number, raw in enumerate(track(rows, "prepare"), start=1):
        row = clean_row(raw)
        if not all(row[k] for k in ("text", "prompt", "target") if k in row):
            counts["dropped_empty"] += 1
            continue
        cut = cut_row(row, config.prompt_words, config.segmenter)
        if cut.key in seen and config.duplicates == "drop":
            same = (cut.prompt, cut.target) in exact
            counts["dropped_duplicate" if same else "dropped_near_duplicate"] += 1
            continue
        seen.add(cut.key)
        exact.add((cut.prompt, cut.target))
        if cut.messages is None and _words(cut, config) < config.min_target_words:
            counts["dropped_short"] += 1
            leftover.append(cut)
            continue
        item = {**row.get("item", {}), **{k: row[k] for k in ("rating", "rejected") if k in row}}
        example = encoder.encode(cut, item, number, counts)
        if example is None:
            leftover.append(cut)
        else:
            examples.append((cut, example))
    return examples, leftover


def _words(cut: Cut, config: DataConfig) -> int:
    return len(chunks(cut.target, config.segmenter))


def _shares(config: DataConfig, own_labels: bool) -> dict[str, float]:
    splits = config.splits
    shares = {TEST: splits.test, VALIDATION: splits.validation}
    return {**shares, REWARD_MODEL: splits.reward_model} if own_labels else shares


def _part(
    examples: Iterable[tuple[Cut, Example]], splits: Mapping[str, str], name: str
) -> list[Example]:
    """A split in the order of its ids, so that its first n are a fair sample of the source."""
    return sorted((e for cut, e in examples if splits[cut.group] == name), key=lambda e: e.id)


def _check_filled(
    parts: Mapping[str, Sequence[Example]], config: DataConfig, counts: Mapping[str, int]
) -> None:
    dropped = ", ".join(f"{n} {k.removeprefix('dropped_')}" for k, n in counts.items() if n)
    found = f"dropped: {dropped or 'none'}"
    if not any(parts.values()):
        raise DataError(
            f"data.source: no texts left after cleaning ({found}). Lower data.prompt_words "
            f"({config.prompt_words}) or data.min_target_words ({config.min_target_words}), or "
            "set data.long_prompts to truncate"
        )
    for name, part in parts.items():
        if not part and name != TRAIN and not getattr(config.splits, name):
            raise DataError(f"data.splits.{name}: is 0, so the {name} split is empty: raise it")
        if not part:
            total = sum(map(len, parts.values()))
            raise DataError(
                f"data.source: the {name} split is empty, with {total} different texts in all "
                f"({found}): give more rows, at least one for each split"
            )


def _check_labels(labels: Sequence[Any], config: DataConfig) -> None:
    if labels or config.labels is None:
        return
    if config.labels != config.source:
        raise DataError("data.labels: nothing left to learn from that is not in data.source too")
    raise DataError(
        "data.splits.reward_model: nothing left for the reward model "
        f"(share {config.splits.reward_model:g}): raise it, give more rows, or set data.labels "
        "to another source or null"
    )


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    """Write a split as Parquet: the fields of `Example`, ``item`` as a JSON string."""
    import pyarrow as pa

    ids = pa.list_(pa.int64())
    text = {name: pa.string() for name in ("id", "prompt", "target")}
    columns = {**text, "prompt_ids": ids, "target_ids": ids, "item": pa.string()}
    if any(e.joiner not in (None, joiner(e.prompt, e.target)) for e in examples):
        columns["joiner"] = pa.string()  # as a reader can't infer it
    rows = [
        {**vars(e), "item": json.dumps(e.item, sort_keys=True, ensure_ascii=False)}
        for e in examples
    ]
    write_table(path, rows, pa.schema(columns))
