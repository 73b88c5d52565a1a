"""The parent: walks the plan, starts a worker for each group, and appends what the workers answer to the journal.

It imports no torch, so nothing of it disturbs what is measured, and a kernel that crashes takes only its worker along.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from kerneldyno.kernels.registry import AWKWARD, kind_of

from . import environment, finalists, privacy
from .answers import Answers
from .child import Child, Loss
from .entries import Attempt, CeilingsFound, Extended, GroupDone, Measured, Session, SessionEnd
from .journal import Journal, Run
from .manifest import Settings
from .messages import Doing, Done, Finished, Found, Message, Request, Trial
from .pace import Pace
from .plan import Group, Plan
from .records import Case, Ceilings, Measurement, Process

QUARANTINE = 2
"""A case during which the harness died this often is not tried again."""
OUT_OF_MEMORY = "out of memory"
CRASHES_PER_GROUP = 20

Ended = Literal["finished", "interrupted", "budget"]


class Progress(Protocol):
    """Who wants to know how the run goes; the terminal in earnest, a list in tests."""

    def begin(self, plan: Plan, settings: Settings, done: int) -> None: ...
    def extended(self, cases: Sequence[Case]) -> None: ...
    def group(self, group: Group, number: int, of: int, left_s: float | None) -> None: ...
    def doing(self, case: Case | None, phase: str) -> None: ...
    def done(self, case: Case, measurement: Measurement) -> None: ...
    def tick(self) -> None: ...
    def end(self, ended: str | None) -> None: ...


@dataclass
class Runner:
    """Measures what is missing of a plan."""

    plan: Plan
    journal: Journal
    settings: Settings
    progress: Progress
    load: tuple[Path, ...] = ()
    stop: Callable[[], bool] = lambda: False
    mode: Literal["group", "check"] = "group"
    """Whether groups are measured, or put through the gate only."""
    known: Ceilings | None = None
    """Ceilings that were measured on this machine a moment ago; None: they are measured first."""
    more: Callable[[Run], Sequence[Case]] = lambda _: ()
    """Asked when all is measured, and again after that: cases that the plan lacked; none when there are no more."""
    trial: Trial | None = None
    """What the names of the cases stand for, where they are candidates of a tuning."""
    measurements: dict[str, Measurement] = field(default_factory=dict)
    _ceilings: Ceilings | None = None
    _knows_ceilings: bool = False
    """Whether they were measured in this session."""
    _workers: int = 0
    _out_of_memory: dict[str, int] = field(default_factory=dict)
    """Kernel (of a side) -> bytes of the smallest problem at which memory ran out."""
    _energy_s: float = 0.0
    """Spent on power and joules, of all groups."""

    def run(self, started: str) -> Ended:
        """Measure until all is done, the budget is used up, or somebody asks to stop."""
        self._pace = Pace(self.settings.budget_s)
        self.measurements = dict(self.journal.run.measurements)
        self._workers = _last_worker(self.measurements)
        self._ceilings = self.journal.run.ceilings
        self.journal.append(Session(started))
        for case, reason in self.plan.skipped.items():
            if case not in self.measurements:
                self._record(Measurement(case=case, status="skipped", reason=reason))
        self._quarantine()
        self.progress.begin(self.plan, self.settings, sum(1 for case in self.plan.cases if case.id in self.measurements))
        ended: Ended | None = None
        try:
            with self._scratch() as scratch:
                self._scratch_path = scratch
                ended = self._all_groups()
                while ended == "finished" and (cases := self.more(self.journal.run)):
                    ended = self._measure_more(cases)
            self.journal.append(SessionEnd(reason=ended, wall_s=self._pace.spent_s))
            return ended
        finally:
            self.progress.end(ended)

    def _all_groups(self) -> Ended:
        passes = [(process, group) for process in range(self.settings.processes) for group in self.plan.groups]
        pending = [(process, group) for process, group in passes if self._missing(group, process)]
        if pending and self.mode == "group" and not self._knows_ceilings:
            self._measure_ceilings()
        for number, (process, group) in enumerate(pending):
            if self.stop():
                return "interrupted"
            if self._pace.is_over():
                return "budget"
            self.progress.group(group, number + 1, len(pending), self._pace.expected_s(len(pending) - number))
            self._one_group(group, process)
        return "interrupted" if self.stop() else "budget" if self.settings.budget_s and self._unfinished() else "finished"

    def _measure_more(self, cases: Sequence[Case]) -> Ended:
        """Take cases into the plan, and measure them. They are written down first: a resumed run has them, too."""
        if self._pace.is_over():
            return "budget"
        self.journal.append(Extended(list(cases)))
        self.plan.extend(cases)
        self.progress.extended(cases)
        return self._all_groups()

    def _one_group(self, group: Group, process: int) -> None:
        """Measure what is missing of a group; a lost worker costs one case, and the rest goes on in a new one."""
        started = time.monotonic()
        phases: dict[str, float] = {}
        for _ in range(CRASHES_PER_GROUP):
            self._skip_what_will_not_fit(group)
            cases = self._missing(group, process)
            if not cases or self.stop() or self._pace.is_over(started_group=True):
                break
            for name, seconds in self._one_worker(cases, first=process == 0).items():
                phases[name] = phases.get(name, 0.0) + seconds
        wall = time.monotonic() - started
        self._pace.took(wall)
        phases["other"] = max(wall - sum(phases.values()), 0.0)
        self.journal.append(GroupDone(group=group.id, wall_s=wall, phases_s=phases))

    def _one_worker(self, cases: list[Case], *, first: bool) -> dict[str, float]:
        """Run one worker process over these cases; return where its time went."""
        by_id = {case.id: case for case in cases}
        spent: dict[str, float] = {}
        energy_began: float | None = None
        answers = Answers(cases, timed=self.mode == "group")
        for message in self._hear(self._request(self.mode, cases=cases, first=first)):
            if isinstance(message, Doing):
                answers.doing(message)
                # where all cases of the group take turns nobody is to blame if the harness dies
                self.journal.append(Attempt(case="" if message.phase in ("timing", "energy") else message.case, phase=message.phase))
                if message.phase == "energy":
                    energy_began = energy_began or time.monotonic()
                self.progress.doing(by_id[message.case], message.phase)
            elif isinstance(message, Done):
                self._accept(answers.done(message.measurement))
            elif isinstance(message, Found):
                self._learn(message.ceilings)
            elif isinstance(message, Finished):
                spent = message.phases_s
        self._energy_s += spent.get("energy", time.monotonic() - energy_began if energy_began else 0.0)
        if self._loss and not self.stop():
            self._put_down(self._loss, [case for case in cases if case.id not in answers.answered])
        return spent

    def _hear(self, request: Request) -> Iterator[Message]:
        scratch = self._scratch_path
        child = Child(request, environment.worker_environment(self.settings.threads, scratch / "caches"), privacy.scrub)
        self._loss: Loss | None = None
        yield from child.messages(self.stop, self.progress.tick)
        self._loss = child.loss

    def _request(self, kind: Literal["group", "check", "ceilings"], *, cases: list[Case] | None = None, first: bool = True) -> Request:
        self._workers += 1
        group = cases[0].group if cases else ""
        joules, allowance_s = finalists.asked(self.settings, self.plan.groups, group, self._energy_s)
        return Request(
            kind=kind,
            device=self.plan.cases[0].device,
            settings=self.settings,
            worker=self._workers,
            recorder=str(self._scratch_path / "recorder"),
            cases=cases or [],
            dtypes=tuple(sorted({"float32", *(case.dtype for case in self.plan.cases)})),
            load=tuple(str(path) for path in self.load),
            trial=self.trial,
            first=first,
            stop_after_s=self._pace.left_s,
            ceilings=self._ceilings,
            known_awkward=self._known_awkward(),
            joules=joules,
            joules_allowance_s=allowance_s,
        )

    def _known_awkward(self) -> tuple[str, ...]:
        """Kernels that have been through the awkward lengths already: they need not be built for them again."""
        through: dict[str, set[str]] = {}
        sides: dict[str, set[str]] = {}
        for case in self.plan.cases:
            kind, found = kind_of(case.kernel, case.problem), self.measurements.get(case.id)
            sides.setdefault(kind, set()).add(case.side)
            if found and any(name.startswith(AWKWARD) for name in found.probes):
                through.setdefault(kind, set()).add(case.side)
        return tuple(kind for kind, seen in through.items() if seen == sides[kind])

    def _measure_ceilings(self) -> None:
        self._knows_ceilings = True
        if self.known is not None and {case.dtype for case in self.plan.cases} <= self.known.matmul_flops_per_s.keys():
            self._learn(self.known)
            return
        self.progress.doing(None, "ceilings")
        for message in self._hear(self._request("ceilings")):
            if isinstance(message, Found):
                self._learn(message.ceilings)

    def _learn(self, ceilings: Ceilings) -> None:
        """Keep the best that the machine has shown in this run."""
        self._ceilings = ceilings.best_of(self._ceilings) if self._ceilings else ceilings
        self.journal.append(CeilingsFound(self._ceilings))

    def _accept(self, measurement: Measurement) -> None:
        """Record an answer; a further process of a case is added to what its earlier ones measured."""
        earlier = self.measurements.get(measurement.case)
        if earlier is not None and earlier.status == "ok":
            number = len(earlier.processes) + 1
            earlier.processes = earlier.processes + measurement.processes
            earlier.warnings = _without_repetition([*earlier.warnings, *measurement.warnings])
            if measurement.status != "ok":
                earlier.status, earlier.reason = measurement.status, f"in process {number}: {measurement.reason}"
            measurement = earlier
        self._record(measurement)

    def _record(self, measurement: Measurement) -> None:
        measurement = privacy.scrubbed(measurement)
        self.journal.append(Measured(measurement))
        self.measurements[measurement.case] = measurement
        case = next(case for case in self.plan.cases if case.id == measurement.case)
        if measurement.status == "failed" and OUT_OF_MEMORY in (measurement.reason or ""):
            self._out_of_memory[case.entry] = min(case.min_bytes, self._out_of_memory.get(case.entry, case.min_bytes))
        self.progress.done(case, measurement)

    def _put_down(self, loss: Loss, cases: list[Case]) -> None:
        """Record whom a lost worker is put down to: the case it was at, or all that it has not answered for."""
        blamed = [case for case in cases if case.id == loss.case] or cases
        for case in blamed:
            last = loss.stderr_tail.splitlines()[-1:] if loss.status == "failed" else []
            reason = f"{loss.reason}; last words: {last[0]}" if last else loss.reason
            self._accept(Measurement(case=case.id, status=loss.status, reason=reason, stderr_tail=loss.stderr_tail or None))

    def _missing(self, group: Group, process: int) -> list[Case]:
        """The cases of a group that this pass over the plan still has to measure."""
        return [case for case in group.cases if self._needs(case, process)]

    def _needs(self, case: Case, process: int) -> bool:
        measurement = self.measurements.get(case.id)
        if measurement is None or self.mode == "check":
            return measurement is None
        return measurement.status == "ok" and len(measurement.processes) <= process

    def _unfinished(self) -> bool:
        return any(self._missing(group, self.settings.processes - 1) for group in self.plan.groups)

    def _quarantine(self) -> None:
        """Give up on cases during which the whole harness died repeatedly."""
        planned = {case.id for case in self.plan.cases}
        for case, times in self.journal.run.suspects.items():
            if times >= QUARANTINE and case in planned - self.measurements.keys():
                reason = f"the harness died {times} times while measuring this case: measure it alone in a run of its own to find out why"
                self._record(Measurement(case=case, status="failed", reason=reason))

    def _skip_what_will_not_fit(self, group: Group) -> None:
        for case in group.cases:
            limit = self._out_of_memory.get(case.entry)
            if limit is not None and case.min_bytes >= limit and case.id not in self.measurements:
                self._record(
                    Measurement(case=case.id, status="skipped", reason="this kernel ran out of memory at a smaller problem already")
                )

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Fresh build caches, so that build times are cold ones."""
        path = Path(tempfile.mkdtemp(prefix="kerneldyno-"))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _last_worker(measurements: Mapping[str, Measurement]) -> int:
    """The highest worker number used so far: a resumed run goes on counting, so that it never pairs across its parts."""
    processes: list[Process] = [process for measurement in measurements.values() for process in measurement.processes]
    return max((process.worker for process in processes), default=0)


def _without_repetition(warnings: list) -> list:  # type: ignore[type-arg]
    return list(dict.fromkeys(warnings))
