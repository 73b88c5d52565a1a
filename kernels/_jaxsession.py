"""Functions of JAX compiled by XLA, on torch's memory and with as many threads as torch has."""

from __future__ import annotations

import gc
import os
import re
from collections import Counter
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.dlpack import from_dlpack

from .contract import NotAsNamed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .contract import Setup, Trace

TASKS = Path("/proc/self/task")
POOL = "tf_XLAEigen"
"""How the names of the threads begin among which XLA divides its work on a CPU."""
PRODUCT = re.compile(r"\s(dot|custom-call)\(.*?(?:custom_call_target=\"([^\"]+)\"|$)")
"""An instruction in the text of a compiled module that multiplies matrices: its own, or that of a library."""


def compiled(function: Callable[..., Any], examples: Sequence[torch.Tensor], setup: Setup) -> Callable[..., Any]:
    """`function` of JAX arrays, compiled for tensors like `examples`, as a function of torch tensors that returns such.

    Inputs are read where they lie, unless they are not contiguous or do not begin at a multiple of 64 bytes: those are
    copied in the call. Outputs are XLA's own memory, fresh in every call and complete when it returns.

    JAX runs on as many threads as torch does now: where it was started with others, it is started anew. Raises RuntimeError
    when that does not work.
    """
    jax, device = _started(setup.device)
    given = _on_host(jax) if setup.device.type == "cpu" else lambda tensor: jax.dlpack.from_dlpack(tensor.contiguous())

    precision = "highest" if examples[0].dtype is torch.float32 else None  # a GPU's would be TF32, three decimal digits short

    @wraps(function)
    def exact(*arrays: Any) -> Any:
        with jax.default_matmul_precision(precision):
            return function(*arrays)

    fast = jax.jit(exact, in_shardings=jax.sharding.SingleDeviceSharding(device))

    def call(*tensors: torch.Tensor) -> Any:
        # the GPU's streams: each side makes its own wait for the other's, and the host waits for XLA's in any case
        found = jax.block_until_ready(fast(*map(given, tensors)))
        return jax.tree.map(from_dlpack, found)

    call(*examples)
    return call


def _on_host(jax: Any) -> Callable[[torch.Tensor], Any]:
    """tensor -> numpy array of the same memory, which jit takes as it is: ten times as fast as JAX's from_dlpack (3 for 30 µs)."""
    short = jax.numpy.bfloat16.dtype  # numpy has none of its own

    def view(tensor: torch.Tensor) -> Any:
        tensor = tensor.contiguous()
        return tensor.view(torch.int16).numpy().view(short) if tensor.dtype is torch.bfloat16 else tensor.numpy()

    return view


def _started(device: torch.device) -> tuple[Any, Any]:
    """JAX and its device; a first call starts its backends, with a pool as large as torch's and no memory taken in advance."""
    threads = torch.get_num_threads()
    with _environment(NPROC=str(threads), PJRT_NPROC=str(threads), XLA_PYTHON_CLIENT_PREALLOCATE="false"):
        import jax

        # a call that is waited for gains nothing from another thread; this counts only before the first backend starts
        settings: Any = jax.config
        settings.update("jax_cpu_enable_async_dispatch", False)
        left = _stopped(jax) if device.type == "cpu" and _pool_threads() not in (0, threads) else 0
        found = jax.devices(device.type)[device.index or 0]
    running = _pool_threads() - left
    if device.type == "cpu" and running not in (0, threads):
        raise RuntimeError(
            f"JAX runs on {running} threads and torch on {threads}: it takes the number when it starts, and did not start again"
        )
    return jax, found


def _stopped(jax: Any) -> int:
    """Let JAX start anew, since it takes the number of its threads once; how many are left, idle, of what somebody still holds."""
    from jax.extend import backend

    jax.clear_caches()
    backend.clear_backends()  # type: ignore[no-untyped-call]
    gc.collect()
    return _pool_threads()


@contextmanager
def _environment(**wanted: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _pool_threads() -> int:
    """Threads of XLA's pool on the CPU; 0 where they cannot be counted."""
    names = []
    for task in TASKS.glob("*/comm"):
        try:
            names.append(task.read_text())
        except OSError:  # it has ended meanwhile
            continue
    return sum(name.startswith(POOL) for name in names)


def ran_executable(name: str) -> Callable[[Any, Setup, Trace], str]:
    """A judge: torch multiplied nothing in the call, and XLA holds an executable of this function on the problem's device.

    That the executable is what gave the answer follows, as nothing else did; the profiler of torch does not see into it.
    """

    def judge(problem: Any, setup: Setup, trace: Trace) -> str:
        if trace.product_flops:
            raise NotAsNamed(f"torch multiplied matrices in the call ({trace.product_flops:.3g} flop): XLA did not do it all")
        if trace.regions:
            raise NotAsNamed("code compiled by torch.compile ran in the call: XLA did not do it all")
        modules = _modules(name, setup.device)
        shape = f"[{','.join(str(size) for size in problem.output_shape(setup.calibration))}]"
        fitting = [text for text in modules if shape in text.partition("\n")[0]]
        if not fitting:
            raise NotAsNamed(f"XLA holds no executable of {name} for {shape} on {setup.device.type}, but {len(modules)} for other shapes")
        return f"XLA {setup.device.type}: {_products(fitting[-1]) or 'no matrix product left'}"

    return judge


def _modules(name: str, device: torch.device) -> list[str]:
    """The optimized HLO of the live executables of jit-compiled functions of that name, as text."""
    import jax

    client = jax.devices(device.type)[device.index or 0].client
    modules = [module for executable in client.live_executables() for module in executable.hlo_modules()]
    return [module.to_string() for module in modules if module.name == f"jit_{name}"]


def _products(text: str) -> str:
    """ "dot ×2": what multiplies in an optimized module, by instruction or by the library function that is called."""
    counts = Counter(match[2] or match[1] for line in text.splitlines() if (match := PRODUCT.search(line)))
    return ", ".join(name if number == 1 else f"{name} ×{number}" for name, number in counts.items())
