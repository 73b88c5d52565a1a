"""Kernels put through the gate, each in a process of its own, so that no cheat outlives its turn.

A server process per problem computes the right answers once and is forked for every kernel: with a single thread torch
survives that. CUDA does not, so there the kernels of one problem share the server.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from kerneldyno.kernels.registry import Device, Problem


SHIPPED = "shipped"
"""The source of the project's own kernels."""
SILENCE_S = 400.0
"""A server that says nothing for so long is ended: it gives up on a single kernel long before."""
PRELOADED = (
    "kerneldyno.bench.selftest.server",
    "kerneldyno.bench.measure",
    "kerneldyno.bench.gate.examine",
    "kerneldyno.kernels.registry",
    "typer",
    "rich.console",
)

Look = Literal["gate", "identity", "nothing"]
"""What is asked: whether it is right and behaves, whether it is what its name says, or nothing at all: it is only called, which
shows whether the self-test notices."""
Outcome = Literal["passed", "refused", "unable", "broken"]


@dataclass(frozen=True)
class Job:
    """Kernels to be examined at one problem."""

    problem: Problem
    kernels: tuple[tuple[str, str], ...]
    """(source, name): the module whose `plants()` or `impostors()` hold it, or SHIPPED."""
    device: Device
    seed: int
    look: Look = "gate"


class Answer(msgspec.Struct, frozen=True):
    """What the gate said of one kernel."""

    source: str
    kernel: str
    outcome: Outcome
    """refused: as wrong or for misconduct; unable: it does not take the problem here; broken: neither, it raised or died."""
    said: str
    seconds: float = 0.0


@dataclass
class _Server:
    """A process that is at work on a job."""

    process: BaseProcess
    job: Job
    owed: list[tuple[str, str]]
    """Kernels that it has not said anything of."""
    heard: float
    """When it was last heard of."""


def examined(jobs: Sequence[Job], *, parallel: int, stop: Callable[[], bool]) -> Iterator[tuple[Job, Answer]]:
    """What the gate says of every kernel of every job, as it comes; ends early when `stop` says so."""
    from .server import serve

    context = get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    waiting, running = deque(jobs), dict[Any, _Server]()
    try:
        while (waiting or running) and not stop():
            while waiting and len(running) < parallel:
                job = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=serve, args=(job, theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = _Server(process, job, list(job.kernels), time.monotonic())
            for ready in connection.wait(list(running), timeout=0.5):
                server = running[ready]
                try:
                    answer = msgspec.json.decode(ready.recv_bytes(), type=Answer)  # type: ignore[union-attr]
                except EOFError:
                    if stop():
                        return  # it was stopped, too
                    del running[ready]
                    server.process.join()
                    died = f"the process that was to examine it died ({ending(server.process.exitcode)})"
                    yield from ((server.job, Answer(*key, "broken", died)) for key in server.owed)
                else:
                    server.owed.remove((answer.source, answer.kernel))
                    server.heard = time.monotonic()
                    yield server.job, answer
            for server in running.values():
                if time.monotonic() - server.heard > SILENCE_S:
                    server.process.kill()
    finally:
        for server in running.values():
            server.process.kill()
            server.process.join()


def ending(code: int | None) -> str:
    """How a process ended."""
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
