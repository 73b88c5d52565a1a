"""From options to a comparison: contestants, cells, a manifest, a journal, and what came of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import cast

from .. import environment, launch
from ..comparison import GATES, QUANTITIES, Comparison, Quantity, Terms
from ..journal import Journal, read
from ..manifest import Manifest
from ..plan import Plan, UsageError
from ..run import Progress
from ..verdict import Outcome
from . import cells, commits
from .contest import Contest, Stages
from .contestants import Contestants, two_kernels
from .outcome import derive

PRESET = "compare"
FEWEST = 4
"""Processes: with fewer hardly anything could be said."""


@dataclass(frozen=True)
class Asked:
    """What `kerneldyno compare` was asked for; `run` holds what it has in common with a sweep."""

    run: launch.Options = field(default_factory=launch.Options)
    base: str | None = None
    """Revision that is compared with; None: two kernels are compared."""
    candidate: str = "worktree"
    everything: bool = False
    """Kernels that did not change, too."""
    processes: int | None = None
    gates: tuple[Quantity, ...] = GATES


def compare(asked: Asked, progress: Progress, stages: Stages, stop: Callable[[], bool] = lambda: False) -> tuple[Path, Outcome]:
    """Measure two kernels or two commits against each other; the run folder and what came of it.

    Raises UsageError, KernelFileError, DeviceError or JournalError, each with one sentence, before anything is measured.
    """
    launch.require_torch()
    if not asked.run.presets and not asked.run.axes and asked.run.model is None:
        asked = replace(asked, run=replace(asked.run, presets=(PRESET,)))
    with tempfile.TemporaryDirectory(prefix="kerneldyno-sides-") as scratch:
        contestants = _contestants(asked, Path(scratch))
        plan, manifest = _planned(asked, contestants)
        folder = asked.run.out or Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-compare"
        device = environment.choose(asked.run.device)
        assert manifest.comparison is not None
        with launch.only_one(device), Journal.create(folder, manifest) as journal:
            contest = Contest(
                plan,
                journal,
                manifest.settings,
                progress,
                stop=stop,
                comparison=manifest.comparison,
                sources=contestants.sources,
                stages=stages,
            )
            contest.run(manifest.created)
    return folder, derive(read(folder))


def _contestants(asked: Asked, scratch: Path) -> Contestants:
    load = tuple(str(path.resolve()) for path in asked.run.load)
    if asked.base is not None:
        return commits.two_commits(asked.base, asked.candidate, asked.run, scratch, everything=asked.everything)
    base, candidate = asked.run.kernels
    return two_kernels(base, candidate, load)


def _planned(asked: Asked, contestants: Contestants) -> tuple[Plan, Manifest]:
    options = asked.run
    device = environment.choose(options.device)
    chosen = launch.presets_of(options, device)
    everything = {**contestants.base_kernels, **contestants.candidate_kernels}
    problems = launch.problems_of(options, everything, chosen, device, contestants.operators) if contestants.pairs else []
    limits = () if contestants.form == "kernels" else launch.limits(options, chosen)
    found = cells.planned(contestants, problems, device, seed=options.seed, at_most=limits)
    if contestants.form == "kernels" and not found.cells:
        raise UsageError(_nothing(found.nowhere, options.presets))
    comparison = Comparison(
        form=contestants.form,
        base=contestants.base,
        candidate=contestants.candidate,
        cells=found.cells,
        terms=terms(asked),
        changed=dict(contestants.changed),
        unchanged=contestants.left_out,
        warnings=(*contestants.warnings, *(f"{name} is not compared here: it {why}" for name, why in found.nowhere.items())),
    )
    settings = launch.settings_of(options, chosen, device)
    machine = environment.describe(device, settings.threads)
    sources = {}
    for case in found.cases:
        kernels = contestants.candidate_kernels if case.side == "candidate" else contestants.base_kernels
        sources[case.entry] = kernels[case.kernel].source_hash
    plan = Plan(groups=[], cases=found.cases)
    return plan, launch.manifest_of(plan, settings, machine, sources, comparison)


def terms(asked: Asked) -> Terms:
    """The terms of a comparison. Raises UsageError for too few processes."""
    plain = Terms(gates=asked.gates)
    if asked.processes is None:
        return plain
    if not FEWEST <= asked.processes <= 1000:
        raise UsageError(f"--processes {asked.processes} is impossible: give a whole number from {FEWEST} to 1000")
    return Terms(gates=asked.gates, processes=asked.processes, more_processes=-(-asked.processes * 3 // 2), second_look=asked.processes)


def gates(words: Sequence[str]) -> tuple[Quantity, ...]:
    """The --gate option. Raises UsageError for a quantity that there is none of."""
    for word in words:
        if word not in QUANTITIES:
            raise UsageError(f"--gate {word!r} is unknown: choose from {', '.join(QUANTITIES)}")
    return cast("tuple[Quantity, ...]", tuple(words)) or GATES


def _nothing(nowhere: Mapping[str, str], presets: Sequence[str]) -> str:
    where = f"the presets {', '.join(presets)}" if presets else "the options"
    return f"nothing to compare at any problem of {where}: {'; '.join(f'{name} {why}' for name, why in nowhere.items())}"
