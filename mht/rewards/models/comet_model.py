"""COMET's regression model on transformers, read from its official checkpoints.

Rei et al. 2020 (arXiv:2009.09025); the layout and the arithmetic are those of unbabel-comet 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mht.core.errors import ModelError, first_line
from mht.core.model_files.checks import check_tensors
from mht.data.text.special import broken_up
from mht.data.text.truncation import token_limit, valid_unicode
from mht.rewards.models.shared import load, padded_batches, quiet

HPARAMS, CHECKPOINT = "hparams.yaml", "checkpoints/model.ckpt"
ACTIVATIONS = ("GELU", "LeakyReLU", "ReLU", "Sigmoid", "SiLU", "Tanh")
NOT_NEEDED = ("encoder.model.pooler.", "layerwise_attention.dropout_")


def weights_of(folder: Path) -> Path:
    """The file with a checkpoint's weights: model.safetensors where there is one."""
    safe = (folder / CHECKPOINT).with_suffix(".safetensors")
    return safe if safe.is_file() else folder / CHECKPOINT


def comet_model(model: str, encoder: str | None, device: str) -> CometModel:
    """The shared model of a checkpoint's folder.

    Raises:
        ModelError: checkpoint or encoder can't be had, or it is no regression metric.
    """
    folder = Path(model).expanduser().resolve()
    settings = read_settings(folder)
    name = encoder or settings.get("pretrained_model")
    if not isinstance(name, str):
        raise ModelError(f"{folder / HPARAMS}: pretrained_model is {name!r}: set encoder")
    stamp = weights_of(folder).stat().st_mtime_ns
    return load(name, device, "COMET encoder", CometModel, str(folder), stamp)


def read_settings(folder: Path) -> dict[str, Any]:
    """What hparams.yaml says, with the defaults of what older ones leave out.

    Raises:
        ModelError: it is of another kind of metric.
    """
    from ruamel.yaml import YAML, YAMLError

    try:
        found = YAML(typ="safe").load((folder / HPARAMS).read_text("utf-8"))
        assert isinstance(found, Mapping), "it holds no mapping"
    except (YAMLError, OSError, ValueError, AssertionError, RecursionError) as error:
        raise ModelError(f"{folder / HPARAMS} can't be read ({first_line(error)})") from None
    settings = {"layer_norm": True, "layer_transformation": "softmax", "layer": "mix", **found}
    settings.setdefault("final_activation", None)
    known = {
        "class_identifier": ("regression_metric",),
        "encoder_model": ("XLM-RoBERTa", "BERT"),
        "pool": ("avg", "cls", "max"),
        "activations": ACTIVATIONS,
        "final_activation": (None, *ACTIVATIONS),
    }
    for key, choices in known.items():
        if settings.get(key) not in choices:
            what = f"{key} is {settings.get(key)!r}, not {' or '.join(map(str, choices))}"
            raise ModelError(
                f"{folder / HPARAMS}: {what}: take a metric such as Unbabel/wmt22-comet-da"
            )
    return settings


class CometModel:
    """Encoder, layer mix and estimator.

    Args:
        encoder: folder with the encoder's config and tokenizer; its weights are the checkpoint's.
        device: a torch device.
        folder: the checkpoint's.
        stamp: tells one version of the checkpoint from another.
    """

    def __init__(self, encoder: str, device: str, folder: str, stamp: int):
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        self.settings = read_settings(Path(folder))
        self.device = device
        config = AutoConfig.from_pretrained(encoder, local_files_only=True)
        self.tokenizer = AutoTokenizer.from_pretrained(encoder, local_files_only=True)
        self.encoder = AutoModel.from_config(config, add_pooling_layer=False)
        self.estimator = self._network(config.hidden_size * 6)
        weights = _weights(weights_of(Path(folder)))
        _fill(self.encoder, weights, "encoder.model.")
        _fill(self.estimator, weights, "estimator.ff.")
        self.mix = self._layer_weights(weights, config.num_hidden_layers + 1)
        known = ("encoder.model.", "estimator.ff.", "layerwise_attention.")
        other = sorted(key for key in weights if not key.startswith(known))
        if other:
            raise ValueError(f"its checkpoint has weights of something else: {other[0]}")
        self.encoder.float().to(device).eval()
        self.estimator.float().to(device).eval()
        limit = token_limit(self.encoder, self.tokenizer)
        theirs = config.max_position_embeddings - 4  # as unbabel-comet cuts
        self.limit = min(theirs, limit or theirs)

    def _network(self, width: int) -> Any:
        from torch import nn

        layers: list[Any] = []
        for size in self.settings["hidden_sizes"]:
            activation = getattr(nn, self.settings["activations"])()
            layers += [nn.Linear(width, size), activation, nn.Dropout(0.0)]
            width = size
        layers.append(nn.Linear(width, 1))
        if self.settings["final_activation"]:
            layers.append(getattr(nn, self.settings["final_activation"])())
        return nn.Sequential(*layers)

    def _layer_weights(self, weights: Mapping[str, Any], layers: int) -> Any:
        """(layers,) what each hidden state, the embeddings' first, counts in the mix."""
        import torch

        if self.settings["layer"] != "mix":
            return torch.nn.functional.one_hot(torch.tensor(self.settings["layer"]), layers).float()
        start = "layerwise_attention."
        values = torch.cat([weights[f"{start}scalar_parameters.{i}"] for i in range(layers)])
        sparse = self.settings["layer_transformation"] == "sparsemax"
        shares = sparsemax(values.float()) if sparse else values.float().softmax(0)
        return shares * weights[f"{start}gamma"].float()

    def scores(self, triples: Sequence[Any], batch_size: int) -> list[float]:
        """The estimate for each (source, translation, reference); each text is embedded once."""
        import torch

        texts = sorted({text for triple in triples for text in triple})
        place = {text: i for i, text in enumerate(texts)}
        rows = self._embed(
            [broken_up(valid_unicode(text), self.tokenizer) for text in texts], batch_size
        )
        src, mt, ref = (rows[[place[triple[k]] for triple in triples]] for k in range(3))
        parts = [mt, ref, mt * ref, (mt - ref).abs(), mt * src, (mt - src).abs()]
        with torch.inference_mode():
            return self.estimator(torch.cat(parts, 1))[:, 0].double().tolist()

    def _embed(self, texts: list[str], batch_size: int) -> Any:
        """(B, width) float32."""
        import torch

        with quiet():
            encoded = self.tokenizer(texts, truncation=True, max_length=self.limit)
        rows = torch.empty(len(texts), self.encoder.config.hidden_size, device=self.device)
        for chosen, padded in padded_batches(self.tokenizer, encoded, batch_size, self.device):
            with torch.inference_mode():
                states = self.encoder(**padded, output_hidden_states=True).hidden_states
                rows[chosen] = self._pooled(states, padded["attention_mask"])
        return rows

    def _pooled(self, states: Sequence[Any], mask: Any) -> Any:
        """(B, width) from (B, T, width) of every layer and (B, T), 1 = a token."""
        real = mask.unsqueeze(-1).float()
        norm = self.settings["layer"] == "mix" and self.settings["layer_norm"]
        mixed = sum(
            share * (_normalised(state, real) if norm else state)
            for share, state in zip(self.mix.tolist(), states, strict=True)
        )
        if self.settings["pool"] == "cls":
            return mixed[:, 0]
        if self.settings["pool"] == "max":
            return mixed.masked_fill(real == 0, float("-inf")).amax(1)
        return (mixed * real).sum(1) / real.sum(1)


def _normalised(state: Any, real: Any) -> Any:
    """Mean 0 and variance 1 over all numbers of a text's real tokens together."""
    count = real.sum((1, 2), keepdim=True) * state.shape[-1]
    mean = (state * real).sum((1, 2), keepdim=True) / count
    variance = ((state - mean) * real).pow(2).sum((1, 2), keepdim=True) / count
    return (state - mean) / (variance + 1e-12).sqrt()


def sparsemax(values: Any) -> Any:
    """(n,) the nearest probabilities to the values; small ones become 0.

    Martins & Astudillo 2016 (arXiv:1602.02068), algorithm 1.
    """
    import torch

    ordered = values.sort(descending=True).values
    ranks = torch.arange(1, len(values) + 1)
    support = int((1 + ranks * ordered > ordered.cumsum(0)).sum())
    return (values - (ordered[:support].sum() - 1) / support).clamp(min=0)


def _weights(file: Path) -> dict[str, Any]:
    """The tensors by name; nothing else of a checkpoint is loaded."""
    import pickle

    import torch
    from safetensors.torch import load_file

    if file.suffix == ".safetensors":
        found = load_file(file)
    else:
        try:
            found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        except (pickle.UnpicklingError, KeyError) as error:
            raise ValueError(
                f"{file} holds more than tensors, or no state_dict: save its state_dict as "
                f"{file.with_suffix('.safetensors').name} beside it"
            ) from error
    weights = {key: value for key, value in found.items() if not key.startswith(NOT_NEEDED)}
    check_tensors(weights)
    return weights


def _fill(module: Any, weights: Mapping[str, Any], start: str) -> None:
    """Put the weights under a prefix into the module; all of it has to be there."""
    mine = {key.removeprefix(start): v for key, v in weights.items() if key.startswith(start)}
    shapes = {key: value.shape for key, value in module.state_dict().items()}
    mine = {key: value for key, value in mine.items() if not key.endswith("position_ids")}
    wrong = [
        key for key in {**shapes, **mine} if key not in mine or shapes.get(key) != mine[key].shape
    ]
    if wrong:
        raise ValueError(f"encoder and checkpoint do not fit: {start}{wrong[0]}")
    module.load_state_dict(mine)
