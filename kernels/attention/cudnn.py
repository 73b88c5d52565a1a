"""Attention as a graph of cuDNN, through NVIDIA's frontend for Python (the package nvidia-cudnn-frontend), where it is installed.

What it takes and how its bounds count: docs/operations/Attention.md and include/cudnn_frontend/node/sdpa_support_surface.h
of github.com/NVIDIA/cudnn-frontend.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from ..registry import Device, NotAsNamed, Run, Setup, Trace, kernel
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = {"bfloat16": "BFLOAT16", "float16": "HALF"}
LARGEST_HEAD = 256
LARGEST_HEAD_OF_ONE_QUERY = 128
"""On all cards but Hopper's."""
HOPPER = (9, 0)
OWN_KERNELS = ("cudnn", "sdpa")
"""Parts of the names of its device kernels."""


@dataclass(frozen=True)
class Band:
    """The keys that a query at position p sees: j > p - left and j <= p + right, None being no bound.

    p is the query's number, plus in a band of ends as many as there are more keys (of its row) than queries.
    """

    left: int | None
    right: int | None
    ends: bool


def band(problem: Attention) -> Band:
    """What the problem hides by position, in cuDNN's terms."""
    left = problem.window or None
    right = None
    if problem.triangular or (left and problem.causal):
        right = 0
    elif left:
        right = left - 1
    return Band(left, right, ends=problem.positional and (problem.cross or problem.ragged))


def refuses(problem: Attention, device: Device) -> str | None:
    """Cards, sizes and combinations that cuDNN does not take, or answers otherwise than asked here."""
    if device.capability and device.capability < (8, 0):
        return "cuDNN's attention needs a GPU of compute capability 8.0 or newer"
    largest = LARGEST_HEAD_OF_ONE_QUERY if problem.q_len == 1 and device.capability not in (None, HOPPER) else LARGEST_HEAD
    if problem.head_dim % 8 or problem.head_dim > largest:
        return f"cuDNN takes head_dim in multiples of 8 up to {largest}, not {problem.head_dim}"
    if problem.kv_len == 1:
        return "cuDNN does not take a single key"
    if not problem.positional:
        return None
    if problem.q_len > problem.kv_len:
        return f"cuDNN takes causal and window with at most as many queries as keys, not {problem.q_len}→{problem.kv_len}"
    if problem.padding and problem.window:
        return "cuDNN is not asked for padding with a window: what it answers where a query sees no key is not documented"
    if problem.padding and problem.cross:
        return "cuDNN takes padding with causal for equal lengths only: otherwise it counts positions from the end of each row"
    if problem.bias != "none" and band(problem).ends:
        return "cuDNN takes a bias with causal and window for equal lengths only"
    return None


def nothing_beside(problem: Any, setup: Setup, trace: Trace) -> str:  # noqa: ARG001
    """torch multiplied nothing beside cuDNN; what ran is named where the profiler saw the device."""
    if trace.product_flops:
        raise NotAsNamed("torch multiplied matrices beside cuDNN")
    if not trace.device_watched:
        return "not seen: the profiler saw no kernel of the device (CUPTI is missing, or its use is not permitted)"
    own = [name for name in trace.operators if any(part in name.lower() for part in OWN_KERNELS)]
    return f"cuDNN ({own[0]})" if own else "cuDNN (torch multiplied nothing)"


@kernel(
    Attention,
    devices=("cuda",),
    dtypes=tuple(DTYPES),
    accepts=("causal", "padding", "bias", "window", "ragged", "paged"),
    requires=("cudnn",),
    refuses=refuses,
    identified=nothing_beside,
)
def cudnn(problem: Attention, setup: Setup) -> Run:
    """cuDNN's attention graph, called through NVIDIA's frontend: built and planned once, with a workspace of its own.

    A graph is made for the strides of its tensors: inputs with other strides have one built in their first call.
    """
    frontend = import_module("cudnn")
    with torch.cuda.device(setup.device):
        handle, index = frontend.create_handle(), torch.cuda.current_device()
    planned: dict[tuple[tuple[int, ...], ...], _Planned] = {}
    bound = _bound(problem, setup.device)
    stream: int | None = None

    def run(inputs: AttentionInputs) -> torch.Tensor:
        nonlocal stream
        tensors = bound(inputs)
        strides = tuple(tensor.stride() for tensor in tensors.values())
        if strides not in planned:
            planned[strides] = _Planned(frontend, handle, problem, tensors)
        # setting a stream asks the driver several questions, and torch.cuda.current_stream takes 3 µs to say which it is
        now = torch._C._cuda_getCurrentRawStream(index)  # noqa: SLF001
        if now != stream:
            frontend.set_stream(handle, now)
            stream = now
        return planned[strides](tensors)

    run(setup.calibration)
    weakref.finalize(run, frontend.destroy_handle, handle).atexit = False  # by then the device may be gone
    return run


def _bound(problem: Attention, device: torch.device) -> Callable[[AttentionInputs], dict[str, torch.Tensor]]:
    """inputs -> what the graph reads, by the names of its arguments, all with four dimensions."""
    counted = bool(problem.features & {"padding", "ragged", "paged"})
    queries, full = (
        torch.full((problem.batch, 1, 1, 1), number, dtype=torch.int32, device=device) for number in (problem.q_len, problem.kv_len)
    )

    def bound(inputs: AttentionInputs) -> dict[str, torch.Tensor]:
        tensors = {"q": inputs.q, "k": inputs.k, "v": inputs.v}
        if inputs.bias is not None:
            tensors["bias"] = inputs.bias
        if counted:
            tensors["seq_len_q"] = queries
            tensors["seq_len_kv"] = full if inputs.lengths is None else inputs.lengths.view(-1, 1, 1, 1)
        if inputs.block_table is not None:  # keys and values lie in pages of the same numbers
            tensors["paged_attention_k_table"] = tensors["paged_attention_v_table"] = inputs.block_table[:, None, :, None]
        return tensors

    return bound


def options(problem: Attention) -> dict[str, Any]:
    """The arguments of the graph's sdpa node that are no tensors, less its alignment, which is an enumeration of the package."""
    seen = band(problem)
    chosen: dict[str, Any] = {"generate_stats": False, "attn_scale": problem.scale}
    if seen.left is not None:
        chosen["diagonal_band_left_bound"] = seen.left
    if seen.right is not None:
        chosen["diagonal_band_right_bound"] = seen.right
    if problem.features & {"padding", "ragged", "paged"}:
        chosen["use_padding_mask"] = True
    if problem.page_size:
        chosen["paged_attention_max_seq_len_kv"] = problem.kv_len
    return chosen


class _Planned:
    """A graph for tensors of these shapes and strides, its plan and its workspace. Raises what cuDNN raises where it has no plan."""

    def __init__(self, frontend: Any, handle: Any, problem: Attention, tensors: dict[str, torch.Tensor]) -> None:
        types = frontend.data_type
        dtype = getattr(types, DTYPES[problem.dtype])
        graph = frontend.pygraph(io_data_type=dtype, intermediate_data_type=types.FLOAT, compute_data_type=types.FLOAT, handle=handle)
        self.places = {name: graph.tensor_like(tensor) for name, tensor in tensors.items()}
        alignment = frontend.diagonal_alignment
        given = {**options(problem), "diagonal_alignment": alignment.BOTTOM_RIGHT if band(problem).ends else alignment.TOP_LEFT}
        self.output, _ = graph.sdpa(name="sdpa", **self.places, **given)
        q = tensors["q"]
        like = torch.empty(q.shape, device="meta")  # as `__call__` allocates it
        self.output.set_output(True).set_dim(list(like.shape)).set_stride(list(like.stride()))
        graph.build([frontend.heur_mode.A, frontend.heur_mode.FALLBACK])
        self.graph, self.handle = graph, handle
        self.workspace = torch.empty(max(1, graph.get_workspace_size()), dtype=torch.uint8, device=q.device)

    def __call__(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        q = tensors["q"]
        output = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        pack = {self.places[name]: tensor for name, tensor in tensors.items()}
        self.graph.execute({**pack, self.output: output}, self.workspace, handle=self.handle)
        return output
