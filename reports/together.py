"""Several runs side by side, never pooled: what each measured of the same problems, on whatever machine, version or day.

Cases of different runs are joined by kernel and problem; device and seed may differ. A ratio between runs holds machine,
software and noise: it is shown as that, and nothing is decided by it.
"""

from __future__ import annotations

import string
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from kerneldyno.bench.journal import MismatchError, RunFolderError

from . import history
from .frame import COLUMNS, Frames, _tidy, rows
from .tables import Marks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd

    from kerneldyno.bench.journal import Run
    from kerneldyno.bench.records import Case

    from .history import LeftOut

MOST = 12
"""More runs than this cannot be read side by side."""
NOT_PLANNED = history.NOT_PLANNED
HEAD = ("letter", "name", "created", "commit", "fingerprint", "same_kernel_and_problem", "same_problem")
"""The columns of `Together.frame` that come before those of `frame.results`; the last two join the rows of different runs."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """One of the runs."""

    letter: str
    """"A" for the oldest: how the page names it where there is little room."""
    name: str
    """Its folder's name, numbered where runs share one."""
    run: Run

    @cached_property
    def rows(self) -> dict[str, Row]:
        """Its results, by the id of kernel and problem."""
        joined = {case.id: joint(case).id for case in self.run.cases}
        return {joined[row["case"]]: row for row in rows(self._frames.results)}

    @cached_property
    def contests(self) -> list[Row]:
        """Its winners, with the problem's id as `group`."""
        joined = {case.group: joint(case).group for case in self.run.cases}
        return [contest | {"group": joined[contest["group"]]} for contest in rows(self._frames.winners)]

    @cached_property
    def marks(self) -> Marks:
        """Who is first, or tied with the first, within this run."""
        return Marks.of(list(self.rows.values()), self._frames.winners)

    @cached_property
    def groups(self) -> set[str]:
        """The ids of its problems, also of those that were added to its plan."""
        return {joint(case).group for case in self.run.cases}

    @cached_property
    def planned_groups(self) -> set[str]:
        """The ids of the problems that it planned. At those that were added not all kernels take part, and nobody wins."""
        return {joint(case).group for case in self.run.manifest.cases} if self.run.added else self.groups

    @cached_property
    def _frames(self) -> Frames:
        return Frames(self.run)


@dataclass(frozen=True)
class Together:
    """Runs, oldest first, and what is derived from them, each when first asked for."""

    members: list[Member]
    left_out: list[LeftOut]

    @cached_property
    def cases(self) -> dict[str, Case]:
        """Each kernel and problem that any of the runs planned, by its id; without device and seed."""
        return {case.id: case for member in self.members for case in map(joint, member.run.cases)}

    @cached_property
    def shared(self) -> set[str]:
        """The ids of the problems that at least two runs have, also of those that were added to a plan."""
        return _of_several(member.groups for member in self.members)

    @cached_property
    def contested(self) -> set[str]:
        """The ids of the problems that at least two runs planned: there they have a fastest kernel."""
        return _of_several(member.planned_groups for member in self.members)

    @cached_property
    def fastest(self) -> dict[str, dict[str, set[str]]]:
        """Problem -> letter of a run -> its fastest exact kernel there, and the one that ties with it; where it has any."""
        found: dict[str, dict[str, set[str]]] = {}
        for member in self.members:
            for contest in member.contests:
                if contest["division"] == "exact":
                    first = {contest["kernel"]} | ({contest["runner_up"]} if contest["tie"] else set())
                    found.setdefault(contest["group"], {})[member.letter] = first
        return found

    @cached_property
    def lacking(self) -> dict[str, str]:
        """Exact kernel -> letters of the runs that lack it at a problem at which they, and a run that has it, have a fastest one."""
        found: dict[str, set[str]] = {}
        for case in self.planned:
            asked = [member for member in self.members if member.letter in self.fastest.get(case["group"], {})]
            without = {member.letter for member in asked if not has_number(self.row(member, case["case"]))}
            if not case["approximate"] and len(without) < len(asked):
                found.setdefault(case["kernel"], set()).update(without)
        return {kernel: "".join(sorted(letters)) for kernel, letters in found.items() if letters}

    @cached_property
    def planned(self) -> list[Row]:
        """What is known of each of `cases` before measuring; `case` and `group` are the ids that join runs."""
        names = ("kernel", "family", "operator", "approximate", "label", "batch", "seq_len", "tokens", "dtype", "direction", "flops")
        return [{name: getattr(case, name) for name in names} | {"case": case.id, "group": case.group} for case in self.cases.values()]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per kernel, problem and run, those that a run did not plan included: HEAD, then the columns of `frame.results`."""
        made = list(self.every_row())
        names = dict.fromkeys([*HEAD, *(name for row in made for name in row)])
        return _tidy({name: [row.get(name) for row in made] for name in names})

    def row(self, member: Member, case: str) -> Row:
        """What a run has of a kernel and problem; a row that says so where it planned nothing."""
        return member.rows.get(case) or self._absent[case]

    @cached_property
    def _absent(self) -> dict[str, Row]:
        return {row["case"]: dict.fromkeys(COLUMNS) | row | {"status": "missing", "reason": NOT_PLANNED} for row in self.planned}

    def every_row(self) -> Iterator[Row]:
        """The rows of `frame`."""
        for member in self.members:
            environment = member.run.manifest.environment
            head: Row = {"letter": member.letter, "name": member.name, "created": member.run.manifest.created}
            head |= {"commit": environment.commit, "fingerprint": environment.fingerprint}
            for case in self.planned:
                row = self.row(member, case["case"])
                own: Row = {"case": None, "group": None} if is_unplanned(row) else {}
                yield (
                    head | {"same_kernel_and_problem": case["case"], "same_problem": case["group"]} | row | own | {"run": member.run.folder}
                )


def read(folders: Sequence[Path | str]) -> Together:
    """Read run folders, and all runs inside folders that are none themselves; a run that is given twice counts once.

    Raises RunFolderError (exit status 2) for fewer than two runs that can be read or more than MOST, MismatchError (exit
    status 3) for runs that have no problem in common.
    """
    found = history.read(folders)
    if len(found.runs) == 1:
        aside = "".join(f"; {folder.sentence}" for folder in found.left_out)
        raise RunFolderError(
            f"there is only one run, {found.runs[0].folder} (a run given twice counts once), and nothing to set beside it: "
            f"give two, or the folder of one run for its own page{aside}"
        )
    if len(found.runs) > MOST:
        raise RunFolderError(
            f"{len(found.runs)} runs are too many to be read side by side: give at most {MOST}, or follow them with kerneldyno history"
        )
    names = _distinct([run.folder for run in found.runs])
    members = [Member(*told) for told in zip(string.ascii_uppercase, names, found.runs, strict=False)]
    together = Together(members, found.left_out)
    if not together.shared:
        raise MismatchError(
            f"no problem is in two of these runs ({', '.join(names)}), so nothing stands side by side: "
            "measure the same presets or shapes, with the same data type"
        )
    return together


def joint(case: Case) -> Case:
    """The case without what may differ between runs: its ids then join them."""
    return msgspec.structs.replace(case, device="", seed=0)


def has_number(row: Row) -> bool:
    """Whether a run has a latency of a case; where not, `reason` says why."""
    return history.has_number(row)


def is_unplanned(row: Row) -> bool:
    """Whether the run never meant to measure the case."""
    return bool(row["status"] == "missing" and row["reason"] == NOT_PLANNED)


def _of_several(groups: Iterable[set[str]]) -> set[str]:
    """What is in two of them, or more."""
    counted = Counter(group for own in groups for group in own)
    return {group for group, runs in counted.items() if runs > 1}


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where several are the same."""
    made: list[str] = []
    for name in names:
        number, told = 1, name
        while told in made or (names.count(name) > 1 and number == 1):
            told = f"{name} ({number})"
            number += 1
        made.append(told)
    return made
