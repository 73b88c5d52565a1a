"""Queries, keys and values from a file: the problem that they make, and its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerneldyno.kernels._given_config import ModelError
from kerneldyno.kernels._given_files import opened

from ..plan import UsageError

NAMES = ("q", "k", "v")


def fields_of(path: Path) -> dict[str, Any]:
    """Fields of the Attention problem that the file's tensors make. Raises UsageError or ModelError when they make none."""
    if not path.is_file():
        raise UsageError(f"--inputs {path.name}: there is no such file: give tensors q, k and v in safetensors format")
    with opened(path, "np") as file:
        if missing := [name for name in NAMES if name not in set(file.keys())]:
            raise UsageError(
                f"--inputs {path.name}: holds no tensor {missing[0]!r}: give q, k and v, or --model together with what the model reads"
            )
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in NAMES}
    if any(len(shape) != 4 for shape in shapes.values()) or shapes["k"] != shapes["v"]:
        told = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise UsageError(f"--inputs {path.name}: {told}: they must be [batch, heads, tokens, head_dim], k and v alike")
    (batch, heads, q_len, head_dim), (kv_batch, kv_heads, kv_len, kv_dim) = shapes["q"], shapes["k"]
    if (batch, head_dim) != (kv_batch, kv_dim):
        raise UsageError(f"--inputs {path.name}: q {list(shapes['q'])} and k {list(shapes['k'])} differ in batch or head_dim")
    # of a batch the first row is looked at
    return {"batch": 1, "heads": heads, "kv_heads": kv_heads, "q_len": q_len, "kv_len": kv_len, "head_dim": head_dim}


def replaced(inputs: Any, path: Path) -> Any:
    """The inputs with the file's q, k and v, in the dtype and on the device that they have. Raises ModelError for numbers that are none."""
    with opened(path, "pt") as file:
        read: Mapping[str, Any] = {name: file.get_slice(name)[:1].to(inputs.q.device, inputs.q.dtype).contiguous() for name in NAMES}
    for name, tensor in read.items():
        if not bool(tensor.isfinite().all()):
            raise ModelError(f"--inputs {path.name}: {name} holds numbers that are not finite in {str(inputs.q.dtype).partition('.')[2]}")
    return inputs.replace(**read)
