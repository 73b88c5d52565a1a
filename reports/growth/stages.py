"""What is measured in a fresh process of its own: `python -m kerneldyno.reports.growth.stages make|tables|page FOLDER …`."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class StageError(Exception):
    """A process that measures ended without an answer; the message is one sentence."""


def in_fresh_process(stage: str, folder: Path, *more: object) -> dict[str, Any]:
    """What a stage found, by name. Raises StageError when its process ends without an answer."""
    command = [sys.executable, "-P", "-m", __spec__.name, stage, str(folder), *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise StageError(f"`{stage}` of the made-up run in {folder} ended with {done.returncode}: {last}")
    return msgspec.json.decode(done.stdout, type=dict[str, Any])


def make(folder: Path, size: str, seed: str) -> dict[str, float]:
    """Write the made-up run. In a process of its own too: a child begins with its parent's peak of memory."""
    from .synthetic import write

    write(folder, int(size), int(seed))
    return {}


def tables(folder: Path) -> dict[str, float]:
    """Make every table of the run, one after another."""
    from kerneldyno.bench import journal
    from kerneldyno.reports.frame import Frames

    busy_s = time.process_time()
    run, read_s = _timed(lambda: journal.read(folder))
    frames = Frames(run)
    _, results_s = _timed(lambda: frames.results)
    busy_s = time.process_time() - busy_s
    frame_peak = _peak_bytes()
    _, winners_s = _timed(lambda: frames.winners)
    _, samples_s = _timed(lambda: frames.samples)
    return {
        "cases": len(run.manifest.cases),
        "journal_bytes": (folder / journal.JOURNAL).stat().st_size,
        "read_s": read_s,
        "results_s": results_s,
        "frame_processor_s": busy_s,
        "frame_peak_bytes": frame_peak,
        "winners_s": winners_s,
        "samples_s": samples_s,
        "tables_peak_bytes": _peak_bytes(),
    }


def page(folder: Path) -> dict[str, float]:
    """Read the run and write its page."""
    from kerneldyno.reports import page as report

    busy_s = time.process_time()
    path, page_s = _timed(lambda: report.render(folder))
    busy_s = time.process_time() - busy_s
    return {"page_s": page_s, "page_processor_s": busy_s, "page_bytes": path.stat().st_size, "page_peak_bytes": _peak_bytes()}


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def _peak_bytes() -> int:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


STAGES: dict[str, Callable[..., dict[str, float]]] = {"make": make, "tables": tables, "page": page}

if __name__ == "__main__":
    print(msgspec.json.encode(STAGES[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])).decode())
