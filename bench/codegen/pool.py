"""Configurations compiled side by side, in processes of their own: what crashes or hangs costs its row and nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, NamedTuple

from . import compiling
from .facts import Facts

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from kerneldyno.kernels._code import Configuration

TIMEOUT_S = 120.0
START_S = 120.0
"""What a process may take to begin: it imports torch and Triton."""
LOOK_S = 0.2
"""How often somebody asks whether to stop."""
CONTEXT = multiprocessing.get_context("spawn")


class Compiled(NamedTuple):
    """One configuration and what came of it."""

    configuration: Configuration
    facts: Facts | None
    reason: str
    """Why there are no facts, in a sentence; empty when there are."""
    seconds: float


def compile_all(
    configurations: Sequence[Configuration],
    *,
    jobs: int | None = None,
    timeout_s: float = TIMEOUT_S,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Compiled]:
    """Compile in `jobs` processes (default: one for each core); what is done first comes first.

    Each configuration has `timeout_s` seconds. When `stop` says so, what is under way is given up and nothing more comes.
    """
    waiting = list(reversed(configurations))
    hands = [_Hand(timeout_s) for _ in range(min(jobs or os.cpu_count() or 1, len(waiting)))]
    try:
        while (waiting or any(hand.busy for hand in hands)) and not stop():
            for hand in hands:
                if waiting and not hand.busy:
                    hand.give(waiting.pop())
            wait([hand.pipe for hand in hands if hand.busy], LOOK_S)
            yield from (done for hand in hands if hand.busy and (done := hand.answer()) is not None)
    finally:
        for hand in hands:
            hand.end()


class _Hand:
    """One process, replaced when it is lost, and what it is working on."""

    pipe: Connection
    _process: SpawnProcess
    _starting: bool

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._task: Configuration | None = None
        self._since = self._until = 0.0
        self._start()

    @property
    def busy(self) -> bool:
        return self._task is not None

    def give(self, configuration: Configuration) -> None:
        self._task = configuration
        self._set_off(START_S if self._starting else self._timeout_s)
        with contextlib.suppress(OSError):  # it has ended: `answer` finds out
            self.pipe.send(configuration)

    def answer(self) -> Compiled | None:
        """What came of the task, if anything did by now."""
        assert self._task is not None
        facts, reason = None, ""
        if self.pipe.poll():
            try:
                told = self.pipe.recv()
                if told == READY:
                    self._starting = False
                    self._set_off(self._timeout_s)
                    return None
                facts, reason = told
            except (EOFError, OSError):
                self._process.join(5)
                reason = f"its compiler ended without an answer, with exit code {self._process.exitcode}"
        elif not self._process.is_alive():
            reason = f"its compiler ended without an answer, with exit code {self._process.exitcode}"
        elif time.monotonic() > self._until:
            reason = (
                f"its compiler did not start within {START_S:g} s" if self._starting else f"did not compile within {self._timeout_s:g} s"
            )
        else:
            return None
        done = Compiled(self._task, facts, reason, time.monotonic() - self._since)
        self._task = None
        if facts is None and not reason.startswith(REFUSED):
            self.end()
            self._start()
        return done

    def _set_off(self, limit_s: float) -> None:
        self._since = time.monotonic()
        self._until = self._since + limit_s

    def end(self) -> None:
        """With the assembler that it may be waiting for: left alone, that would go on for as long as it likes."""
        self.pipe.close()
        with contextlib.suppress(ProcessLookupError):  # it has not come to lead a group yet
            if self._process.is_alive() and self._process.pid is not None:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._process.close()

    def _start(self) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._starting = True


READY = "ready"
REFUSED = "does not compile: "


def _work(pipe: Connection) -> None:
    """Compile what comes until nothing more does."""
    os.setpgid(0, 0)  # so that it can be ended with all that it started
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the parent decides
    os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported: the interpreter compiles nothing
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with contextlib.suppress(ImportError):
        compiling.prepare()
    with contextlib.suppress(EOFError, OSError):
        pipe.send(READY)
        while True:
            pipe.send(_tried(pipe.recv()))


def _tried(configuration: Configuration) -> tuple[Facts | None, str]:
    """The facts, or why there are none."""
    try:
        return compiling.compiled(configuration), ""
    except Exception as error:  # noqa: BLE001 # Triton and the assembler raise what they like: it becomes the row's reason
        return None, REFUSED + _sentence(error)


def _sentence(error: Exception) -> str:
    """The last line that an error says something in, and its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"[:300]
