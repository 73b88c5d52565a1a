"""NVIDIA's cuda-bench (nvbench) as a peer: it runs once per process, so each repetition is a process that times all cases.

Started as `python -m kerneldyno.bench.crosscheck.nvbench DEVICE SIZE SECONDS FILE`.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kerneldyno.kernels.registry import Device

from . import subjects

NAME = "cuda-bench"
PATIENCE = 3
"""A case may take this many times the seconds asked for before cuda-bench gives it up."""
START_S = 300.0
"""Time that a process has for starting and building, on top of the measurements."""


class PeerFailed(Exception):
    """A tool could not be used; the message names the command and what it said."""


def why_not(device: str) -> str | None:
    """Why it cannot be used for this kind of device; None when it can."""
    if device != "cuda":
        return "times CUDA only"
    found = importlib.util.find_spec("cuda") and importlib.util.find_spec("cuda.bench")
    return None if found else "cuda-bench is not installed: pip install 'kerneldyno[crosscheck]'"


def measure(device: Device, size: str, seconds: float, cases: int) -> dict[str, list[float]]:
    """Case -> its cold samples in seconds, of all cases that it can time. Raises PeerFailed with what went wrong."""
    with tempfile.TemporaryDirectory(prefix="kerneldyno-") as folder:
        path = Path(folder) / "samples.json"
        words = [sys.executable, "-P", "-m", "kerneldyno.bench.crosscheck.nvbench", str(device), size, str(seconds), str(path)]
        shown = " ".join(["python", *words[1:-1], path.name])
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=START_S + PATIENCE * seconds * cases, check=False)
        except subprocess.TimeoutExpired as error:
            raise PeerFailed(f"`{shown}` did not end within {error.timeout:.0f} s") from error
        if done.returncode or not path.exists():
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise PeerFailed(f"`{shown}` ended with {done.returncode}: {said}")
        return _samples(path)


def _samples(path: Path) -> dict[str, list[float]]:
    from cuda.bench.results import BenchmarkResult

    found: dict[str, list[float]] = {}
    for name, benchmark in BenchmarkResult.from_json(path).items():
        samples = [float(sample) for state in benchmark for sample in state.samples or ()]
        if samples:
            found[name] = samples
    return found


def main() -> None:
    """Build everything, register it, and let cuda-bench run it."""
    from cuda import bench

    name, size, seconds, path = sys.argv[1:]
    torch.set_grad_enabled(False)
    device = Device(name.partition(":")[0], int(name.partition(":")[2] or 0))
    torch.cuda.set_device(device.index)
    for group in subjects.groups(device, size):
        for subject in subjects.subjects(group):
            if "cuda" in group.kernels[subject.kernel].own_allocator:
                continue  # a foreign runtime works on a stream of its own, which events in cuda-bench's do not see
            subject.call()
            made = bench.register(_benchmark(subject.call))
            made.set_name(subject.case).set_stopping_criterion("stdrel").set_criterion_param_float64("min-time", float(seconds))
            made.set_timeout(PATIENCE * float(seconds))
    torch.cuda.synchronize()
    bench.run_all_benchmarks([sys.argv[0], "--jsonbin", path])


def _benchmark(call: Callable[[], object]) -> Callable[[Any], None]:
    """A benchmark as cuda-bench wants it: the call's work goes into the stream that it is given."""

    def run(state: Any) -> None:
        def launch(given: Any) -> None:
            stream = torch.cuda.ExternalStream(given.get_stream().addressof())  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):
                call()

        state.exec(launch, batched=False)

    return run


if __name__ == "__main__":
    main()
