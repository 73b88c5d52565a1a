"""Our own attention for Hopper GPUs in Gluon: warps with roles, where plain Triton leaves the overlap to its compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._cards import Card
from .._code import Configuration
from .._identity import triton_kernels
from ..registry import ITEM_BYTES, Device, Run, Setup, Trace, kernel
from . import _hopper_code, _hopper_tiles, _hopper_tuning
from ._on_device import started
from ._pairs import keys_read
from .problem import Attention

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._tuning import Task


def refuses(problem: Attention, device: Device) -> str | None:
    """Head sizes and cards that it is not written for."""
    if problem.head_dim not in _hopper_tiles.PREFILL:
        return f"takes head_dim {', '.join(map(str, _hopper_tiles.PREFILL))}, not {problem.head_dim}"
    if device.capability is not None and device.capability != _hopper_code.CAPABILITY:
        return f"is written for compute capability 9.0 (Hopper), not {device.capability[0]}.{device.capability[1]}"
    return None


def ran(problem: Attention, setup: Setup, trace: Trace) -> str:
    """The judge of its identity; says which tile it was built with and who chose it."""
    found = triton_kernels("hopper_kernel", alone=True)(problem, setup, trace)
    return f"{found} {_hopper_tuning.chosen(problem, Card.of(setup.device))}" if trace.device_watched else found


def device_code(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which its kernel may be launched on a card."""
    yield from _hopper_code.configurations(capability)


def tuning(problem: Attention, card: Card) -> Iterator[Task]:
    """The tile is all there is to choose."""
    if card.capability == _hopper_code.CAPABILITY:
        yield _hopper_tuning.task(problem, card)


@kernel(
    Attention,
    family="fused",
    devices=("cuda",),
    dtypes=("bfloat16", "float16"),
    accepts=("causal", "padding", "ragged"),
    requires=("triton",),
    refuses=refuses,
    identified=ran,
    device_code=device_code,
    tuning=tuning,
)
def fused_hopper(problem: Attention, setup: Setup) -> Run:
    """Gluon, for Hopper: one warp loads by TMA, one or two warp groups multiply; softmax and products of different blocks side by side.

    Programs stay and go through all tiles, so that the loads of the next one begin while the last one ends. Few queries: the heads of a
    group share a tile, and several programs share the keys of a row (split-KV). It compiles on its first call, which belongs to the build.
    """
    return started(launched(problem, Card.of(setup.device)), setup.calibration)


def launched(problem: Attention, card: Card) -> Run:
    """inputs -> output, by the kernel cut for the card."""
    from ._hopper_launch import attend
    from ._prefill_tiles import heads_together

    cut, packed = _hopper_tuning.chosen(problem, card).value, _hopper_tuning.packed(problem)
    options: dict[str, Any] = {
        "scale": problem.scale,
        "causal": problem.triangular,
        "ragged": problem.ragged,
        "cut": cut,
        "packed": packed,
        "multiprocessors": card.multiprocessors,
    }
    if packed:
        seen = max(keys_read(problem, length) for length in problem.lengths())
        rows = problem.q_len * problem.group
        options["splits"] = _hopper_tiles.splits(cut, problem.batch, problem.kv_heads, rows, seen, card.multiprocessors)
    else:
        size = {"head_dim": problem.head_dim, "item_bytes": ITEM_BYTES[problem.dtype], "l2_bytes": card.l2_bytes}
        options["together"] = heads_together(problem.group, problem.kv_len, **size, causal=problem.triangular)
    return lambda inputs: attend(inputs.q, inputs.k, inputs.v, lengths=inputs.lengths, **options)
