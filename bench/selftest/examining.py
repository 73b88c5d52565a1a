"""Kernels put through the gate, each in a process of its own, so that no cheat outlives its turn.

A server process per problem computes the right answers once and is forked for every kernel: with a single thread torch
survives that. CUDA does not, so there the kernels of one problem share the server.
"""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing import connection, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from kerneldyno.kernels.registry import Device, Kernel, Problem

    from ..gate.examine import Gate

SHIPPED = "shipped"
"""The source of the project's own kernels."""
PATIENCE_S = 180.0
"""One kernel may be examined for so long."""
PRELOADED = ("kerneldyno.bench.measure", "kerneldyno.bench.gate.examine", "kerneldyno.kernels.registry", "typer", "rich.console")

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
    context = get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    waiting, running = deque(jobs), dict[Any, _Server]()
    try:
        while (waiting or running) and not stop():
            while waiting and len(running) < parallel:
                job = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_serve, args=(job, theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = _Server(process, job, list(job.kernels), time.monotonic())
            for ready in connection.wait(list(running), timeout=0.5):
                server = running[ready]
                try:
                    answer = msgspec.json.decode(ready.recv_bytes(), type=Answer)  # type: ignore[union-attr]
                except EOFError:
                    del running[ready]
                    server.process.join()
                    died = f"the process that was to examine it died ({_code(server.process.exitcode)})"
                    yield from ((server.job, Answer(*key, "broken", died)) for key in server.owed)
                else:
                    server.owed.remove((answer.source, answer.kernel))
                    server.heard = time.monotonic()
                    yield server.job, answer
            for server in running.values():
                if time.monotonic() - server.heard > 2 * PATIENCE_S:
                    server.process.kill()
    finally:
        for server in running.values():
            server.process.kill()
            server.process.join()


def kernels_of(source: str) -> dict[str, Kernel]:
    """The kernels of a source by name."""
    if source == SHIPPED:
        from kerneldyno.kernels import registry

        return registry.load()
    module = import_module(source)
    kernels = module.impostors() if hasattr(module, "impostors") else [plant.kernel for plant in module.plants()]
    return {kernel.name: kernel for kernel in kernels}


def _serve(job: Job, answers: Connection) -> None:
    """Examine the kernels of one job and say what came of each; when that cannot be, say so of each."""
    done: list[Answer] = []

    def say(answer: Answer) -> None:
        done.append(answer)
        answers.send_bytes(msgspec.json.encode(answer))

    try:
        _examine_all(job, say)
    except Exception as error:  # noqa: BLE001 - it would be lost with the process
        why = "".join(traceback.format_exception_only(error)).strip()
        for source, name in job.kernels[len(done) :]:
            say(Answer(source, name, "broken", f"the gate could not be set up: {why}"))


def _examine_all(job: Job, say: Callable[[Answer], None]) -> None:
    import torch

    from kerneldyno.kernels.registry import Setup

    from .. import measure  # noqa: F401 - what times is to be there when the gate looks for replaced functions
    from ..gate.examine import Gate

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when it is over
    warnings.simplefilter("ignore")
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # libraries and dying kernels talk a lot
    on_cpu = job.device.kind == "cpu"
    if on_cpu:
        torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    gate = Gate(job.problem, Setup(torch.device(str(job.device))), seed=job.seed)
    if on_cpu and job.look == "gate":
        _look_up(gate)
    loaded = {source: kernels_of(source) for source in sorted({source for source, _ in job.kernels})}
    for source, name in job.kernels:
        started = time.perf_counter()
        ask = partial(_asked, gate, job, loaded[source][name])
        outcome, said = _forked(ask) if on_cpu else ask()
        say(Answer(source, name, outcome, said, time.perf_counter() - started))


def _look_up(gate: Gate) -> None:
    """Compute the right answers that every kernel needs, once for all of them; those of probes are for the few that come so far."""
    for truth in gate.truths:
        _ = truth.expected, truth.yardstick


def _asked(gate: Gate, job: Job, kernel: Kernel) -> tuple[Outcome, str]:
    """What the gate says of a kernel."""
    from kerneldyno.kernels.registry import NotAsNamed

    from ..gate.errors import Misconduct, WrongOutput

    if reason := kernel.why_not(job.problem, job.device):
        return "unable", reason
    try:
        if job.look == "gate":
            gate.admit(kernel)
        else:
            return _identify(gate, kernel, job.look)
    except (WrongOutput, Misconduct, NotAsNamed) as error:
        return "refused", f"{type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001 - a kernel may raise anything, SystemExit too
        return "broken", "".join(traceback.format_exception_only(error)).strip()
    return "passed", ""


def _identify(gate: Gate, kernel: Kernel, look: Look) -> tuple[Outcome, str]:
    """Build and call it; say what ran."""
    from ..gate import identity

    breaks = identity.graph_breaks()
    run = kernel.build(gate.problem, gate.setup)
    inputs = gate.truths[0].inputs
    given = kernel.prepare(gate.problem, gate.setup, inputs) if kernel.prepare else inputs
    run(given)
    if look == "nothing":
        return "passed", ""
    said = identity.identify(kernel, gate.problem, gate.setup, run, given, breaks_before=breaks) or ""
    return ("unable" if said.startswith(identity.NOT_SEEN) else "passed"), said


def _forked(ask: Callable[[], tuple[Outcome, str]]) -> tuple[Outcome, str]:
    """Ask in a copy of this process, which is killed when it takes too long."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)  # what it starts ends with it
            os.close(reading)
            os.write(writing, msgspec.json.encode(ask()))
        finally:
            os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], PATIENCE_S)
    said = os.read(reading, 1 << 20) if ready else b""
    os.close(reading)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if said:
        return msgspec.json.decode(said, type=tuple[Outcome, str])
    died = f"its process died ({_code(os.waitstatus_to_exitcode(status))})"
    return "broken", died if ready else f"no answer within {PATIENCE_S:g} s"


def _code(code: int | None) -> str:
    """How a process ended."""
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
