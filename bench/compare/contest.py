"""The parent of a comparison: both sides of a cell in each fresh process, pass by pass, as long as terms and budget say."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec
import numpy as np

from ..comparison import Cell, Comparison
from ..entries import FirstLook
from ..messages import Request, Source
from ..plan import Group
from ..records import Case, Measurement
from ..run import Ended, Runner
from . import pairs
from .decide import canaries, cut, first_look_at, look, restless, unsettled

FEWEST_PROCESSES = 6
"""A budget that leaves fewer processes leaves out cells instead."""
LATER_SHARE = 0.7
"""What a further process of a cell takes of the first one's time, which has memory, awkward lengths and cold builds besides."""
THROTTLED = "because the device throttled"
"""In the reason of a measurement that is invalid for no fault of its kernel."""
MOST_THROWN = 3
"""So many processes of a case that the device throttled are measured again."""
Unit = list[Group]
"""What is measured without anything between: a cell, or its two sides one process after the other."""


class Stages(Protocol):
    """Who wants to know which stage a comparison has come to."""

    def stage(self, text: str) -> None: ...


@dataclass(kw_only=True)
class Contest(Runner):
    """Measures the cells of a comparison."""

    comparison: Comparison
    sources: Mapping[str, Source] = field(default_factory=dict)
    stages: Stages | None = None
    _targets: dict[str, int] = field(default_factory=dict)
    """Case -> how many processes it is to have."""
    _left_out: set[str] = field(default_factory=set)
    """Cells for which the budget leaves no time."""
    _thrown: dict[str, int] = field(default_factory=dict)
    """Case -> processes that were thrown away because the device throttled."""
    _cost_s: dict[str, float] = field(default_factory=dict)
    """Cell -> what its last process took."""

    def _all_groups(self) -> Ended:
        self._rng = np.random.default_rng(self.settings.seed)
        self._cases = {case.id: case for case in self.plan.cases}
        # no ceilings: whether a rate is plausible matters little where two are divided, and a busy machine's are too low
        if not self.comparison.cells:
            return "finished"
        return self._first_look() or self._more() or self._second_look() or "finished"

    def _first_look(self) -> Ended | None:
        """All cells; then, if the budget was too careful, those that were left out."""
        while True:
            ended = self._processes([cell for cell in self._cells() if cell.id not in self._cost_s])
            again = sorted(self._left_out, key=[cell.id for cell in self.comparison.cells].index)
            self._left_out = set()
            if ended or not again:
                return ended
            if not self._room_for(again[0]):
                self._left_out = set(again)
                self._out_of_time(f"{len(again)} cells")
                return None

    def _processes(self, cells: Sequence[Cell]) -> Ended | None:
        """The processes of a first look at these cells."""
        terms = self.comparison.terms
        for number in range(terms.processes):
            chosen = [cell for cell in cells if cell.id not in self._left_out]
            if number and not self._affords(chosen):
                self._say(f"the budget allows {number} processes for each cell")
                return None
            if ended := self._pass(chosen, number + 1, f"process {number + 1} of {terms.processes}"):
                return ended
        return None

    def _more(self) -> Ended | None:
        """Further processes where the first ones scatter, or a canary is not clear."""
        terms, cells = self.comparison.terms, self._cells()
        unclear = self._unclear_canaries(cells)
        chosen = [cell for cell in cells if cell.id in unclear or restless(pairs.evidence(cell, self.measurements), terms)]
        return self._extend(chosen, terms.processes, terms.more_processes, "further processes for cells that scatter")

    def _second_look(self) -> Ended | None:
        """A cell that is regressed or inconclusive is measured once more, in new processes; what came before counts, too."""
        terms = self.comparison.terms
        cells = [cell for cell in self._cells() if cell.compared]
        evidence = {cell.id: pairs.evidence(cell, self.measurements) for cell in cells}
        cells = [cell for cell in cells if evidence[cell.id].differences]
        firsts = {key: cut(one, first_look_at(one, terms)) for key, one in evidence.items()}  # of cells without numbers, too
        decided = look(firsts, terms, terms.alpha * terms.first_look)
        chosen = [cell for cell in cells if unsettled(decided[cell.id], doubted=cell.unchanged)]
        have = {cell.id: len(evidence[cell.id].differences) for cell in chosen}
        if chosen:
            self.journal.append(FirstLook({key: len(one.differences) for key, one in firsts.items()}))
        for number in range(terms.second_look):
            if not chosen:
                return None
            if not self._affords(chosen):
                self._out_of_time("the second look")
                return None
            for cell in chosen:
                self._aim(cell, have[cell.id] + number + 1)
            if ended := self._units(chosen, f"second look at {len(chosen)} cells, process {number + 1} of {terms.second_look}"):
                return ended
        return None

    def _extend(self, cells: Sequence[Cell], start: int, end: int, why: str) -> Ended | None:
        for target in range(start + 1, end + 1):
            if not cells:
                return None
            if not self._affords(cells):
                self._out_of_time(why)
                return None
            if ended := self._pass(cells, target, f"{why}: {len(cells)} of {len(self._cells())}, process {target} of {end}"):
                return ended
        return None

    def _pass(self, cells: Sequence[Cell], target: int, text: str) -> Ended | None:
        for cell in cells:
            self._aim(cell, target)
        return self._units(cells, text, first=target == 1)

    def _units(self, cells: Sequence[Cell], text: str, *, first: bool = False) -> Ended | None:
        """One more process for each of these cells: in random order, save the first time, when the budget may leave out the last."""
        self._say(text)
        ordered = list(cells)
        if not first:
            ordered = [cells[place] for place in self._rng.permutation(len(cells))]
        for number, cell in enumerate(ordered):
            if self.stop():
                return "interrupted"
            if first and self._cost_s and not self._room_for(cell.id):
                self._left_out |= {one.id for one in ordered[number:]}
                self._say(f"the budget leaves no time for {len(ordered) - number} of {len(ordered)} cells")
                break
            began = time.monotonic()
            for group in self._unit(cell):
                self.progress.group(group, number + 1, len(ordered), None)
                self._one_group(group, 0 if first else 1)
            self._cost_s[cell.id] = (time.monotonic() - began) * (LATER_SHARE if first else 1.0)
        return "interrupted" if self.stop() else None

    def _unit(self, cell: Cell) -> Unit:
        """The cases of a cell as one group, or as one for each side in random order where they cannot share a process."""
        ids = dict.fromkeys(case for case in (cell.base, cell.candidate, cell.copy) if case is not None)
        cases = [self._cases[key] for key in ids]
        if not cell.adjacent:
            return [Group(cell.id, cell.label, cell.operator, cases)]
        return [Group(cell.id, cell.label, cell.operator, [cases[i]]) for i in self._rng.permutation(len(cases))]

    def _aim(self, cell: Cell, target: int) -> None:
        """Ask for so many processes of a cell; of a side that has nothing to be compared with, for one."""
        both = cell.base is not None and cell.candidate is not None
        for case in (cell.base, cell.candidate, cell.copy):
            if case is not None:
                self._targets[case] = target if both or cell.copy else 1

    def _needs(self, case: Case, process: int) -> bool:
        found = self.measurements.get(case.id)
        if found is None:
            return process == 0
        return found.status == "ok" and len(found.processes) < self._targets.get(case.id, 0)

    def _missing(self, group: Group, process: int) -> list[Case]:
        """What is still to be measured of a cell; nothing once there is nothing left to compare it with."""
        cell = next(cell for cell in self.comparison.cells if cell.id == group.id)
        hopeful = [pair for pair in self._pairs(cell) if all(self._may_be_ok(case) for case in pair)]
        wanted = {case for pair in hopeful for case in pair} if process else {case for pair in self._pairs(cell) for case in pair}
        return [case for case in group.cases if case.id in wanted and self._needs(case, process)]

    def _pairs(self, cell: Cell) -> list[tuple[str, ...]]:
        compared = tuple(case for case in (cell.base, cell.candidate) if case is not None)
        return [compared, *([(cell.base, cell.copy)] if cell.base and cell.copy else [])]

    def _may_be_ok(self, case: str) -> bool:
        found = self.measurements.get(case)
        return found is None or found.status == "ok"

    def _cells(self) -> list[Cell]:
        """Those that may still come to a verdict."""
        return [cell for cell in self.comparison.cells if cell.id not in self._left_out]

    def _unclear_canaries(self, cells: Sequence[Cell]) -> set[str]:
        copies = {cell.id: pairs.evidence(cell, self.measurements).copies for cell in cells if cell.copy is not None}
        return {cell for cell, (word, _) in canaries(copies, self.comparison.terms).items() if word == "INCONCLUSIVE"}

    def _room_for(self, cell: str) -> bool:
        """Whether one more cell leaves time for the fewest processes of it and of all that are begun."""
        left = self._pace.left_s
        if left is None:
            return True
        usual = sum(self._cost_s.values()) / len(self._cost_s)
        cost = self._cost_s.get(cell, usual)
        begun = [one for one in self._cells() if one.id in self._cost_s and one.id != cell]
        fewest = min(FEWEST_PROCESSES, self.comparison.terms.processes)
        still = sum(self._cost_s[one.id] * max(fewest - self._done(one), 0) for one in begun)
        return still + cost / LATER_SHARE + (fewest - 1) * cost <= left

    def _done(self, cell: Cell) -> int:
        """Processes measured so far; endless for a cell that cannot come to a ratio any more."""
        if not any(len(pair) > 1 and all(self._may_be_ok(case) for case in pair) for pair in self._pairs(cell)):
            return 1000
        found = self.measurements.get(cell.base or cell.candidate or "")
        return len(found.processes) if found else 0

    def _affords(self, cells: Sequence[Cell]) -> bool:
        """Whether there is time for one more process of each of these."""
        left = self._pace.left_s
        return left is None or sum(self._cost_s.get(cell.id, 0.0) for cell in cells) <= left

    def _out_of_time(self, what: str) -> None:
        self._say(f"the budget leaves no time for {what}")

    def _say(self, text: str) -> None:
        if self.stages:
            self.stages.stage(text)

    def _accept(self, measurement: Measurement) -> None:
        """A process that the device throttled says nothing of a kernel: it is measured again, up to a declared number of times."""
        thrown = self._thrown.get(measurement.case, 0)
        if measurement.status == "invalid" and THROTTLED in (measurement.reason or "") and thrown < MOST_THROWN:
            self._thrown[measurement.case] = thrown + 1
            return
        super()._accept(measurement)

    def _request(self, kind: Literal["group", "check", "ceilings"], *, cases: list[Case] | None = None, first: bool = True) -> Request:
        request = super()._request(kind, cases=cases, first=first)
        if not cases:
            return request
        cell = next(one for one in self.comparison.cells if cases[0].id in (one.base, one.candidate, one.copy))
        sides = {case.side: self.sources[case.side] for case in cases}
        return msgspec.structs.replace(request, sides=sides, alone=bool(cell.adjacent), first=self._is_first(cases))

    def _is_first(self, cases: Sequence[Case]) -> bool:
        """Whether memory and what runs are still to be seen."""
        return any(case.id not in self.measurements for case in cases)
