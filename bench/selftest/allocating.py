"""Right attention kernels that allocate, keep or free exactly known amounts in every call."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import Kernel, Run, Setup, kernel

from . import library

PROBLEM = Attention(batch=1, heads=2, q_len=32, head_dim=16)
"""So small that what SDPA itself takes lies far below the tolerance."""
KIB, MIB = 2**10, 2**20
Work = Callable[[], object]
"""Takes memory; what it returns is held until the output is there."""


@dataclass(frozen=True)
class Known:
    """One kernel, and what is known of each of its calls beside the output of `PROBLEM`."""

    plant: str
    kernel: Kernel
    peak_bytes: int
    leak_bytes: int = 0
    """Bytes that stay after every call."""
    short: bool = False
    """Part of the short self-test."""
    must: bool = True
    """False: no counter sees it, which is known and reported."""
    needs: Callable[[], object] = field(default=lambda: None)
    """Raises NoLibrary where it cannot be tried."""


def attention(inputs: AttentionInputs) -> torch.Tensor:
    """What all of them compute."""
    return torch.nn.functional.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v)


def around(work: Callable[[torch.device], Work], **declared: Any) -> Kernel:
    """A kernel that takes memory with `work(device)()`, computes while it is held, and lets go of it."""

    @kernel(Attention, name="allocating", family="allocating", **declared)
    def build(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001 - the signature of every build
        take = work(setup.device)

        def run(inputs: AttentionInputs) -> torch.Tensor:
            held = take()
            output = attention(inputs)
            del held
            return output

        return run

    return build


def block(size: int, device: torch.device) -> torch.Tensor:
    """So many bytes of torch's, not written."""
    return torch.empty(size, dtype=torch.uint8, device=device)


def in_torch() -> Iterator[Known]:
    """Through torch's allocator of either device."""
    for size, short in ((64 * KIB, True), (MIB, False), (16 * MIB, True), (512 * MIB, True)):
        yield Known(f"torch: {spelled(size)}", around(partial(at_once, 1, size)), size, short=short)
    yield Known("torch: 8 x 4 MiB at once", around(partial(at_once, 8, 4 * MIB)), 32 * MIB)
    yield Known("torch: 8 x 4 MiB, one after the other", around(partial(in_turn, 8, 4 * MIB)), 4 * MIB)
    yield Known("torch: the output keeps 16 MiB alive", large_output(0), 16 * MIB, short=True)
    yield Known("torch: 16 MiB of output and 8 MiB of workspace", large_output(8 * MIB), 24 * MIB)
    yield Known("torch: 32 MiB in the first call, kept", around(first_call_only), 0, short=True)
    yield Known("torch: the last 4 MiB, until the next call", around(partial(keeping, 1)), 4 * MIB)
    yield Known("torch: the last 4 of 4 MiB", around(partial(keeping, 4)), 4 * MIB)
    yield Known("torch: 4 MiB in a reference cycle", around(cyclic), 4 * MIB)
    yield Known("torch: keeps 4 MiB of every call", around(partial(keeping, None)), 4 * MIB, 4 * MIB, short=True)


def in_numpy() -> Iterator[Known]:
    """Through numpy, which takes its memory with malloc and calloc."""
    yield Known("numpy: 16 MiB", around(lambda _: lambda: np.ones(16 * MIB, np.uint8), devices=("cpu",)), 16 * MIB, short=True)
    many = around(lambda _: lambda: [np.empty(4 * KIB, np.uint8) for _ in range(10_000)], devices=("cpu",))
    yield Known("numpy: 10 000 x 4 KiB", many, 10_000 * 4 * KIB)
    grows: list[np.ndarray[Any, Any]] = []
    kept = around(lambda _: lambda: grows.append(np.ones(MIB, np.uint8)), devices=("cpu",))
    yield Known("numpy: appends 1 MiB to a list in every call", kept, MIB, MIB, short=True)


def in_onnxruntime(device: torch.device) -> Iterator[Known]:
    """Through ONNX Runtime: copies of q as an intermediate result, reduced to q again.

    On CUDA the first call of a fresh arena is counted, and what the runtime takes once for itself comes with it.
    """
    q_bytes = PROBLEM.heads * PROBLEM.q_len * PROBLEM.head_dim * 4
    on_cpu = device.type == "cpu"
    for copies, short in ((2**12, True), (2**14, False)) if on_cpu else ((2**17, True),):
        size = copies * q_bytes
        yield Known(f"ONNX Runtime: {spelled(size)} between two nodes", copied_in_a_graph(copies), size, short=short, must=on_cpu)


def in_a_library() -> Iterator[Known]:
    """Through malloc, mmap and threads of a compiled library."""
    size = 16 * MIB
    for what, name, short in (
        ("malloc and free", "within_call", True),
        ("calloc, realloc and free", "grown", False),
        ("posix_memalign and free", "aligned", False),
        ("mmap and munmap in two halves", "mapped", True),
        ("malloc and free in another thread", "threaded", True),
        ("malloc, freed by the next call", "until_next_call", False),
        ("malloc of a function looked up by name", "hidden", True),
    ):
        yield in_c(f"library: 16 MiB, {what}", size, 0, name, size, short=short)
    yield in_c("library: 10 000 x 4 KiB, malloc and free", 10_000 * 4 * KIB, 0, "many", 10_000, 4 * KIB)
    for what, name in (("malloc", "leak"), ("malloc in another thread", "threaded_leak"), ("mmap", "map_leak")):
        yield in_c(f"library: 2 MiB, {what}, never freed", 2 * MIB, 2 * MIB, name, 2 * MIB, short=name == "leak")
    yield in_c("library: 1000 bytes, malloc, never freed", 1000, 1000, "leak", 1000, short=True)


def in_c(plant: str, peak_bytes: int, leak_bytes: int, name: str, *sizes: int, short: bool = False) -> Known:
    """A kernel that calls one function of the library in every call."""
    calling = around(lambda _: lambda: library.call(name, *sizes), devices=("cpu",))
    return Known(plant, calling, peak_bytes, leak_bytes, short=short, needs=library.library)


def outside_torch() -> Iterator[Known]:
    """Device memory that torch's allocator does not see."""
    size = 32 * MIB
    kept = around(lambda _: lambda: cuda_malloc(size), devices=("cuda",))
    yield Known("cudaMalloc: 32 MiB in every call, never freed", kept, size, size, short=True)
    within = around(lambda _: lambda: cuda_free(cuda_malloc(size)), devices=("cuda",))
    yield Known("cudaMalloc: 32 MiB, freed within the call", within, size, must=False)


def large_output(workspace: int) -> Kernel:
    """Its output is a part of a storage of 16 MiB."""

    @kernel(Attention, name="large_output", family="allocating")
    def build(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001 - as above
        def run(inputs: AttentionInputs) -> torch.Tensor:
            held = block(workspace, setup.device)
            output = torch.empty(16 * MIB // 4, device=setup.device)[: inputs.q.numel()].view(inputs.q.shape)
            output.copy_(attention(inputs))
            del held
            return output

        return run

    return build


def at_once(count: int, size: int, device: torch.device) -> Work:
    """So many blocks, held together."""
    return lambda: [block(size, device) for _ in range(count)]


def in_turn(count: int, size: int, device: torch.device) -> Work:
    """So many blocks, each gone before the next."""

    def take() -> None:
        for _ in range(count):
            block(size, device)

    return take


def first_call_only(device: torch.device) -> Work:
    """A cache that the first call fills."""
    cache: list[torch.Tensor] = []

    def take() -> None:
        if not cache:
            cache.append(block(32 * MIB, device))

    return take


def keeping(most: int | None, device: torch.device) -> Work:
    """The blocks of the last calls, at most so many; None: of all calls."""
    kept: deque[torch.Tensor] = deque(maxlen=most)
    return lambda: kept.append(block(4 * MIB, device))


def cyclic(device: torch.device) -> Work:
    """A block that refers to itself: only the garbage collector frees it."""

    def take() -> None:
        cycle: list[Any] = [block(4 * MIB, device)]
        cycle.append(cycle)

    return take


def copied_in_a_graph(copies: int) -> Kernel:
    """Attention of the largest of so many copies of q, which is q."""

    @kernel(Attention, name="copied", family="allocating", own_allocator=True, requires=("onnx", "onnxruntime"))
    def build(problem: Attention, setup: Setup) -> Run:
        from onnx import helper

        from kerneldyno.kernels._onnxsession import constant, model, session, value

        shape = [problem.batch, problem.heads, problem.q_len, problem.head_dim]
        nodes = [
            helper.make_node("Expand", ["q", "shape"], ["copies"]),
            helper.make_node("ReduceMax", ["copies", "axis"], ["largest"]),
            helper.make_node("Attention", ["largest", "k", "v"], ["output"], scale=problem.scale),
        ]
        constants = [constant("shape", torch.tensor([copies, *shape[1:]])), constant("axis", torch.tensor([0]))]
        given = [value(name, problem.dtype, shape) for name in "qkv"]
        loaded = session(model(nodes, given, value("output", problem.dtype, shape), constants), setup, "qkv", "output")

        def run(inputs: AttentionInputs) -> torch.Tensor:
            return loaded.run({"q": inputs.q, "k": inputs.k, "v": inputs.v}, torch.empty_like(inputs.q))

        return run

    return build


def cuda_malloc(size: int) -> int:
    """Device memory straight from the CUDA runtime; its address."""
    pointer = ctypes.c_void_p()
    if code := cuda_runtime().cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(size)):
        raise MemoryError(f"cudaMalloc of {size} bytes failed with code {code}")
    return pointer.value or 0


def cuda_free(address: int) -> None:
    """Give it back."""
    cuda_runtime().cudaFree(ctypes.c_void_p(address))


def cuda_runtime() -> ctypes.CDLL:
    """The runtime that torch has loaded."""
    return ctypes.CDLL(f"libcudart.so.{(torch.version.cuda or '').partition('.')[0]}")


def spelled(size: int) -> str:
    """Bytes in the unit that suits them: "16 MiB"."""
    return f"{size / MIB:.4g} MiB" if size >= MIB else f"{size / KIB:.4g} KiB"
