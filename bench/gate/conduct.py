"""How a kernel behaves beyond its numbers: what it does to inputs, memory and threads."""

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

from .errors import Misconduct
from .state import Snapshot
from .verify import parts

Call = Callable[[Any], Any]


class Lingers(Misconduct):
    """Something of the kernel is still at work: this process is of no use for measuring any more."""


ALIVE, MANY_ALIVE, MANY_BYTES = 4, 12, 2**24
"""Results of so many calls are kept alive at once, of small outputs more: no two may share memory."""
LINGERING_SHARE, LINGERING_S = 0.25, 0.005
"""Threads that use more processor time after the return than this share of the call, and this long, are still computing."""
IDLE_S = 0.02
"""For so long it is watched what others do before the call."""
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


def behaves(call: Call, inputs: Any, other: Any, device: torch.device, *, differ: Callable[[], bool] = lambda: True) -> Conduct:
    """Call on two sets of inputs, at the same addresses; raise Misconduct for what benchmarks fall for.

    `differ` says whether the two have different right answers. The inputs are afterwards what they were before.

    Caught here: inputs changed in place, answers that share memory with an input or with the previous answer, results
    memoized by data pointer, answers that are lazy or not finished, global state left changed.
    """
    before = inputs.map(torch.clone)
    try:
        return _behaves(call, inputs, before, other, device, differ)
    finally:
        copy_into(inputs, before)


def _behaves(call: Call, inputs: Any, before: Any, other: Any, device: torch.device, differ: Callable[[], bool]) -> Conduct:
    with left_alone():
        first, kept, call_s = _first(call, inputs, device)
    inputs_unchanged(inputs, before)
    answers = parts(first)
    if not all(isinstance(answer, torch.Tensor) for answer in answers):
        return Conduct(first, first, call_s)  # what is wrong with it, `verify` says
    storages = {tensor.untyped_storage().data_ptr() for tensor in inputs.tensors().values() if tensor.numel()}
    if any(answer.untyped_storage().data_ptr() in storages for answer in answers):
        raise Misconduct("returns memory of its inputs")
    copy_into(inputs, other)
    answer = call(inputs)
    synchronize(device)
    inputs_unchanged(inputs, other)
    copy_into(inputs, before)
    second = parts(answer)
    pairs = list(zip(answers, second, kept, strict=True))
    if any(a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() for a, b, _ in pairs):
        raise Misconduct("returns the same buffer in two calls: the second overwrites the first result")
    if any(not same(a, kept_one) for a, _, kept_one in pairs):
        raise Misconduct("changes a result that it has returned before")
    alike = pairs and all(torch.equal(a, b) for a, b, _ in pairs) and not all(_constant(a) for a in answers)
    if alike and differ():
        raise Misconduct("returns the same result for other values at the same address: results are memoized, or inputs ignored")
    _memory_of_its_own(call, inputs, [answers, second], kept)
    return Conduct(first, answer, call_s)


def _memory_of_its_own(call: Call, inputs: Any, held: list[list[Any]], kept: list[Any]) -> None:
    """Make some more calls while all results are held; raise Misconduct when two share memory, or the first has changed."""
    small = sum(tensor.numel() * tensor.element_size() for tensor in kept) <= MANY_BYTES
    while len(held) < (MANY_ALIVE if small else ALIVE):
        held.append(parts(call(inputs)))
    places = [tensor.untyped_storage().data_ptr() for answers in held for tensor in answers if tensor.numel()]
    if len(set(places)) < len(places):
        raise Misconduct(f"hands out the same buffer again while earlier results are held ({len(held)} calls)")
    if any(not same(tensor, copy) for tensor, copy in zip(held[0], kept, strict=True)):
        raise Misconduct("changes a result that it has returned before")


def _first(call: Call, inputs: Any, device: torch.device) -> tuple[Any, list[Any], float]:
    """(answer, what it held when it was returned, seconds of the call); raises Misconduct when it was not finished then."""
    synchronize(device)
    idle = (0.0, 0.0) if device.type == "cuda" else tuple(used_s / IDLE_S for used_s in _others_s(IDLE_S))
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
    _nothing_lingers(call_s, device, (idle[0], idle[1]))
    if any(not same(tensor, copy) for tensor, copy in zip(tensors, kept, strict=True)):
        raise Misconduct("goes on writing its result after it has returned: the call is not over when the clock stops")
    return answer, kept, call_s


def _nothing_lingers(call_s: float, device: torch.device, idle: tuple[float, float]) -> None:
    """Wait about as long as the call took; raise Lingers when threads or child processes were busy meanwhile.

    `idle` are the shares of a processor that they used before the call: somebody else's leftovers.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return
    wait_s = min(max(call_s, 0.01), 0.25)
    for used_s, noise_s, who in zip(_others_s(wait_s), idle, ("threads", "child processes"), strict=True):
        if used_s - noise_s * wait_s > max(LINGERING_S, LINGERING_SHARE * min(call_s, wait_s)):
            raise Lingers(f"goes on working after it has returned: its {who} used {used_s * 1e3:.0f} ms of the next {wait_s * 1e3:.0f} ms")


def busy_others_s(device: torch.device) -> float:
    """Processor seconds that other threads and child processes use within IDLE_S; 0 on a GPU, where nobody asks."""
    return 0.0 if device.type == "cuda" else sum(_others_s(IDLE_S))


def left_behind(before_s: float, device: torch.device) -> None:
    """Raise Lingers when others are busier now, look after look, than they were before a build and its first call."""
    if all(busy_others_s(device) - before_s > LINGERING_S for _ in range(3)):
        raise Lingers("leaves threads or processes behind that go on working after its build and first call")


def _others_s(wait_s: float) -> tuple[float, float]:
    """Processor seconds that other threads, and child processes, use while this thread sleeps for `wait_s`."""
    time.sleep(SHORT_SPINNING_S if "GOMP_SPINCOUNT" in os.environ else SPINNING_S)
    before, own, children = time.process_time(), time.thread_time(), _children_s()
    time.sleep(wait_s)
    return (time.process_time() - before) - (time.thread_time() - own), _children_s() - children


def _children_s() -> float:
    """Processor time that child processes have used so far, but for those in which torch.compile waits for work."""
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any("compile_worker" in word for word in child.cmdline()):
                continue
            times = child.cpu_times()
            total += times.user + times.system
    return total


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
    outputs = [tensor.flatten().double() for tensor in parts(answer) if tensor.numel() > 1]
    for tensor in _tensors_in(prepared, set()):
        if any(tensor.numel() == output.numel() and torch.allclose(tensor.flatten().to(output), output, atol=1e-6) for output in outputs):
            raise Misconduct("prepares its answer: what is done untimed, once per inputs, holds the result already")


def _tensors_in(thing: Any, seen: set[int], depth: int = 6) -> Iterator[torch.Tensor]:
    """Tensors that an object holds: in its fields, its items and what its functions close over, but not in whole modules."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    elif depth and not isinstance(thing, str | bytes | int | float | type | ModuleType | None):
        held = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
        if isinstance(thing, FunctionType):
            held += [thing.__closure__, thing.__defaults__]
        elif isinstance(thing, dict | list | tuple | set | CellType):
            held += gc.get_referents(thing)
        for inner in held:
            yield from _tensors_in(inner, seen, depth - 1)


def copy_into(target: Any, source: Any) -> None:
    """Write the numbers of one set of inputs into the memory of another."""
    for name, tensor in target.tensors().items():
        tensor.copy_(source.tensors()[name])


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal to the bit, NaN included."""
    return bool(torch.equal(a, b) or torch.equal(torch.nan_to_num(a, nan=1.5), torch.nan_to_num(b, nan=1.5)))


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else int(psutil.virtual_memory().available)


def synchronize(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def inputs_unchanged(inputs: Any, before: Any) -> None:
    """Raise Misconduct when a call has changed its inputs."""
    for name, tensor in inputs.tensors().items():
        if not torch.equal(tensor, before.tensors()[name]):
            raise Misconduct(f"changes its input {name} in place")


def _constant(tensor: torch.Tensor) -> bool:
    """All numbers alike: zeros, or not finite; `verify` judges them, nothing was remembered."""
    return bool((tensor == tensor.flatten()[0]).all()) or not bool(torch.isfinite(tensor).all())
