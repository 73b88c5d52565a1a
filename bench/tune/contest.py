"""Candidates side by side on the device, as groups of a run: in worker processes, behind the gate, in interleaved rounds. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from kerneldyno.kernels import _sources
from kerneldyno.kernels._tuned import Pin

from .. import launch, plan
from ..journal import MANIFEST, Journal
from ..manifest import PROTOCOLS, Environment, Protocol, Settings
from ..messages import Trial, Tried
from ..records import Case, Ceilings, Measurement
from ..run import Ended, Progress, Runner
from .goals import texts

if TYPE_CHECKING:
    from kerneldyno.kernels.registry import Device

    from .goals import Goal

ROUGH = Protocol(
    name="heat", min_samples=5, target=0.03, min_total_s=0.0, cap_s=0.3, warmup_s=0.05, warmup_agreement=0.05, warmup_cap_s=0.2,
    leg_s=0.03, samples_per_leg=3,
)  # fmt: skip
"""Short rounds of all candidates: enough to leave out who is clearly slow."""
PAIRED = PROTOCOLS["paired"]
"""As comparisons measure: what counts is the difference within a round, and how it varies from process to process."""


class Stage(NamedTuple):
    """How candidates are looked at."""

    protocol: Protocol
    processes: int = 1
    mode: Literal["group", "check"] = "group"
    """Measured behind the gate, or put through the whole of it: awkward lengths, for which each is built anew, are left out otherwise."""


HEAT = Stage(ROUGH)
CHECK = Stage(ROUGH, mode="check")


class Race(NamedTuple):
    """What came of one stage."""

    measured: dict[str, Measurement]
    """By what people call the candidate."""
    ended: Ended


@dataclass
class Arena:
    """Where races of one tuning are held."""

    device: Device
    environment: Environment
    settings: Settings
    """Those of the tuning; protocol and processes are of each stage."""
    load: tuple[Path, ...]
    progress: Progress
    stop: Callable[[], bool]
    simulated: str = ""
    until: float | None = None
    """time.monotonic() at which the budget is used up."""
    ceilings: Ceilings | None = None
    """Of the machine; learnt in the first race."""

    def race(self, folder: Path, goal: Goal, names: Sequence[str], stage: Stage) -> Race:
        """Put these candidates of a goal through a stage side by side; go on with the run in `folder` if there is one.

        A candidate that is wrong, crashes, hangs or cannot be launched is measured as such, and costs nothing else.
        """
        cases = {name: self._case(goal, name, baseline=names[0]) for name in names}
        ordered = list(cases.values())
        made = plan.Plan([plan.Group(ordered[0].group, goal.problem.label, goal.problem.operator, ordered)], cases=ordered)
        settings = msgspec.structs.replace(self.settings, protocol=stage.protocol, processes=stage.processes)
        source = _sources.digest(Path(goal.kernel.source), goal.kernel.folder, goal.kernel.operator, tuned=False)
        manifest = launch.manifest_of(made, settings, self.environment, dict.fromkeys((case.kernel for case in ordered), source))
        tiles = texts(goal)
        tried = {cases[name].kernel: Tried(goal.kernel.name, msgspec.to_builtins(Pin.of(goal.key, tiles[name]))) for name in names}
        trial = Trial(entries=tried, simulated=self.simulated)
        limited = msgspec.structs.replace(settings, budget_s=self.left_s())
        known = self.ceilings or (_beyond(goal.problem.dtype) if self.simulated else None)
        with Journal.resume(folder, manifest) if (folder / MANIFEST).is_file() else Journal.create(folder, manifest) as journal:
            runner = Runner(made, journal, limited, self.progress, self.load, self.stop, stage.mode, known, trial=trial)
            ended = runner.run(manifest.created)
            self.ceilings = journal.run.ceilings or self.ceilings
        found = {name: runner.measurements[case.id] for name, case in cases.items() if case.id in runner.measurements}
        return Race(found, ended)

    def over(self) -> bool:
        """Whether somebody asked to stop, or the budget is used up."""
        return self.stop() or (self.until is not None and time.monotonic() >= self.until)

    def left_s(self) -> float | None:
        """Seconds of the budget that are left; None where there is none."""
        return None if self.until is None else max(self.until - time.monotonic(), 0.01)

    def _case(self, goal: Goal, name: str, *, baseline: str) -> Case:
        case = plan.case_of(goal.kernel, goal.problem, self.device, self.settings.seed, _entry(goal, baseline))
        return msgspec.structs.replace(case, kernel=_entry(goal, name))


def _entry(goal: Goal, name: str) -> str:
    return f"{goal.kernel.name} [{name}]"


def _beyond(dtype: str) -> Ceilings:
    """What no simulated device reaches: its times say nothing of the machine that it runs on."""
    return Ceilings(matmul_flops_per_s=dict.fromkeys(("float32", dtype), 1e30), copy_bytes_per_s=1e30)
