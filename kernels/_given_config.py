"""The configuration of a Hugging Face model, read into the fields of a Layer. What it does not describe is refused in a sentence.

Names and defaults are those of the `transformers` library's configurations. No torch, no weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}
"""What a configuration calls an activation, and what it is called here."""
FAMILIES = {
    "bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "llama",
    "vit": "vit",
    "deit": "vit",
}
"""model_type -> the model whose structure and names of weights it has."""
DIGITS = 12
"""Of a digest, in a problem's field `given`."""
GIVEN = re.compile(rf"(?P<name>[^/@]+)/(?P<layer>\d+)@(?P<digest>[0-9a-f]{{{DIGITS}}})")
"""What that field holds: the model's name, the number of a layer, and the digest of what was read."""
LONGEST_DRAWN = 512
"""Tokens of a sequence where nothing else was asked for and the model takes so many."""


class ModelError(Exception):
    """A model's directory or a file of tensors cannot be used; the message says which, why and what to do."""

    exit_code = 2


def require_given(given: str) -> None:
    """Raise ValueError for a field `given` that nobody could have filled in."""
    if given and not GIVEN.fullmatch(given):
        raise ValueError(f"given {given!r} is impossible: leave it empty; --model fills it in, as NAME/LAYER@DIGEST")


def told(given: str) -> list[str]:
    """A problem's field `given` in words for its label, "bert-tiny layer 3"; none when it is empty."""
    found = GIVEN.fullmatch(given)
    return [f"{found['name']} layer {found['layer']}"] if found else []


@dataclass(frozen=True)
class Config:
    """What a configuration says of the layers, and of what comes before the first."""

    model_type: str
    family: str
    """One of "bert", "roberta", "llama", "vit"."""
    layers: int
    positions: int
    """Tokens of the longest sequence that the model takes."""
    layer: Mapping[str, Any]
    """Fields of a Layer problem, all but batch and seq_len."""
    window: int = 0
    """Keys that a query sees before its own position; 0: all."""
    vocabulary: int = 0
    padding_token: int = -1
    image: tuple[int, int, int] = (0, 0, 0)
    """(channels, height and width, height and width of a patch) of a model that looks at images."""

    @property
    def usual_length(self) -> int:
        """Tokens of a sequence where nothing else was asked for: all of an image, at most LONGEST_DRAWN of a text."""
        return self.positions if self.family == "vit" else min(LONGEST_DRAWN, self.positions, self.window or self.positions)


class _Entries:
    """The entries of a config.json, each checked when it is asked for."""

    def __init__(self, entries: Mapping[str, Any]) -> None:
        self.entries = entries

    def get(self, name: str, default: Any) -> Any:
        value = self.entries.get(name)
        return default if value is None else value

    def whole(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if value is None:
            raise ModelError(f"config.json says nothing of {name}: it is needed to know the model's shape")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelError(f"config.json: {name} {value!r} is impossible: it must be a whole number of at least 1")
        return value

    def number(self, name: str, default: float, *, above: float = 0, below: float = float("inf")) -> float:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < below:
            raise ModelError(f"config.json: {name} {value!r} is impossible: it must be a number above {above:g} and below {below:g}")
        return float(value)

    def padding_token(self, default: int) -> int:
        value = self.get("pad_token_id", default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ModelError(f"config.json: pad_token_id {value!r} is impossible: it must be a whole number")
        return value

    def activation(self, name: str, default: str) -> str:
        value = self.get(name, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise ModelError(f"config.json: {name} {value!r} is not known here: known are {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[value]

    def refuse(self, name: str, wanted: Any, why: str) -> None:
        """Raise ModelError for an entry that is there and means something that is not computed here."""
        value = self.get(name, wanted)
        if value != wanted:
            raise ModelError(f"config.json: {name} {value!r} is not supported: {why}")


def read(folder: Path) -> Config:
    """The configuration in `folder`/config.json. Raises ModelError."""
    path = folder / "config.json"
    if not folder.is_dir():
        raise ModelError(f"--model {folder.name}: there is no such directory: give the directory of a Hugging Face model")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"--model {folder.name}: holds no config.json: give the directory of a Hugging Face model") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"--model {folder.name}: config.json cannot be read ({error}): it must be JSON") from None
    if not isinstance(entries, dict):
        raise ModelError(f"--model {folder.name}: config.json is no JSON object: give the directory of a Hugging Face model")
    return parsed(entries)


def parsed(entries: Mapping[str, Any]) -> Config:
    """The configuration that these entries of a config.json describe. Raises ModelError."""
    model_type = entries.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise ModelError(f"config.json: model_type {model_type!r} is not known here: known are {', '.join(FAMILIES)}")
    assert isinstance(model_type, str)
    checked = _Entries(entries)
    checked.refuse("quantization_config", None, "weights must be plain numbers, not codes with scales of their own")
    reader = {"bert": _bert, "roberta": _bert, "llama": _llama, "vit": _vit}[family]
    return reader(checked, model_type, family)


def _sizes(entries: _Entries) -> dict[str, int]:
    """dim, heads, kv_heads, head_dim and hidden_dim."""
    dim, heads = entries.whole("hidden_size"), entries.whole("num_attention_heads")
    if entries.get("head_dim", None) is None and dim % heads:
        raise ModelError(f"config.json: hidden_size {dim} cannot be split among {heads} heads, and head_dim is not given")
    kv_heads = entries.whole("num_key_value_heads", heads)
    if heads % kv_heads:
        raise ModelError(f"config.json: {heads} heads cannot share {kv_heads} key-value heads evenly")
    head_dim = entries.whole("head_dim", dim // heads)
    return {"dim": dim, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "hidden_dim": entries.whole("intermediate_size")}


def _bert(entries: _Entries, model_type: str, family: str) -> Config:
    entries.refuse("position_embedding_type", "absolute", "only learned absolute positions are")
    entries.refuse("is_decoder", False, "only encoders of this kind are")
    padding_token = entries.padding_token(1 if family == "roberta" else 0)
    layer = {
        **_sizes(entries),
        "activation": entries.activation("hidden_act", "gelu"),
        "epsilon": entries.number("layer_norm_eps", 1e-12, below=1),
    }
    positions = entries.whole("max_position_embeddings", 512)
    if family == "roberta":  # its first position is the one after that of padding
        positions = max(1, positions - padding_token - 1)
    return Config(
        model_type=model_type,
        family=family,
        layers=entries.whole("num_hidden_layers"),
        positions=positions,
        layer=layer,
        vocabulary=entries.whole("vocab_size"),
        padding_token=padding_token,
    )


def _llama(entries: _Entries, model_type: str, family: str) -> Config:
    theta, scaling = _rotation(entries)
    biased = model_type == "qwen2" or bool(entries.get("attention_bias", False)) or bool(entries.get("mlp_bias", False))
    sliding = entries.get("use_sliding_window", model_type == "mistral")
    layer = {
        **_sizes(entries),
        "mask": "causal",
        "norm_first": True,
        "norm": "rmsnorm",
        "epsilon": entries.number("rms_norm_eps", 1e-6, below=1),
        "activation": entries.activation("hidden_act", "silu"),
        "gated": True,
        "bias": biased,
        "rope_theta": theta,
        "rope_scaling": scaling,
    }
    return Config(
        model_type=model_type,
        family=family,
        layers=entries.whole("num_hidden_layers"),
        positions=entries.whole("max_position_embeddings", 2048),
        layer=layer,
        window=entries.whole("sliding_window", 1) if sliding and entries.get("sliding_window", 0) else 0,
        vocabulary=entries.whole("vocab_size"),
        padding_token=entries.padding_token(-1),
    )


def _vit(entries: _Entries, model_type: str, family: str) -> Config:
    size, patch = entries.whole("image_size", 224), entries.whole("patch_size", 16)
    if size % patch:
        raise ModelError(f"config.json: image_size {size} is no multiple of patch_size {patch}")
    layer = {
        **_sizes(entries),
        "norm_first": True,
        "activation": entries.activation("hidden_act", "gelu"),
        "epsilon": entries.number("layer_norm_eps", 1e-12, below=1),
    }
    return Config(
        model_type=model_type,
        family=family,
        layers=entries.whole("num_hidden_layers"),
        positions=(size // patch) ** 2 + (2 if model_type == "deit" else 1),
        layer=layer,
        image=(entries.whole("num_channels", 3), size, patch),
    )


def _rotation(entries: _Entries) -> tuple[float, str]:
    """(theta, scaling) of rotary positions, as a Layer has them; older and newer configurations name them differently."""
    given = entries.get("rope_parameters", None) or entries.get("rope_scaling", None) or {}
    if not isinstance(given, Mapping):
        raise ModelError(f"config.json: the rotary positions {given!r} are not understood: they must be a JSON object")
    rope = _Entries(given)
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.number("rope_theta", entries.number("rope_theta", 10000.0, above=1), above=1)
    entries.refuse("partial_rotary_factor", 1.0, "only heads whose features are all turned are")
    rope.refuse("partial_rotary_factor", 1.0, "only heads whose features are all turned are")
    if kind == "default":
        return theta, ""
    if kind == "linear":
        return theta, f"linear:{rope.number('factor', 1.0):g}"
    if kind == "llama3":
        original = rope.number("original_max_position_embeddings", entries.whole("max_position_embeddings", 2048))
        numbers = rope.number("factor", 8.0), rope.number("low_freq_factor", 1.0), rope.number("high_freq_factor", 4.0), original
        return theta, "llama3:" + ",".join(f"{number:.10g}" for number in numbers)
    raise ModelError(f"config.json: rotary positions of type {kind!r} are not supported: known are default, linear, llama3")
