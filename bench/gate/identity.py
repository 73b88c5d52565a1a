"""What ran when a kernel was called: seen by the profilers of torch and ONNX Runtime, judged by the kernel's own `identified`."""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined] # it is re-exported without saying so
from torch.autograd.profiler import profile, record_function  # torch.profiler does the same after a second of imports

from kerneldyno.kernels.registry import Kernel, Problem, Run, Setup, Trace

from .products import is_product, product_flops
from .state import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch.autograd.profiler_util import FunctionEvent

NOT_SEEN = "not seen: "
"""An identity that begins so tells why nothing could be seen; that is no fault of the kernel."""
PROFILED_CALLS = 2
"""Calls of the profiled build. A session that ran less often served the build only, and what it ran does not count."""
MARK = "kerneldyno call"
"""Stands around the call in what the profiler saw: where it is missing, the profiler saw nothing."""
COMPILED_REGION = "Torch-Compiled Region"
COMPILED = (COMPILED_REGION, "CompiledFunction")
"""How the names of events begin that stand for code compiled by torch.compile, forward and backward."""


class CannotWatch(Exception):
    """The profiler did not work; the message says why."""


def identify(kernel: Kernel, problem: Problem, setup: Setup, run: Run, inputs: Any, *, breaks_before: int = 0) -> str | None:
    """What was seen to run, in a few words; None when the kernel's name claims nothing.

    `inputs` are what `run` takes (prepared ones); `breaks_before` is what `graph_breaks` gave before the kernel was
    built. Raises NotAsNamed when what ran is not what the name says, and what the kernel raises. Where the machine
    cannot be watched, the answer begins with NOT_SEEN.
    """
    if kernel.identified is None:
        return None
    try:
        trace = observe(kernel, problem, setup, run, inputs, breaks_before=breaks_before)
    except CannotWatch as error:
        return f"{NOT_SEEN}{error}"
    return kernel.identified(problem, setup, trace)


def observe(kernel: Kernel, problem: Problem, setup: Setup, run: Run, inputs: Any, *, breaks_before: int = 0) -> Trace:
    """Call `run` once and see what runs; a kernel that needs ONNX Runtime is built once more, with that one's profiler on.

    Raises CannotWatch when a profiler does not start, or tells nothing.
    """
    seen = _watched(run, inputs, setup.device)
    nodes = _profiled_nodes(kernel, problem, setup, inputs) if "onnxruntime" in kernel.needs(setup.device.type) else ()
    return replace(seen, nodes=nodes, graph_breaks=max(0, graph_breaks() - breaks_before))


def graph_breaks() -> int:
    """Graph breaks of torch.compile in this process so far."""
    utils = sys.modules.get("torch._dynamo.utils")  # nobody has compiled anything where it is not loaded
    return sum(utils.counters["graph_break"].values()) if utils else 0


def _watched(run: Run, inputs: Any, device: torch.device) -> Trace:
    on_gpu = device.type == "cuda"
    failure: BaseException | None = None
    try:
        with profile(use_device="cuda" if on_gpu else None, use_kineto=True, record_shapes=True) as watch:
            try:
                with record_function(MARK):
                    run(inputs)
                if on_gpu:
                    torch.cuda.synchronize(device)
            except BaseException as error:  # noqa: BLE001 - of the kernel, not of the profiler: raised again below
                failure = error
        events = watch.function_events
    except (RuntimeError, AssertionError) as error:
        if failure is None:
            raise CannotWatch(f"torch's profiler did not work: {str(error).partition(chr(10))[0]}") from error
    if failure is not None:
        raise failure
    if not any(event.name == MARK for event in events or ()):
        raise CannotWatch("torch's profiler saw nothing")
    return _trace(events or (), on_gpu=on_gpu)


def _trace(events: Iterable[FunctionEvent], *, on_gpu: bool) -> Trace:
    on_host = [event for event in events if event.device_type == DeviceType.CPU and event.name != MARK]
    on_device = [event for event in events if event.device_type == DeviceType.CUDA and event.name != MARK]
    products = [event for event in on_host if is_product(event.name) and not any(is_product(above.name) for above in _ancestors(event))]
    flops = [product_flops(event.name, event.input_shapes) for event in products]
    eager = [not any(above.name.startswith(COMPILED) for above in _ancestors(event)) for event in products]
    return Trace(
        operators=Counter(event.name for event in [*on_host, *on_device]),
        regions=sum(event.name.startswith(COMPILED_REGION) for event in on_host),
        product_flops=sum(flops),
        eager_flops=sum(number for number, outside in zip(flops, eager, strict=True) if outside),
        device_watched=bool(on_device) or not on_gpu,
    )


def _ancestors(event: FunctionEvent) -> Iterator[FunctionEvent]:
    above = event.cpu_parent
    while above is not None:
        yield above
        above = above.cpu_parent


def _profiled_nodes(kernel: Kernel, problem: Problem, setup: Setup, inputs: Any) -> tuple[tuple[str, str], ...]:
    """(operator type, execution provider) of the nodes of one call, from a build of its own: profiling slows a session."""
    with tempfile.TemporaryDirectory() as folder:
        before = Snapshot.now()
        try:
            run = kernel.build(problem, replace(setup, profile=Path(folder)))
        finally:
            before.restore()  # what the first build changed is known and was put back
        for _ in range(PROFILED_CALLS):
            run(inputs)
        del run  # a session writes its profile when it goes
        profiles = sorted(Path(folder).rglob("*.json"))
        if any(path.stat().st_size == 0 for path in profiles):
            gc.collect()  # something refers to itself
        return tuple(node for path in profiles for node in nodes_of(path))


def nodes_of(path: Path) -> list[tuple[str, str]]:
    """(operator type, execution provider) of the nodes in the last run that an ONNX Runtime profile tells of.

    Empty when it tells of fewer than PROFILED_CALLS runs. Raises CannotWatch for what is no whole profile.
    """
    try:
        events = json.loads(path.read_bytes())
        runs = 0
        last: list[tuple[str, str]] = []
        current: list[tuple[str, str]] = []
        for event in events:
            if event["name"] == "model_run":
                runs, last, current = runs + 1, current, []
            elif event["cat"] == "Node" and "op_name" in event.get("args", {}):
                current.append((event["args"]["op_name"], event["args"].get("provider", "")))
    except (ValueError, TypeError, KeyError) as error:
        raise CannotWatch(f"the profile of ONNX Runtime is not whole ({error}): its session is still alive") from error
    return last if runs >= PROFILED_CALLS else []
