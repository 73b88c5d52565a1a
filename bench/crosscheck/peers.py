"""Other tools that time a callable, each used in the way that its documentation recommends."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import itertools
import timeit
from collections.abc import Callable
from typing import Any, Protocol

import torch

from .subjects import Subject

HOST_ONLY = "times warm calls by the host's clock; the latency on a GPU is device time with a cold cache"
_NUMBERS = itertools.count()
"""pyperf takes no name twice in a process."""


class Peer(Protocol):
    """A tool that times one callable at a time, in this process."""

    name: str

    def why_not(self, device: str) -> str | None:
        """Why it cannot be used for this kind of device; None when it can."""

    def measure(self, subject: Subject, seconds: float) -> list[float]:
        """Its values, in seconds per call, after about so many seconds; may raise anything."""


class TorchTimer:
    """torch.utils.benchmark.Timer.blocked_autorange, with the thread count that everybody has: its own default is 1."""

    name = "torch.utils.benchmark"

    def why_not(self, device: str) -> str | None:
        return None if device == "cpu" else HOST_ONLY

    def measure(self, subject: Subject, seconds: float) -> list[float]:
        from torch.utils.benchmark import Timer

        timer = Timer("call()", globals={"call": subject.call}, num_threads=torch.get_num_threads())
        return list(timer.blocked_autorange(min_run_time=seconds).times)


class Timeit:
    """The standard library's timeit.Timer: autorange() once per callable for the number of calls, then repeat()."""

    name = "timeit"

    def __init__(self) -> None:
        self._ranges: dict[str, tuple[int, float]] = {}
        """Case -> calls, and the seconds that they take: 0.2 and more."""

    def why_not(self, device: str) -> str | None:
        return None if device == "cpu" else HOST_ONLY

    def measure(self, subject: Subject, seconds: float) -> list[float]:
        timer = timeit.Timer(subject.call)
        if subject.case not in self._ranges:
            self._ranges[subject.case] = timer.autorange()
        number, taken_s = self._ranges[subject.case]
        return [total / number for total in timer.repeat(max(round(seconds / taken_s), 1), number)]


class Pyperf:
    """pyperf's worker, in this process: one warm-up value, then values of 0.1 s and more; it calibrates its loops once per callable.

    Its default is 20 fresh processes of 3 values. Here all tools share one process and one budget, so its values come from
    one worker, as all of the others' do.
    """

    name = "pyperf"

    def __init__(self) -> None:
        self._loops: dict[str, tuple[int, float]] = {}
        """Case -> loops, and the seconds that they take: its --min-time of 0.1 and more."""

    def why_not(self, device: str) -> str | None:
        if device != "cpu":
            return HOST_ONLY
        missing = importlib.util.find_spec("pyperf") is None
        return "pyperf is not installed: pip install 'kerneldyno[crosscheck]'" if missing else None

    def measure(self, subject: Subject, seconds: float) -> list[float]:
        if subject.case not in self._loops:
            loops, call_s = self._run(subject.call, calibrate_loops=True, loops=0, warmups=0, values=1).warmups[-1]
            self._loops[subject.case] = loops, loops * call_s
        loops, taken_s = self._loops[subject.case]
        values = max(round(seconds / taken_s) - 1, 1)  # less the warm-up
        return list(self._run(subject.call, calibrate_loops=False, loops=loops, warmups=1, values=values).values)

    def _run(self, call: Callable[[], object], **arguments: object) -> Any:
        """What one worker of pyperf returns for these options of its command line."""
        runner = _pyperf_runner()
        vars(runner.args).update(arguments)
        with contextlib.redirect_stdout(io.StringIO()):  # a worker reports there
            benchmark = runner.bench_func(f"crosscheck {next(_NUMBERS)}", call)
        (run,) = benchmark.get_runs()
        return run


@functools.cache
def _pyperf_runner() -> Any:
    """Its one runner per process, told that this process is a worker."""
    import pyperf

    runner = pyperf.Runner()
    runner.parse_args(["--worker", "--quiet", "--loops", "1"])
    return runner


class DoBench:
    """triton.testing.do_bench: device time of each call, with the L2 cache emptied before it."""

    name = "triton do_bench"

    def why_not(self, device: str) -> str | None:
        if device != "cuda":
            return "times CUDA only"
        return "triton is not installed: pip install triton" if importlib.util.find_spec("triton") is None else None

    def measure(self, subject: Subject, seconds: float) -> list[float]:
        from triton.testing import do_bench

        return [milliseconds * 1e-3 for milliseconds in do_bench(subject.call, rep=round(seconds * 1e3), return_mode="all")]


def in_process() -> list[Peer]:
    """Every peer that times in this process."""
    return [TorchTimer(), Timeit(), Pyperf(), DoBench()]
