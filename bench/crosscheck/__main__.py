"""The command line of the cross-check: `python -m kerneldyno.bench.crosscheck`.

Every tool times the same callables in one process with the same threads, in an order that is drawn anew for every
repetition, and gets the same time for each measurement.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from .. import environment
from ..instruments import processor


class Size(StrEnum):
    """Which cases."""

    small = "small"
    full = "full"


def main(
    repeats: Annotated[int, typer.Option(min=2, help="How often every tool measures every case.")] = 10,
    seconds: Annotated[float, typer.Option(min=0.05, help="Seconds of each measurement, by the wall.")] = 1.0,
    size: Annotated[Size, typer.Option(help="small: a few cases; full: every kernel that builds quickly, at several sizes.")] = Size.full,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the order.")] = 0,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every value and the summary here.")] = None,
) -> None:
    """Time the same callables with kerneldyno and with other tools; exit with 5 when a goal is missed.

    A tool's figure for a case is the median of its values (kerneldyno: its latency). The table shows the median of the
    figures of all repetitions, and their spread: the 90th percentile less the 10th, divided by the median.

    Goals: every case within 2 % of the median of the peers' figures; the geometric mean of kerneldyno's spreads over all
    kernels no larger than the median peer's, and no larger than 1.25 times the best peer's.
    """
    environment.restart_as_worker("kerneldyno.bench.crosscheck")
    import torch

    from .. import judge
    from ..instruments.clock import CpuClock
    from ..instruments.cudaclock import CudaClock
    from ..instruments.watch import find_watch
    from . import subjects, summary
    from .race import Race

    chosen = environment.choose(device)
    torch.set_num_threads(processor.cores())
    torch.set_grad_enabled(False)
    built = subjects.groups(chosen, size.value)
    built[0] = subjects.with_busy_wait(built[0])
    clock = CpuClock() if chosen.kind == "cpu" else CudaClock(str(chosen))
    race = Race(chosen, size.value, built, clock, seconds=seconds, seed=seed)
    watch = find_watch(torch.device("cpu"))
    before = watch.read()
    for repetition in range(repeats):
        race.repeat(repetition)
        print(f"repetition {repetition + 1} of {repeats} done", flush=True)
    found = summary.summarize(race.figures, {case.case: case.true_s for case in race.cases if case.true_s})
    disturbed = [f"disturbed: {warning.text}" for warning in judge.disturbances(before, watch.read())]
    print("\n".join(["", *summary.lines(found, race.absent), *disturbed]))
    if out is not None:
        described = environment.describe(chosen, processor.cores())
        versions = environment.versions(("torch", "pyperf", "triton", "cuda-bench"))
        settings = {"repeats": repeats, "seconds": seconds, "size": size.value, "seed": seed}
        told = {
            "settings": settings,
            "environment": described,
            "versions": versions,
            "absent": race.absent,
            "summary": found,
            "disturbed": disturbed,
        }
        out.write_bytes(msgspec.json.format(msgspec.json.encode({**told, "figures": race.figures}), indent=1))
    raise typer.Exit(5 if found.missed else 0)


if __name__ == "__main__":
    typer.run(main)
