"""How a kernel behaves beyond its numbers: what it does to inputs, memory and threads, and what it remembers."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import CellType, FunctionType, ModuleType
from typing import Any

import psutil
import torch

from kerneldyno.kernels.registry import Gradients, Problem

from .errors import Misconduct
from .state import Snapshot

Call = Callable[[Any], Any]

REMEMBERED = 0.6
"""When the fastest call on numbers seen before takes less than this share of the fastest on new numbers, results are remembered."""
PAIRS, FEW_PAIRS = 6, 3
ALIVE = 4
"""Results of so many calls are kept alive at once: no two may share memory."""
LONG_CALL_S, TOO_LONG_S = 0.01, 0.5
LINGERING_SHARE, LINGERING_S = 0.25, 0.005
"""Threads that use more processor time after the return than this share of the call, and this long, are still computing."""
SPINNING_S, SHORT_SPINNING_S = 0.05, 0.002
"""Idle threads of OpenMP spin so long before they sleep, the second where GOMP_SPINCOUNT is set, as in workers."""


@dataclass(frozen=True)
class Conduct:
    """What came of two well-behaved calls."""

    first: Any
    """The answer for the first inputs."""
    second: Any
    """The answer for the others."""
    call_s: float
    """Seconds of the first call."""


def behaves(call: Call, inputs: Any, other: Any, device: torch.device) -> Conduct:
    """Call on two sets of inputs, at the same addresses; raise Misconduct for what benchmarks fall for.

    Caught here: inputs changed in place, answers that share memory with an input or with the previous answer, results
    memoized by data pointer, answers that are lazy or not finished, global state left changed.
    """
    before = inputs.map(torch.clone)
    with left_alone():
        first, kept, call_s = _first(call, inputs, device)
    _inputs_unchanged(inputs, before)
    answers = parts(first)
    if not all(isinstance(answer, torch.Tensor) for answer in answers):
        return Conduct(first, first, call_s)  # what is wrong with it, `verify` says
    storages = {tensor.untyped_storage().data_ptr() for tensor in inputs.tensors().values() if tensor.numel()}
    if any(answer.untyped_storage().data_ptr() in storages for answer in answers):
        raise Misconduct("returns memory of its inputs")
    copy_into(inputs, other)
    try:
        answer = call(inputs)
        synchronize(device)
        _inputs_unchanged(inputs, other)
    finally:
        copy_into(inputs, before)
    second = parts(answer)
    pairs = list(zip(answers, second, kept, strict=True))
    if any(a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() for a, b, _ in pairs):
        raise Misconduct("returns the same buffer in two calls: the second overwrites the first result")
    if any(not same(a, kept_one) for a, _, kept_one in pairs):
        raise Misconduct("changes a result that it has returned before")
    if pairs and all(torch.equal(a, b) for a, b, _ in pairs) and not all(_constant(a) for a in answers):
        raise Misconduct("returns the same result for other values at the same address: results are memoized, or inputs ignored")
    _memory_of_its_own(call, inputs, [answers, second], kept)
    return Conduct(first, answer, call_s)


def _memory_of_its_own(call: Call, inputs: Any, held: list[list[Any]], kept: list[Any]) -> None:
    """Make some more calls while all results are held; raise Misconduct when two share memory, or the first has changed."""
    while len(held) < ALIVE:
        held.append(parts(call(inputs)))
    places = [tensor.untyped_storage().data_ptr() for answers in held for tensor in answers if tensor.numel()]
    if len(set(places)) < len(places):
        raise Misconduct(f"hands out the same buffer again while earlier results are held ({len(held)} calls)")
    if any(not same(tensor, copy) for tensor, copy in zip(held[0], kept, strict=True)):
        raise Misconduct("changes a result that it has returned before")


def _first(call: Call, inputs: Any, device: torch.device) -> tuple[Any, list[Any], float]:
    """(answer, what it held when it was returned, seconds of the call); raises Misconduct when it was not finished then."""
    synchronize(device)
    started = time.perf_counter()
    answer = call(inputs)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    call_s = time.perf_counter() - started
    tensors = parts(answer)
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        return answer, [], call_s
    for tensor in tensors:
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            raise Misconduct(f"returns {type(tensor).__name__}, a kind of tensor that may compute when it is looked at")
    kept = [tensor.detach().clone() for tensor in tensors]
    _nothing_lingers(call_s, device)
    if any(not same(tensor, copy) for tensor, copy in zip(tensors, kept, strict=True)):
        raise Misconduct("goes on writing its result after it has returned: the call is not over when the clock stops")
    return answer, kept, call_s


def _nothing_lingers(call_s: float, device: torch.device) -> None:
    """Wait about as long as the call took; raise Misconduct when threads or child processes were busy meanwhile."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return
    time.sleep(SHORT_SPINNING_S if "GOMP_SPINCOUNT" in os.environ else SPINNING_S)
    wait_s = min(max(call_s, 0.01), 0.25)
    before, own, children = time.process_time(), time.thread_time(), _children_s()
    time.sleep(wait_s)
    threads_s = (time.process_time() - before) - (time.thread_time() - own)
    for used_s, who in ((threads_s, "threads"), (_children_s() - children, "child processes")):
        if used_s > max(LINGERING_S, LINGERING_SHARE * min(call_s, wait_s)):
            raise Misconduct(
                f"goes on working after it has returned: its {who} used {used_s * 1e3:.0f} ms of the next {wait_s * 1e3:.0f} ms"
            )


def _children_s() -> float:
    """Processor time that child processes have used so far, those of compilers included."""
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            times = child.cpu_times()
            total += times.user + times.system
    return total


def forgets(call: Call, problem: Problem, inputs: Any, device: torch.device, call_s: float, seed: int) -> None:
    """Raise Misconduct when calls on numbers that were seen before are much faster: then results are remembered by value.

    New numbers, the same numbers written again, and the same untouched are timed in turn; what happens before each call
    is the same, so that caches and threads are in the same state. Who is suspected is timed once more, with other numbers.
    Calls of more than TOO_LONG_S are let off.
    """
    if call_s > TOO_LONG_S:
        return
    pairs = PAIRS if call_s < LONG_CALL_S else FEW_PAIRS
    if _suspicion(call, inputs, [problem.inputs(seed + i, device) for i in range(pairs)], device) is None:
        return
    if suspicion := _suspicion(call, inputs, [problem.inputs(seed + pairs + i, device) for i in range(pairs)], device):
        raise Misconduct(suspicion)


def _suspicion(call: Call, inputs: Any, drawn: list[Any], device: torch.device) -> str | None:
    """A sentence when calls on numbers seen before are quick; None when they are not."""
    slot, spare, warming = (inputs.map(torch.clone) for _ in range(3))
    new, again, untouched = [], [], []
    for fresh in drawn:
        for taken, target in ((new, slot), (again, slot), (untouched, spare)):
            copy_into(target, fresh)
            call(warming)  # threads that have slept meanwhile wake up outside of the timed call
            taken.append(_seconds(call, slot, device))
    for taken, how in ((again, "written once more"), (untouched, "left where they were")):
        share = min(taken) / min(new)  # the machine only lengthens calls, and what is new always costs the whole work
        if share < REMEMBERED:
            return f"takes {share:.0%} of the time on numbers that it has seen before ({how}): results are remembered by value"
    return None


def _seconds(call: Call, inputs: Any, device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    call(inputs)
    synchronize(device)
    return time.perf_counter() - started


@contextmanager
def left_alone(*, silent: tuple[str, ...] = ()) -> Iterator[None]:
    """Raise Misconduct when global state is another one afterwards, but for what is `silent`; it is put back in any case."""
    before = Snapshot.now()
    try:
        yield
    finally:
        changed = before.restore(silent=silent)
    if changed:
        raise Misconduct(f"changes global state: {', '.join(changed)}")


def answered_in_advance(prepared: Any, answer: Any) -> None:
    """Raise Misconduct when what `prepare` made, which is not timed, holds the answer already."""
    outputs = [tensor for tensor in parts(answer) if tensor.numel() > 1]
    for tensor in _tensors_in(prepared):
        if any(tensor.shape == output.shape and tensor.dtype == output.dtype and torch.equal(tensor, output) for output in outputs):
            raise Misconduct("prepares its answer: what is done untimed, once per inputs, holds the result already")


def _tensors_in(thing: Any, depth: int = 6) -> Iterator[torch.Tensor]:
    """Tensors that an object holds: in its fields, its items and what its functions close over."""
    if isinstance(thing, torch.Tensor):
        yield thing
    elif depth and not isinstance(thing, str | bytes | int | float | type | ModuleType | None):
        held = vars(thing).values() if hasattr(thing, "__dict__") else ()
        for inner in (*held, *(gc.get_referents(thing) if isinstance(thing, dict | list | tuple | set | FunctionType | CellType) else ())):
            if not isinstance(inner, dict) or inner is not globals():
                yield from _tensors_in(inner, depth - 1)


def parts(answer: Any) -> list[Any]:
    """The tensors of an answer."""
    return [answer.output, *answer.by_name.values()] if isinstance(answer, Gradients) else [answer]


def copy_into(target: Any, source: Any) -> None:
    """Write the numbers of one set of inputs into the memory of another."""
    for name, tensor in target.tensors().items():
        tensor.copy_(source.tensors()[name])


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal to the bit, NaN included."""
    return bool(torch.equal(a, b) or torch.equal(torch.nan_to_num(a, nan=1.5), torch.nan_to_num(b, nan=1.5)))


def synchronize(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _inputs_unchanged(inputs: Any, before: Any) -> None:
    for name, tensor in inputs.tensors().items():
        if not torch.equal(tensor, before.tensors()[name]):
            raise Misconduct(f"changes its input {name} in place")


def _constant(tensor: torch.Tensor) -> bool:
    """All numbers alike: zeros, or not finite; `verify` judges them, nothing was remembered."""
    return bool((tensor == tensor.flatten()[0]).all()) or not bool(torch.isfinite(tensor).all())
