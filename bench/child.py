"""The parent's end of one worker process: start it, hear what it says, notice when it dies or hangs, end it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .answers import known
from .manifest import Settings
from .messages import Doing, Done, Finished, Message, Recorder, Request
from .records import Status

POLL_S = 1.0
GRACE_S = 10.0
"""After being asked to stop, a worker has this long to hand over what it has."""
START_TIMEOUT_S = 180.0
CHECK_TIMEOUT_S = 300.0
CALLS_PER_LEG = 4
"""A leg is allowed to take this many times the limit for one call."""
TAIL_LINES = 5


@dataclass(frozen=True)
class Loss:
    """A worker is gone without having finished: which case it was at, and how it ended."""

    case: str | None
    status: Status
    reason: str
    stderr_tail: str


class Child:
    """One worker process. Iterate over `messages()`; afterwards `loss` is None or says how it was lost."""

    def __init__(self, request: Request, environment: Mapping[str, str], scrub: Callable[[str], str]) -> None:
        self.request = request
        self.loss: Loss | None = None
        self._scrub = scrub
        self._recorder = Recorder(Path(request.recorder), create=True)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        reading, writing = os.pipe()
        self._reading = reading
        # -P keeps the current folder off the import path: a file there must not shadow a library
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kerneldyno.bench.worker", str(writing)],
            stdin=subprocess.PIPE,
            stdout=self._stderr,
            stderr=self._stderr,
            pass_fds=(writing,),
            env={**os.environ, **environment},
            start_new_session=True,
        )
        os.close(writing)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(request))
            self._process.stdin.close()
        self._doing: Doing | None = None
        self._moved = time.monotonic()
        self._legs = 0
        self._asked_at: float | None = None

    def messages(self, stop: Callable[[], bool], tick: Callable[[], None]) -> Iterator[Message]:
        """What the worker says, until it has finished or is lost; `tick` is called about once a second."""
        finished = False
        try:
            for message in self._lines(stop, tick):
                self._moved = time.monotonic()
                if isinstance(message, Doing):
                    self._doing = message
                finished = isinstance(message, Finished)
                yield message
        finally:
            self._close(finished)

    def _lines(self, stop: Callable[[], bool], tick: Callable[[], None]) -> Iterator[Message]:
        buffer = b""
        decoder = msgspec.json.Decoder(Message)
        with selectors.DefaultSelector() as selector:
            selector.register(self._reading, selectors.EVENT_READ)
            while True:
                if selector.select(POLL_S):
                    data = os.read(self._reading, 1 << 20)
                    if not data:
                        return
                    *lines, buffer = (buffer + data).split(b"\n")
                    for line in lines:
                        if (message := self._understood(decoder, line)) is None:
                            return
                        yield message
                tick()
                if stop() and self._asked_at is None:
                    self._asked_at = time.monotonic()
                    self._process.terminate()
                if self._overdue():
                    return

    def _understood(self, decoder: msgspec.json.Decoder[Message], line: bytes) -> Message | None:
        """A line as a message; None, with `loss` filled, when it is none, or speaks of a case that was not asked for."""
        try:
            message = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            message = None
        case = message.case if isinstance(message, Doing) else message.measurement.case if isinstance(message, Done) else None
        if message is not None and (case is None or known(case, self.request.cases)):
            return message
        culprit, phase = self._culprit()
        self.loss = Loss(
            culprit, "invalid", f"{phase}: something wrote into the worker's channel, which is the harness's own", self._tail()
        )
        return None

    def _overdue(self) -> bool:
        """Whether the worker has to be killed now; fills `loss` when it hangs."""
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at > GRACE_S:
            self.loss = Loss(None, "failed", "stopped", "")
            return True
        _, legs = self._recorder.read()
        if legs != self._legs:
            self._legs, self._moved = legs, now
        limit = self._limit(self.request.settings)
        if now - self._moved <= limit:
            return False
        case, phase = self._culprit()
        self.loss = Loss(case, "timeout", f"{phase}: no answer within {limit:g} s", self._tail())
        return True

    def _limit(self, settings: Settings) -> float:
        phase = self._doing.phase if self._doing else "start"
        return {
            "start": START_TIMEOUT_S,
            "build": settings.build_timeout_s,
            "check": max(CHECK_TIMEOUT_S, CALLS_PER_LEG * settings.call_timeout_s),
            "identify": settings.build_timeout_s,
            "recheck": CHECK_TIMEOUT_S,
            "memory": CALLS_PER_LEG * settings.call_timeout_s,
            "warmup": CALLS_PER_LEG * settings.call_timeout_s,
            "timing": CALLS_PER_LEG * settings.call_timeout_s,
            "energy": CALLS_PER_LEG * settings.call_timeout_s,
        }[phase]

    def _culprit(self) -> tuple[str | None, str]:
        """The case that was running, and in which phase."""
        index, _ = self._recorder.read()
        phase = self._doing.phase if self._doing else "start"
        if index is not None and self.request.cases:
            return self.request.cases[index].id, phase
        return (self._doing.case if self._doing and phase not in ("timing", "energy") else None), phase

    def _close(self, finished: bool) -> None:
        """End the process and everything it started; work out how it was lost, if it was."""
        if finished:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
        elif self.loss is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)  # the pipe is closed: it is dying already
            case, phase = self._culprit()
            self.loss = Loss(case, "failed", f"{phase}: {_ending(self._process.poll())}", self._tail())
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._reading)
        self._recorder.close()
        self._stderr.close()

    def _tail(self) -> str:
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 4000))
        lines = [line for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
        return self._scrub("\n".join(lines[-TAIL_LINES:]))


def _ending(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "the worker closed its answers without finishing"
    if code >= 0:
        return f"the worker ended with exit status {code}"
    name = signal.Signals(-code).name
    hint = " (the system may have been out of memory)" if -code == signal.SIGKILL else ""
    return f"the worker was killed by {name}{hint}"
