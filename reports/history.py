"""Many runs as one frame: a row per run and case, oldest run first, and where a kernel's latency changed its level.

Runs stand in one series only where machine, software and protocol are the same. Nothing here decides anything: whether a
commit made a kernel slower is measured by comparing, with both sides at hand, not read from runs of other days.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kerneldyno.bench import journal
from kerneldyno.bench.journal import JournalError, RunFolderError

from .change_points import MIN_RUNS, ChangePoint, change_points
from .conditions import Conditions, conditions, told_apart
from .frame import COLUMNS, _tidy, results, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kerneldyno.bench.journal import Run

PLANNED = (
    "kernel", "family", "operator", "device", "approximate", "label", "batch", "seq_len", "tokens", "dtype", "direction",
    "flops", "min_bytes", "baseline", "seed", "case", "group", "protocol",
)  # fmt: skip
"""What is known of a case whether it was measured or not."""
NOT_PLANNED = "not part of this run"

Row = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """One change of level, between the last run of the old level and the first of the new one."""

    point: ChangePoint
    before: Row
    after: Row
    runs_before: int
    """Runs with a number in the level before."""
    runs_after: int


@dataclass(frozen=True)
class Series:
    """One case over the runs of the same conditions."""

    conditions: Conditions
    rows: list[Row]
    """One per run, oldest first, those without a number too."""
    changes: list[Change] = field(default_factory=list)

    @property
    def case(self) -> Row:
        """A row that names kernel and problem."""
        return self.rows[-1]

    @cached_property
    def measured(self) -> list[Row]:
        return [row for row in self.rows if has_number(row)]

    @property
    def gaps(self) -> list[Row]:
        """The rows without a number, each with its reason."""
        return [row for row in self.rows if not has_number(row)]

    @property
    def is_short(self) -> bool:
        """Whether there are too few numbers to look for changes."""
        return len(self.measured) < MIN_RUNS


@dataclass(frozen=True)
class LeftOut:
    """A folder that was given or found and is not among the runs."""

    folder: Path
    sentence: str
    """Why, with the folder's path."""

    @property
    def said(self) -> str:
        """The sentence for others to read: with the folder's name only."""
        return self.sentence.replace(str(self.folder), self.folder.name) if len(self.folder.parts) > 1 else self.sentence


@dataclass(frozen=True)
class History:
    """Runs, oldest first, and what is derived from them, each when first asked for."""

    runs: list[Run]
    left_out: list[LeftOut] = field(default_factory=list)

    @cached_property
    def conditions(self) -> dict[Conditions, str]:
        """Each of the conditions, with a name that says how it differs from the others; an empty name where there is one."""
        return told_apart(self.runs)

    @cached_property
    def rows(self) -> list[Row]:
        return [row for found in self.conditions for row in self._rows_of(found)]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per run and case: created, commit, run, fingerprint, conditions, then the columns of `frame.results`."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return _tidy({name: [row.get(name) for row in self.rows] for name in names})

    @cached_property
    def series(self) -> list[Series]:
        """One per case and conditions, those with the largest changes first. Raises MissingLibraryError."""
        found: dict[tuple[Conditions, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault((Conditions(row["fingerprint"], row["protocol"]), row["case"]), []).append(row)
        made = [_series(key, own) for (key, _), own in found.items()]
        return sorted(made, key=lambda series: -max((abs(change.point.change) for change in series.changes), default=0.0))

    @property
    def changes(self) -> list[tuple[Series, Change]]:
        """All changes, the biggest first."""
        found = [(series, change) for series in self.series for change in series.changes]
        return sorted(found, key=lambda pair: -abs(pair[1].point.change))

    def runs_of(self, found: Conditions) -> list[Run]:
        """The runs under these conditions, oldest first."""
        return [run for run in self.runs if conditions(run) == found]

    def _rows_of(self, found: Conditions) -> Iterator[Row]:
        """The rows of the runs under these conditions; a case that a run did not plan gets a row that says so."""
        tables = [(run, {row["case"]: row for row in rows(results(run))}) for run in self.runs_of(found)]
        known: dict[str, Row] = {}
        for run, table in tables:
            own = {name for case in run.cases for name in case.problem}
            known |= {case: {name: value for name, value in row.items() if name in PLANNED or name in own} for case, row in table.items()}
        for run, table in tables:
            head = {"created": run.manifest.created, "commit": run.manifest.environment.commit, "run": run.folder}
            head |= {"fingerprint": found.fingerprint, "conditions": self.conditions[found]}
            absent: Row = dict.fromkeys(COLUMNS) | {"status": "missing", "reason": NOT_PLANNED}
            yield from (head | table.get(case, absent | planned | {"run": run.folder}) for case, planned in known.items())


def has_number(row: Row) -> bool:
    """Whether a run has a latency of this case; where not, `reason` says why."""
    return row["status"] == "ok" and bool(row["latency_s"])


def load(folders: Sequence[Path | str]) -> pd.DataFrame:
    """The frame of these runs: see `read` and `History.frame`."""
    return read(folders).frame


def read(folders: Sequence[Path | str]) -> History:
    """Read run folders, and all runs inside folders that are none themselves; in any order, each run counts once.

    What cannot be read is left out with a sentence. Raises RunFolderError when nothing is left.
    """
    found: dict[Path, Run] = {}
    left_out: list[LeftOut] = []
    for given in map(Path, folders):
        inside = list(_run_folders(given))
        if not inside:
            missing = "does not exist" if not given.exists() else f"holds no run (no {journal.MANIFEST} in it or below)"
            left_out.append(LeftOut(given, f"{given} {missing}: give run folders, or a folder that holds some"))
        for folder in inside:
            try:
                run = journal.read(folder)
            except JournalError as error:
                left_out.append(LeftOut(folder, str(error)))
                continue
            if why := _unfit(run):
                left_out.append(LeftOut(folder, f"{folder} {why}"))
            else:
                found.setdefault(folder.resolve(), run)
    runs = _once(found, left_out)
    if not runs:
        reasons = "; ".join(dict.fromkeys(folder.sentence for folder in left_out))
        raise RunFolderError(reasons or "no run was given: name run folders, or a folder that holds some")
    return History(sorted(runs, key=lambda run: (_moment(run.manifest.created), run.folder)), left_out)


def _unfit(run: Run) -> str | None:
    """Why a run that can be read does not belong into a history."""
    if run.manifest.comparison is not None:
        return "is a comparison, whose sides were measured for each other: only runs of `kerneldyno run` are followed"
    return None if run.cases else "plans no case: there is nothing to follow in it"


def _run_folders(given: Path) -> Iterator[Path]:
    """The folder itself when it is a run; otherwise the runs below it, hidden folders aside."""
    for place, inner, files in os.walk(given):
        if journal.MANIFEST in files:
            inner.clear()
            yield Path(place)
        inner[:] = sorted(name for name in inner if not name.startswith("."))


def _once(found: Mapping[Path, Run], left_out: list[LeftOut]) -> list[Run]:
    """One of each run: a copy has the same plan of the same moment, and the same samples as far as both go."""
    kept: list[Run] = []
    for folder, run in found.items():
        twin = next((number for number, other in enumerate(kept) if _is_same(run, other)), None)
        if twin is None:
            kept.append(run)
            continue
        sentence = f"{folder} is a copy of the run {kept[twin].folder} of {run.manifest.created}: it counts once"
        left_out.append(LeftOut(folder, sentence))
        if len(run.measurements) > len(kept[twin].measurements):
            kept[twin] = run
    return kept


def _is_same(one: Run, other: Run) -> bool:
    if one.manifest != other.manifest:
        return False
    common = one.measurements.keys() & other.measurements.keys()
    return all(one.measurements[case] == other.measurements[case] for case in common) and (bool(common) or one.folder == other.folder)


def _moment(created: str) -> datetime:
    """When a run began; what is no time goes first, so that it is seen."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _series(key: Conditions, own: list[Row]) -> Series:
    series = Series(key, own)
    points = change_points([row["latency_s"] for row in series.measured])
    ends = [0, *(point.position for point in points), len(series.measured)]
    for number, point in enumerate(points):
        before, after = (series.measured[point.position + step] for step in (-1, 0))
        lengths = [ends[number + step + 1] - ends[number + step] for step in (0, 1)]
        series.changes.append(Change(point, before, after, *lengths))
    return series
