"""Which cells a comparison has: kernels of both sides at the problems that they take, and the canaries among them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from kerneldyno.kernels.registry import Device, Kernel, Problem

from .. import privacy
from ..comparison import Cell
from ..plan import baseline_of, case_of, informative_order, over_limit
from ..records import Case, SideName
from .contestants import Contestants

CANARIES = 3
"""At least so many cells have a second copy of the base beside it."""
SLOW_TO_BUILD = ("compiled", "flex")
"""Families that are no good as canaries of their own: each process would build them anew."""


class Planned(NamedTuple):
    """Cells, and the cases that they are made of."""

    cells: list[Cell]
    cases: list[Case]
    nowhere: dict[str, str]
    """Kernels without any cell -> why the device, or every problem, is not for them."""


@dataclass
class _Planner:
    contestants: Contestants
    device: Device
    seed: int
    cells: list[Cell] = field(default_factory=list)
    cases: dict[str, Case] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Kernel -> why it did not take a problem."""

    def case(self, kernel: Kernel, problem: Problem, side: SideName) -> str:
        """The id of a case, which is in the plan from now on."""
        baseline = baseline_of(problem, self.contestants.candidate_kernels, self.device)
        made = case_of(kernel, problem, self.device, self.seed, baseline, side)
        self.cases[made.id] = made
        return made.id

    def refusal(self, kernel: Kernel | None, name: str, problem: Problem) -> str | None:
        return f"there is no {name}" if kernel is None else kernel.why_not(problem, self.device)

    def compare(self, names: tuple[str, str], problem: Problem) -> None:
        """Add the cell of two kernels at a problem, unless neither takes it."""
        base, candidate = self.contestants.base_kernels.get(names[0]), self.contestants.candidate_kernels.get(names[1])
        broken = self.contestants.broken.get(names[1])
        no_base, no_candidate = self.refusal(base, names[0], problem), broken or self.refusal(candidate, names[1], problem)
        if no_base and no_candidate:
            self.refused.setdefault(names[1], no_candidate)
            return
        refusals = [f"{side}: {why}" for side, why in (("base", no_base), ("candidate", no_candidate)) if why]
        self.cells.append(
            Cell(
                id=_cell_id(names, problem, self.device, self.seed),
                operator=problem.operator,
                base_kernel=names[0],
                candidate_kernel=names[1],
                label=problem.label,
                device=str(self.device),
                base=None if no_base or base is None else self.case(base, problem, "base"),
                candidate=None if no_candidate or candidate is None else self.case(candidate, problem, "candidate"),
                reason=privacy.scrub("; ".join(refusals)) or None,
                broken=broken is not None,
                unchanged=names[1] in self.contestants.same,
                adjacent=privacy.scrubbed(self.contestants.adjacent.get(names[1])),
                source=_source(candidate or base),
            )
        )

    def watch(self, problems: Sequence[Problem]) -> None:
        """Let the first cells of different kernels or problems be canaries, too; add canaries where these are not enough."""
        able = [place for place, cell in enumerate(self.cells) if cell.base and cell.candidate and not cell.adjacent]
        for place in able[:CANARIES]:
            cell = self.cells[place]
            self.cells[place] = msgspec.structs.replace(cell, copy=self._copy_of(self.cases[cell.base or ""], problems))
        for kernel, problem in self._others(problems)[: max(CANARIES - len(able), 0)]:
            names = (kernel.name, kernel.name)
            self.cells.append(
                Cell(
                    id=_cell_id(names, problem, self.device, self.seed),
                    operator=problem.operator,
                    base_kernel=kernel.name,
                    candidate_kernel=kernel.name,
                    label=problem.label,
                    device=str(self.device),
                    base=self.case(kernel, problem, "base"),
                    copy=self.case(kernel, problem, "copy"),
                    compared=False,
                )
            )

    def _copy_of(self, case: Case, problems: Sequence[Problem]) -> str:
        problem = next(one for one in problems if one.operator == case.operator and one.fields() == case.problem)
        return self.case(self.contestants.base_kernels[case.kernel], problem, "copy")

    def _others(self, problems: Sequence[Problem]) -> list[tuple[Kernel, Problem]]:
        """Kernels of the base that may serve as canaries beside the cells, the baselines first, each at the problems in turn."""
        taken = {(cell.base_kernel, cell.label) for cell in self.cells}
        kernels = [
            kernel for kernel in self.contestants.base_kernels.values() if kernel.family not in SLOW_TO_BUILD and not kernel.approximate
        ]
        found: list[tuple[Kernel, Problem]] = []
        for rank in range(len(kernels)):
            for problem in problems:
                first = baseline_of(problem, self.contestants.base_kernels, self.device)
                ordered = sorted((one for one in kernels if one.operator == problem.operator), key=lambda one: one.name != first)
                able = [one for one in ordered if one.why_not(problem, self.device) is None and one.name not in self.contestants.adjacent]
                if rank < len(able) and (able[rank].name, problem.label) not in taken:
                    found.append((able[rank], problem))
        return found


def planned(
    contestants: Contestants, problems: Sequence[Problem], device: Device, *, seed: int, at_most: Sequence[tuple[str, int]] = ()
) -> Planned:
    """The cells of a comparison, most informative problem first, and their cases."""
    planner, used = _Planner(contestants, device, seed), dict[str, int]()
    ordered = informative_order(problems) if problems else []
    for problem in ordered:
        for names in contestants.pairs:
            kernel = contestants.candidate_kernels.get(names[1]) or contestants.base_kernels.get(names[0])
            if kernel is None or kernel.operator != problem.operator or over_limit(kernel, at_most, used):
                continue
            before = len(planner.cells)
            planner.compare(names, problem)
            used[kernel.name] = used.get(kernel.name, 0) + len(planner.cells) - before
    if planner.cells:
        planner.watch(ordered)
    met = {cell.candidate_kernel for cell in planner.cells if cell.compared}
    nowhere = {name: why for name, why in planner.refused.items() if name not in met}
    return Planned(planner.cells, list(planner.cases.values()), nowhere)


def _source(kernel: Kernel | None) -> str | None:
    """Its file, relative to the repository that holds the kernels folder."""
    if kernel is None or kernel.folder is None:
        return None
    return f"kernels/{Path(kernel.source).relative_to(kernel.folder).as_posix()}"


def _cell_id(names: tuple[str, str], problem: Problem, device: Device, seed: int) -> str:
    key = [names, problem.operator, sorted(problem.fields().items()), str(device), seed]
    return hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:16]
