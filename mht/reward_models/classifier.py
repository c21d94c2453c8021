"""Fine-tuning an encoder, or a causal LM, with a new head that scores texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mht.core.errors import ModelError
from mht.core.model_files.checks import check_tokenizer, check_weights
from mht.core.model_files.folder import check_files, reading
from mht.core.progress import track
from mht.data.examples.order import bucketed
from mht.data.text.truncation import token_limit
from mht.reward_models.judged import NAMES, Compared, Rated, Text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mht.config import RewardModelConfig


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """The encoder's tokenizer.

    Raises:
        ModelError: the folder holds none.
    """
    from transformers import AutoTokenizer

    with reading(_no_encoder(folder)):
        check_files(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        check_tokenizer(tokenizer)
    return tokenizer


def _no_encoder(folder: str) -> str:
    return f"reward_model.encoder: {folder} holds no encoder"


def load_encoder(
    folder: str, names: Sequence[str] = NAMES
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder with a new head of one output for each name, and its tokenizer.

    A causal LM gets a head on its last token.

    Raises:
        ModelError: the folder holds neither.
    """
    from transformers import AutoModelForSequenceClassification

    labels = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    tokenizer = load_tokenizer(folder)
    with reading(_no_encoder(folder)):
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=len(names), dtype=torch.float32, **labels
        )
        check_weights(model)
        check_tokenizer(tokenizer, model)
    if tokenizer.pad_token_id is None:
        raise ModelError(f"reward_model.encoder: the tokenizer of {folder} has no padding token")
    if model.config.pad_token_id is None:  # a causal LM looks for its last token before it
        model.config.pad_token_id = tokenizer.pad_token_id
    if hasattr(model, "score"):  # a causal LM: it counts positions from the first token
        tokenizer.padding_side = "right"
    return model, tokenizer


def _check_fits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: RewardModelConfig
) -> None:
    room = token_limit(model, tokenizer)
    if room is not None and config.max_tokens > room:
        raise ModelError(
            f"reward_model.max_tokens: {config.max_tokens} is more than the encoder's {room}"
        )


def train_classifier(
    folder: str,
    train: Rated | Compared,
    config: RewardModelConfig,
    *,
    seed: int,
    device: torch.device,
    log: Callable[[dict[str, float], int], None],
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Fine-tune the encoder: on labels by cross-entropy, on pairs by `preference_loss`.

    Args:
        folder: the encoder's.
        train: texts and labels, or pairs of texts.
        config: how long, how fast, how many layers.
        seed: of the new head and the order of the texts.
        device: where to train.
        log: called with each step's loss.

    Raises:
        ModelError: the folder holds no encoder, or not one that these settings fit.
    """
    from transformers import get_scheduler

    torch.manual_seed(seed)
    model, tokenizer = load_encoder(folder, train.names)
    _check_fits(model, tokenizer, config)
    model.to(device).eval()  # without dropout
    _freeze(model, config)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=0.01)
    steps = config.epochs * -(-len(train.lengths()) // config.batch_size)
    scheduler = get_scheduler("linear", optimizer, steps // 10, steps)
    batches = _batches(train, tokenizer, config, seed)
    with track(batches, "classifier", total=steps) as bar:
        for step, (batch, index) in enumerate(batches, start=1):
            loss = train.loss(model(**batch.to(device)).logits, index)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            scheduler.step()
            log({"reward_model/loss": loss.item()}, step)
            bar.figures(loss=loss.item())
            bar.advance()
    return model, tokenizer


def _freeze(model: PreTrainedModel, config: RewardModelConfig) -> None:
    """Freeze all but the head and the top layers, if the settings ask for it."""
    wanted = config.num_layers_unfrozen
    if wanted == "all":
        return
    layers = _encoder_layers(model)
    if wanted > len(layers):
        raise ModelError(
            f"reward_model.num_layers_unfrozen: {wanted} is more than the encoder's {len(layers)}"
        )
    model.base_model.requires_grad_(False)
    for layer in list(layers)[len(layers) - wanted :]:
        layer.requires_grad_(True)
    if getattr(model.base_model, "pooler", None) is not None:
        model.base_model.pooler.requires_grad_(True)


def _encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    count = model.config.num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(
        f"reward_model.num_layers_unfrozen: {type(model).__name__} has no list of {count} layers; "
        "set it to 'all'"
    )


def _batches(
    train: Rated | Compared,
    tokenizer: PreTrainedTokenizerBase,
    config: RewardModelConfig,
    seed: int,
) -> Iterator[tuple[Any, list[int]]]:
    shuffle = torch.Generator().manual_seed(seed)
    lengths = train.lengths()
    for _ in range(config.epochs):
        order = bucketed(lengths, config.batch_size, shuffle)
        for start in range(0, len(order), config.batch_size):
            index = order[start : start + config.batch_size]
            yield _encode(tokenizer, train.batch(index), config.max_tokens), index


def _encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], max_tokens: int | None
) -> Any:
    """The texts as a padded batch; long texts are cut, in a pair the longer text first."""
    first = [text if isinstance(text, str) else text[0] for text in texts]
    second = [text[1] for text in texts if not isinstance(text, str)] or None
    return tokenizer(
        first, second, return_tensors="pt", padding=True, truncation=True, max_length=max_tokens
    )


@torch.no_grad()
def outputs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    *,
    max_tokens: int,
    batch_size: int = 64,
) -> Tensor:
    """(N, outputs) float32 on the CPU: the logits of each text."""
    found = []
    for start in range(0, len(texts), batch_size):
        batch = _encode(tokenizer, texts[start : start + batch_size], max_tokens)
        found.append(model(**batch.to(model.device)).logits.float().cpu())
    return torch.cat(found)
