"""Measures the pool: batches of fresh processes, each batch an ordinary run, until every kernel has enough of them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from .. import launch, stats
from ..journal import MANIFEST, Run, read
from ..plan import UsageError
from ..terminal import Quiet
from . import samples
from .samples import About, Pool
from .subjects import BASE, OTHERS, SUBJECTS, VARIANTS, planted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..records import Process

PLUGIN = Path(__file__).with_name("slowed.py")
BATCH = "batch-"
BATCH_PROCESSES = 8
"""A journal stores a measurement again with every further process of it, so that long runs would grow large."""
FRUITLESS = 3
"""So many batches in a row without a whole process of some kernel end the study."""

OfWorker = dict[str, "Process"]
"""Variant -> its samples, in one process."""


@dataclass(frozen=True)
class Asked:
    """What is to be measured."""

    out: Path
    kernels: tuple[str, ...]
    processes: int
    seed: int = 0
    batch: int = BATCH_PROCESSES


def chosen(text: str | None) -> tuple[str, ...]:
    """The kernels of a list with commas; all subjects for None. Raises UsageError for one that is none of them."""
    names = tuple(SUBJECTS) if text is None else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in SUBJECTS:
            raise UsageError(f"--kernels {name!r} is not part of the study: choose from {', '.join(SUBJECTS)}")
    return names


def batches(out: Path) -> list[Run]:
    """The batches that are there, in order; one that was killed counts as far as it went."""
    return [read(folder) for folder in sorted(out.glob(f"{BATCH}*")) if (folder / MANIFEST).is_file()]


def whole(run: Run, kernel: str) -> list[OfWorker]:
    """The processes of a batch that sampled every variant of a kernel, in order of time."""
    variants = {planted(kernel, variant): variant for variant in VARIANTS}
    by_worker: dict[int, OfWorker] = {}
    for case in run.manifest.cases:
        variant, measurement = variants.get(case.kernel), run.measurements.get(case.id)
        if variant is not None and measurement is not None:
            for process in measurement.processes:
                by_worker.setdefault(process.worker, {})[variant] = process
    return [by_worker[worker] for worker in sorted(by_worker) if by_worker[worker].keys() == set(VARIANTS)]


def measure(asked: Asked, say: Callable[[str], None], stop: Callable[[], bool] = lambda: False) -> bool:
    """Measure what is missing of the pool; whether all of it is there now.

    Raises UsageError for batches of another machine and when a kernel cannot be measured, with the reason.
    """
    fruitless: Counter[str] = Counter()
    began, taken = time.monotonic(), 0
    while not stop():
        runs = batches(asked.out)
        _same_machine(runs)
        done = {kernel: sum(len(whole(run, kernel)) for run in runs) for kernel in asked.kernels}
        lacking = {kernel: asked.processes - count for kernel, count in done.items() if count < asked.processes}
        if not lacking:
            return True
        left = sum(lacking.values())
        guess = f", about {(time.monotonic() - began) / taken * left / 60:.0f} min left" if taken else ""
        say(f"batch {len(runs) + 1}: {min(done.values())} of {asked.processes} processes are there{guess}")
        run = _batch(asked, lacking, runs, stop)
        _same_machine([*runs, run])
        for kernel in lacking:
            new = len(whole(run, kernel))
            taken += new
            fruitless[kernel] = 0 if new else fruitless[kernel] + 1
            if fruitless[kernel] >= FRUITLESS:
                raise UsageError(f"{kernel} cannot be measured here: {_why(run, kernel)}; leave it out of --kernels")
    return False


def _batch(asked: Asked, lacking: Mapping[str, int], runs: Sequence[Run], stop: Callable[[], bool]) -> Run:
    """One run over the kernels that lack processes; another seed than that of other batches, so that orders differ."""
    number = len(list(asked.out.glob(f"{BATCH}*"))) + 1
    options = launch.Options(
        kernels=tuple(planted(kernel, variant) for kernel in lacking for variant in VARIANTS),
        operators=tuple(dict.fromkeys(kernel.partition("/")[0] for kernel in lacking)),
        axes={"batch": [1], "seq_len": sorted({SUBJECTS[kernel] for kernel in lacking})},
        device="cpu",
        load=(PLUGIN,),
        protocol="paired",
        processes=min(asked.batch, max(lacking.values())),
        seed=asked.seed + len(runs),
        energy="off",
        out=asked.out / f"{BATCH}{number:03d}",
    )
    folder, _ = launch.launch(options, Quiet(), stop)
    return read(folder)


def _same_machine(runs: Sequence[Run]) -> None:
    if len({run.manifest.environment.fingerprint for run in runs}) > 1:
        raise UsageError("the batches in --out are of several machines or of several versions of packages: give another --out")


def _why(run: Run, kernel: str) -> str:
    """The first reason that a variant's record gives."""
    names = {planted(kernel, variant) for variant in VARIANTS}
    mine = [run.measurements[case.id] for case in run.manifest.cases if case.kernel in names and case.id in run.measurements]
    said = [one.reason for one in mine if one.reason and one.status != "skipped"] or [one.reason for one in mine if one.reason]
    return said[0] if said else "its variants were not sampled in common rounds"


def gathered(asked: Asked) -> Pool:
    """The pool as numbers. Raises UsageError when a kernel has no process at all."""
    runs = batches(asked.out)
    found = {kernel: [one for run in runs for one in whole(run, kernel)] for kernel in asked.kernels}
    count = min([asked.processes, *(len(processes) for processes in found.values())])
    if count < 1:
        raise UsageError(f"--out {asked.out.name} holds no whole process of {min(found, key=lambda name: len(found[name]))}: measure first")
    taken = {kernel: processes[:count] for kernel, processes in found.items()}
    return Pool(
        about=_about(runs, asked.kernels),
        kernels=asked.kernels,
        log_ratios=np.array([[_log_ratios(taken[kernel], variant) for variant in OTHERS] for kernel in asked.kernels]),
        medians_s=np.array([[[np.median(one[name].samples_s) for one in taken[kernel]] for name in VARIANTS] for kernel in asked.kernels]),
        samples_s=np.array(
            [[[samples.evenly(one[name].samples_s) for one in taken[kernel]] for name in VARIANTS] for kernel in asked.kernels]
        ),
    )


def _log_ratios(processes: Sequence[OfWorker], variant: str) -> list[float]:
    """One number for each process; numbered anew, since every batch counts its workers from the beginning."""
    base, other = ([msgspec.structs.replace(one[name], worker=n) for n, one in enumerate(processes)] for name in (BASE, variant))
    found = stats.paired_medians(base, other)
    if len(found) != len(processes):
        raise UsageError(f"{len(processes) - len(found)} processes did not sample {variant} in the rounds of its base: measure again")
    return found


def _about(runs: Sequence[Run], kernels: Sequence[str]) -> About:
    first = runs[0].manifest
    labels = {}
    for case in first.cases:
        for kernel in kernels:
            if case.kernel == planted(kernel, BASE) and case.id not in first.skipped:
                labels[kernel] = case.label
    return About(
        version=first.version,
        created=first.created,
        environment=first.environment,
        labels=labels,
        measured_s=sum(group.wall_s for run in runs for group in run.groups),
        left_out={kernel: _incomplete(runs, kernel) for kernel in kernels},
    )


def _incomplete(runs: Sequence[Run], kernel: str) -> int:
    """Processes that sampled the base and not everything else."""
    name = planted(kernel, BASE)
    bases = [
        run.measurements[case.id] for run in runs for case in run.manifest.cases if case.kernel == name and case.id in run.measurements
    ]
    return sum(len(one.processes) for one in bases) - sum(len(whole(run, kernel)) for run in runs)


def require_new(out: Path) -> None:
    """Raise UsageError where a study has been begun already."""
    if any(out.glob(f"{BATCH}*")):
        raise UsageError(f"--out {out} holds a study already: give --resume to go on with it, or another folder")
