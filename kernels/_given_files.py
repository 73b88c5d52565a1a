"""Where a model's weights and inputs lie: which file holds which tensor, whether all are there, and a digest of them.

A worker process learns of the files from an environment variable, never from a problem: paths are nobody's business but this
machine's. No torch is imported here; headers are read by the safetensors library.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from ._given_config import DIGITS, GIVEN, Config, ModelError, read
from ._given_digest import digest_of, stamps_of

VARIABLE = "KERNELDYNO_MODEL"
"""Of the environment: what a worker reads the files' places from."""
INDEX = "model.safetensors.index.json"
PARTS = {
    "bert": ("encoder.layer.{}.", {
        "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value", "out": "attention.output.dense",
        "norm1": "attention.output.LayerNorm", "w1": "intermediate.dense", "w2": "output.dense", "norm2": "output.LayerNorm",
    }),
    "llama": ("layers.{}.", {
        "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "out": "self_attn.o_proj",
        "norm1": "input_layernorm", "w1": "mlp.up_proj", "gate": "mlp.gate_proj", "w2": "mlp.down_proj",
        "norm2": "post_attention_layernorm",
    }),
    "vit": ("encoder.layer.{}.", {
        "q": "attention.attention.query", "k": "attention.attention.key", "v": "attention.attention.value", "out": "attention.output.dense",
        "norm1": "layernorm_before", "w1": "intermediate.dense", "w2": "output.dense", "norm2": "layernorm_after",
    }),
}  # fmt: skip
"""Of each family: what names of a layer's tensors begin with, and what its parts are called, as `transformers` saves them."""
PARTS["roberta"] = PARTS["bert"]
_TEXT = ("word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")
_IMAGE = ("cls_token", "position_embeddings", "patch_embeddings.projection.weight", "patch_embeddings.projection.bias")
EMBEDDINGS = {
    "bert": tuple(f"embeddings.{name}" for name in _TEXT),
    "roberta": tuple(f"embeddings.{name}" for name in _TEXT),
    "llama": ("embed_tokens.weight",),
    "vit": tuple(f"embeddings.{name}" for name in _IMAGE),
}
"""The tensors without which what enters the first layer cannot be computed."""
OLD_ENDINGS = {".weight": ".gamma", ".bias": ".beta"}
"""What the oldest models call the parts of a norm."""
PLAIN = ("F64", "F32", "F16", "BF16")
"""What safetensors calls the types of numbers that are weights as they stand."""
INPUTS = {"hidden_states": 3, "pixel_values": 4, "input_ids": 2}
"""Tensors that a file of inputs may hold, and how many axes each has."""


class _Index(msgspec.Struct, frozen=True):
    """What `transformers` writes beside the files of weights, as far as it is read."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class Source:
    """A model's directory as far as it was read: its configuration, and the file of every tensor."""

    name: str
    """The directory's, without its path."""
    folder: Path
    config: Config
    files: Mapping[str, Path]
    """Tensor -> the file that holds it; empty where there are no weights."""
    prefix: str = ""
    """What stands before the names that PARTS tells of: "bert.", "model."."""
    weights: Path | None = None
    inputs: Path | None = None
    digest: str = ""

    @property
    def embeds(self) -> bool:
        """Whether what enters the first layer can be computed."""
        return all(self.called(f"{self.prefix}{name}") in self.files for name in EMBEDDINGS[self.config.family])

    def called(self, tensor: str) -> str:
        """The name under which the files hold a tensor: its own, or that of the oldest models."""
        for ending, old in OLD_ENDINGS.items():
            if tensor not in self.files and tensor.endswith(ending) and (found := tensor.removesuffix(ending) + old) in self.files:
                return found
        return tensor

    def given(self, layer: int) -> str:
        """What a problem's field `given` says of one of the layers; nothing where there are no weights."""
        return f"{self.name}/{layer}@{self.digest[:DIGITS]}" if self.files else ""

    def part(self, layer: int, part: str, kind: str) -> str:
        """The name of a tensor: kind is "weight" or "bias"."""
        stem, parts = PARTS[self.config.family]
        return self.called(f"{self.prefix}{stem.format(layer)}{parts[part]}.{kind}")

    def require(self, layer: int) -> None:
        """Raise ModelError for a tensor of the layer that is missing, or of a shape that does not fit the configuration."""
        sizes = self.config.layer
        dim, hidden, heads = sizes["dim"], sizes["hidden_dim"], sizes["head_dim"] * sizes["heads"]
        shared = sizes["head_dim"] * sizes["kv_heads"]
        matrices = {
            "q": (heads, dim),
            "k": (shared, dim),
            "v": (shared, dim),
            "out": (dim, heads),
            "w1": (hidden, dim),
            "w2": (dim, hidden),
        }
        matrices |= {"gate": (hidden, dim)} if sizes.get("gated") else {}
        for part, shape in matrices.items():
            self.require_shape(self.part(layer, part, "weight"), shape)
            if (bias := self.part(layer, part, "bias")) in self.files:
                self.require_shape(bias, shape[:1])
        for part in ("norm1", "norm2"):
            self.require_shape(self.part(layer, part, "weight"), (dim,))
            if sizes.get("norm") != "rmsnorm":
                self.require_shape(self.part(layer, part, "bias"), (dim,))

    def require_shape(self, tensor: str, shape: tuple[int, ...]) -> None:
        """Raise ModelError unless the files hold the tensor in this shape."""
        if tensor not in self.files:
            raise ModelError(f"the weights of {self.name} hold no tensor {tensor!r}: give the model's own weights, all files of them")
        path = self.files[tensor]
        with opened(path, "np") as file:
            if tensor not in file.keys():  # noqa: SIM118 - the library's own object, no mapping
                raise ModelError(f"{path.name} holds no tensor {tensor!r}, though the index says so: download the model again")
            part = file.get_slice(tensor)
            found, dtype = tuple(part.get_shape()), part.get_dtype()
        if dtype not in PLAIN:
            raise ModelError(f"{path.name}: {tensor} holds {dtype} numbers: give weights that are not quantized, in {', '.join(PLAIN)}")
        if found != shape:
            raise ModelError(
                f"{path.name}: {tensor} has the shape {list(found)}, config.json asks for {list(shape)}: they do not belong together"
            )


def inputs_of(source: Source, path: Path) -> tuple[str, tuple[int, ...]]:
    """(name, shape) of the tensor that a file of inputs offers the model. Raises ModelError when it has none that fits."""
    config, wanted = source.config, "pixel_values" if source.config.family == "vit" else "input_ids"
    with opened(path, "np") as file:
        there = set(file.keys())
        name = next((name for name in ("hidden_states", wanted) if name in there), "")
        shape = tuple(file.get_slice(name).get_shape()) if name else ()
    if not name:
        raise ModelError(f"--inputs {path.name}: holds no {wanted} and no hidden_states, which a model of type {config.model_type} takes")
    if len(shape) != INPUTS[name] or not all(shape):
        raise ModelError(f"--inputs {path.name}: {name} has the shape {list(shape)}, but must have {INPUTS[name]} axes, sequences first")
    channels, size, _ = config.image
    sizes, asked = {"pixel_values": (shape[1:], (channels, size, size)), "hidden_states": (shape[2:], (config.layer["dim"],))}.get(
        name, ((), ())
    )
    if sizes != asked:
        raise ModelError(f"--inputs {path.name}: {name} is of size {list(sizes)} where config.json asks for {list(asked)}")
    if name != "hidden_states" and not source.embeds:
        raise ModelError(f"--inputs {path.name}: {source.name} has no embeddings for {name}: give hidden_states instead")
    return name, shape


@contextmanager
def opened(path: Path, framework: str, device: str = "cpu") -> Iterator[Any]:
    """A safetensors file, whose tensors are read one by one. Raises ModelError where it cannot be."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ModelError("weights of a model need the Python package safetensors: pip install 'kerneldyno[run]'") from None
    try:
        with safe_open(str(path), framework=framework, device=device) as file:
            yield file
    except (OSError, SafetensorError) as error:
        why = str(error).replace(str(path), path.name).splitlines()[0]
        raise ModelError(f"{path.name} cannot be read as safetensors ({why}): give a file that transformers or safetensors wrote") from None


def at(model: Path | None, weights: Path | None = None, inputs: Path | None = None) -> Source:
    """What lies in a model's directory (default: that of the weights). Every byte of it is read once, for the digest. Raises ModelError."""
    if model is None:
        if weights is None:
            raise ModelError("--inputs goes with --model: a file of inputs says nothing of a model")
        _require_file("--weights", weights)
        model = weights.parent
    folder = Path.cwd() / model  # not resolved whole: a link keeps its own name
    source = _found(folder, weights, inputs)
    return Source(**{**vars(source), "digest": digest_of(source)}) if source.files else source


def _found(folder: Path, weights: Path | None, inputs: Path | None) -> Source:
    config = read(folder)
    # an account's name is nobody's business
    name = "model" if folder.resolve() == Path.home() else re.sub(r"[^\w.+-]+", "-", _named(folder)) or "model"
    for option, path in (("--weights", weights), ("--inputs", inputs)):
        if path is not None:
            _require_file(option, path)
    files = _tensors(folder, weights)
    return Source(name=name, folder=folder, config=config, files=files, prefix=_prefix(name, config, files), weights=weights, inputs=inputs)


def _named(folder: Path) -> str:
    return folder.resolve().name if folder.name == ".." else folder.name


def _require_file(option: str, path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{option} {path.name}: there is no such file: give a file in safetensors format")


def _tensors(folder: Path, weights: Path | None) -> dict[str, Path]:
    """Tensor -> file. A directory without weights has none; several files need the index that `transformers` writes beside them."""
    index = folder / INDEX
    if weights is None and index.is_file():
        try:
            mapped = msgspec.json.decode(index.read_bytes(), type=_Index).weight_map
        except (OSError, msgspec.MsgspecError):
            raise ModelError(f"{INDEX} cannot be read: it must map tensors to files, as transformers writes it") from None
        for file in sorted(set(mapped.values())):
            if Path(file).name != file or not (folder / file).is_file():
                raise ModelError(f"{INDEX} names {Path(file).name}, which is not in the directory: give all files of the weights")
        return {tensor: folder / file for tensor, file in mapped.items()}
    there = [weights] if weights is not None else sorted(folder.glob("*.safetensors"))
    if weights is None and (folder / "model.safetensors") in there:
        there = [folder / "model.safetensors"]
    if len(there) > 1:
        raise ModelError(f"--model {folder.name}: holds {len(there)} safetensors files and no {INDEX}: name one with --weights")
    if not there:
        return {}
    with opened(there[0], "np") as file:
        return dict.fromkeys(file.keys(), there[0])


def _prefix(name: str, config: Config, files: Mapping[str, Path]) -> str:
    """What stands before the names of the layers' tensors: models with a head for a task put their own name there."""
    if not files:
        return ""
    stem, parts = PARTS[config.family]
    ending = f"{stem.format(0)}{parts['q']}.weight"
    found = sorted((tensor.removesuffix(ending) for tensor in files if tensor.endswith(ending)), key=len)
    if not found:
        raise ModelError(f"the weights of {name} hold no tensor {ending!r}: they are not those of a model of type {config.model_type}")
    return found[0]


@contextmanager
def offered(source: Source | None) -> Iterator[None]:
    """Inside, this process and those that it starts find the model's files."""
    before = os.environ.get(VARIABLE)
    if source is not None and source.files:
        places = {
            name: None if path is None else str(path.resolve()) for name, path in (("weights", source.weights), ("inputs", source.inputs))
        }
        os.environ[VARIABLE] = json.dumps({"folder": str(source.folder), **places, "digest": source.digest, "stamps": stamps_of(source)})
    else:
        os.environ.pop(VARIABLE, None)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def current(given: str) -> tuple[Source, int]:
    """The model's files, and the layer that a problem's field `given` names. Raises ModelError unless they are offered, and the same."""
    wanted = GIVEN.fullmatch(given)
    if wanted is None:
        raise ModelError(f"given {given!r} is not NAME/LAYER@DIGEST: leave it empty; --model fills it in")
    if VARIABLE not in os.environ:
        raise ModelError(f"the weights of {wanted['name']} are not at hand: give --model again")
    source = _of_environment(os.environ[VARIABLE])
    if source.digest[:DIGITS] != wanted["digest"]:
        raise ModelError(f"the files of {wanted['name']} are others than those that were planned with: give the same --model again")
    return source, int(wanted["layer"])


@lru_cache(maxsize=4)
def _of_environment(text: str) -> Source:
    told = json.loads(text)
    weights, inputs = (None if told[name] is None else Path(told[name]) for name in ("weights", "inputs"))
    source = _found(Path(told["folder"]), weights, inputs)
    if stamps_of(source) != told["stamps"]:
        raise ModelError(f"the files of {source.name} have changed since the run was planned: start it again")
    return Source(**{**vars(source), "digest": told["digest"]})
