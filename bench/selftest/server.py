"""The process that examines the kernels of one job: it is forked for each of them, so that no cheat outlives its turn."""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .examining import SHIPPED, Answer, Job, Look, Outcome, ending

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from kerneldyno.kernels.registry import Kernel, Problem, Run, Setup

    from ..gate.examine import Gate

PATIENCE_S = 180.0
"""One kernel may be examined for so long."""
WORTH_IT = 4
"""With so many kernels at one problem, right answers of all probes are computed beforehand."""


def kernels_of(source: str) -> dict[str, Kernel]:
    """The kernels of a source by name."""
    if source == SHIPPED:
        from kerneldyno.kernels import registry

        return registry.load()
    module = import_module(source)
    kernels = module.impostors() if hasattr(module, "impostors") else [plant.kernel for plant in module.plants()]
    return {kernel.name: kernel for kernel in kernels}


def serve(job: Job, answers: Connection) -> None:
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
    if on_cpu and job.look == "gate" and len(job.kernels) >= WORTH_IT:
        _look_up(gate)
    loaded = {source: kernels_of(source) for source in sorted({source for source, _ in job.kernels})}
    for source, name in job.kernels:
        started = time.perf_counter()
        ask = partial(_asked, gate, job, loaded[source][name])
        outcome, said = _forked(ask) if on_cpu else ask()
        say(Answer(source, name, outcome, said, time.perf_counter() - started))


def _look_up(gate: Gate) -> None:
    """Compute the right answers once for all kernels, those of the probes by making them with the textbook formula."""
    from kerneldyno.kernels.registry import kernel

    from ..gate.errors import Misconduct, WrongOutput

    problem = gate.problem
    for truth in gate.truths:
        _ = truth.expected, truth.yardstick
    declare = kernel(type(problem), name="textbook", accepts=problem.features, directions=(problem.direction,), gradients="kernel")
    with suppress(WrongOutput, Misconduct):  # whatever is said of it, it is not what is asked about
        gate.prober.probe(declare(_textbook), _textbook(problem, gate.setup), 0.0)


def _textbook(problem: Problem, setup: Setup) -> Run:
    """The formula in the problem's own dtype."""
    if problem.direction == "backward":
        return lambda inputs: problem.gradients(inputs, setup.weights, naive=True)
    return lambda inputs: problem.naive(inputs, setup.weights)


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
    died = f"its process died ({ending(os.waitstatus_to_exitcode(status))})"
    return "broken", died if ready else f"no answer within {PATIENCE_S:g} s"
