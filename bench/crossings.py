"""Where along the sequence axis one kernel overtakes another: from paired rounds, between measured lengths. No torch, no kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from . import stats
from .stats import Interval
from .variants import Variant, variant

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from .journal import Run
    from .records import Case, Measurement

Entry = tuple["Case", "Measurement"]


class Axis(NamedTuple):
    """Problems that differ in nothing but the sequence length."""

    variant: Variant
    batch: int


class Point(NamedTuple):
    """Two kernels at one measured length."""

    length: int
    ratio: Interval
    """Time of the kernel that is faster at longer sequences, divided by the other's: falls from above 1 to below."""
    cases: tuple[str, str]
    """Ids: of the kernel that is faster at shorter sequences, and of the other."""


@dataclass(frozen=True)
class Crossing:
    """One kernel is faster up to some length, another from there on."""

    axis: Axis
    shorter: str
    """The kernel that is faster below."""
    longer: str
    """The kernel that is faster above."""
    approximate: frozenset[str]
    """Those of the two that are; a crossing with any is one of the approximate division."""
    points: tuple[Point, ...]
    """At the first `shorter` is faster beyond noise, at the last `longer` is; those between are ties. Adjacent measured lengths."""
    curve: tuple[Point, ...]
    """The two at all lengths at which both were measured."""
    leads: bool = False
    """Whether these two are the fastest of all exact, or of all approximate kernels there, others that tie with them aside."""

    @property
    def low(self) -> int:
        return self.points[0].length

    @property
    def high(self) -> int:
        return self.points[-1].length

    @property
    def length(self) -> Interval:
        """The length from which on `longer` is the faster one, and the range in which the ratio's 95 % interval holds 1."""
        return crossing_length([(point.length, point.ratio) for point in self.points])


@dataclass
class _Row:
    """What was measured along one axis."""

    at: dict[int, dict[str, Entry]] = field(default_factory=dict)
    """Length -> kernel -> case and measurement, all of them ok."""
    ratios: dict[tuple[str, str, int], Interval | None] = field(default_factory=dict)
    """What has been computed already."""

    def ratio(self, a: str, b: str, length: int) -> Interval | None:
        """Time of `b` divided by the time of `a`; None when they were not sampled side by side."""
        key = a, b, length
        if key not in self.ratios:
            entries = self.at[length]
            try:
                self.ratios[key] = stats.paired_speedup(entries[a][1].processes, entries[b][1].processes)
            except ValueError:
                self.ratios[key] = None
        return self.ratios[key]

    def among_fastest(self, leader: str, names: Iterable[str], length: int) -> bool:
        """Whether one of these kernels is the fastest, or ties with it."""
        here = [name for name in names if name in self.at[length]]
        return leader in here or any((ratio := self.ratio(leader, name, length)) is not None and stats.is_tie(ratio) for name in here)

    def leaders(self, added: Container[str], *, approximate: bool) -> dict[int, str]:
        """Length -> the fastest of the exact, or of the approximate kernels.

        At a length of the plan all kernels take part; where length and cases (`added`) are not of the plan, one that is
        alone there is only the baseline of others.
        """
        found = {}
        for length, entries in self.at.items():
            own = [(case.id, name) for name, (case, _) in entries.items() if case.approximate is approximate]
            if len(own) > 1 or (own and own[0][0] not in added):
                found[length] = self._fastest(length, [name for _, name in own])
        return found

    def _fastest(self, length: int, names: Sequence[str]) -> str:
        """Paired rounds know better than medians."""
        entries = {name: self.at[length][name][1] for name in names}
        best, *others = sorted(names, key=lambda name: stats.latency(entries[name].processes).estimate)
        for name in others:
            if (ratio := self.ratio(best, name, length)) is not None and ratio.estimate < 1:
                best = name
        return best


def crossings(run: Run) -> list[Crossing]:
    """Every crossing of two kernels that matter to each other, by axis, the shortest length first.

    These are: of the exact, and of the approximate kernels all that are the fastest at some length of the axis; and every
    kernel with its baseline. A crossing needs a length on either side at which one of the two is faster beyond noise.
    """
    found: list[Crossing] = []
    added = {case.id for case in run.added}
    for axis, row in _rows(run).items():
        leaders = {division: row.leaders(added, approximate=division) for division in (False, True)}
        inside: list[Crossing] = []
        for one, other in _pairs(row, leaders):
            curve = _curve(row, one, other)
            for first, last in _changes(curve):
                straight = curve[first].ratio.estimate > 1
                shorter, longer = (one, other) if straight else (other, one)
                turned = curve if straight else tuple(_turned(point) for point in curve)
                points = turned[first : last + 1]
                loose = frozenset(name for name in (one, other) if row.at[points[0].length][name][0].approximate)
                inside.append(Crossing(axis, shorter, longer, loose, points, turned))
        found += sorted(_with_leading(row, leaders, inside), key=lambda crossing: (crossing.low, crossing.high))
    return found


def crossing_length(points: Sequence[tuple[int, Interval]]) -> Interval:
    """The length at which a ratio crosses 1, interpolated on logarithmic axes, and the range in which its interval holds 1.

    The ratio lies above 1 at the first of the points (length, ratio), with all of its interval, and below 1 at the last.
    Where it crosses several times among ties between them, the middle crossing counts. An interval without known ends
    holds everything. The range takes the curve between two points for straight; it is as good as that is.
    """
    places = [math.log(length) for length, _ in points]
    middle = _zeros(places, [math.log(ratio.estimate) for _, ratio in points])
    lower = _zeros(places, [_log(ratio.low, -math.inf) for _, ratio in points])
    upper = _zeros(places, [_log(ratio.high, math.inf) for _, ratio in points])
    ends = points[0][0], points[-1][0]
    low, estimate, high = (min(max(math.exp(place), ends[0]), ends[1]) for place in (lower[0], middle[(len(middle) - 1) // 2], upper[-1]))
    return Interval(estimate, low, high)


def _rows(run: Run) -> dict[Axis, _Row]:
    rows: dict[Axis, _Row] = {}
    for case in run.cases:
        measurement = run.measurements.get(case.id)
        if measurement is not None and measurement.status == "ok" and measurement.samples_s:
            row = rows.setdefault(axis_of(case), _Row())
            row.at.setdefault(case.seq_len, {})[case.kernel] = (case, measurement)
    return rows


def axis_of(case: Case) -> Axis:
    """The axis along which a case lies."""
    return Axis(variant(case), case.batch)


def _pairs(row: _Row, leaders: dict[bool, dict[int, str]]) -> list[tuple[str, str]]:
    """The pairs of kernels that are looked at."""
    found: dict[tuple[str, str], None] = {}
    for by_length in leaders.values():
        found |= dict.fromkeys(combinations(dict.fromkeys(by_length.values()), 2))
    for entries in row.at.values():
        for name, (case, _) in entries.items():
            if case.baseline != name and case.baseline in entries and (case.baseline, name) not in found:
                found[name, case.baseline] = None
    return list(found)


def _curve(row: _Row, one: str, other: str) -> tuple[Point, ...]:
    """Two kernels at all lengths at which they were sampled side by side; ratios are time of `other` over that of `one`."""
    found = []
    for length in sorted(row.at):
        entries = row.at[length]
        if one in entries and other in entries and (ratio := row.ratio(one, other, length)) is not None:
            found.append(Point(length, ratio, (entries[one][0].id, entries[other][0].id)))
    return tuple(found)


def _changes(curve: Sequence[Point]) -> Iterator[tuple[int, int]]:
    """Places of a decided point and of the next decided one, where that is the opposite."""
    before: int | None = None
    for place, point in enumerate(curve):
        if stats.is_tie(point.ratio):
            continue
        if before is not None and (curve[before].ratio.estimate > 1) != (point.ratio.estimate > 1):
            yield before, place
        before = place


def _with_leading(row: _Row, leaders: dict[bool, dict[int, str]], inside: Sequence[Crossing]) -> list[Crossing]:
    """The crossings of an axis; those lead at which the fastest kernel of a division changes, no two at the same lengths."""
    ranked = []
    for place, crossing in enumerate(inside):
        if (unclear := _unclear(row, leaders[bool(crossing.approximate)], crossing)) is not None:
            ranked.append((unclear, crossing.high / crossing.low, place))
    chosen: list[int] = []
    for *_, place in sorted(ranked):
        if not any(_overlap(inside[place], inside[other]) for other in chosen):
            chosen.append(place)
    return [replace(crossing, leads=place in chosen) for place, crossing in enumerate(inside)]


def _unclear(row: _Row, leaders: dict[int, str], crossing: Crossing) -> int | None:
    """0 when none but these two are the fastest there, 1 when a third between the ends ties with them, 2 when one at an end does.

    None when a third is faster than both, or when either is the fastest nowhere.
    """
    pair = {crossing.shorter, crossing.longer}
    there = {length: leader for length, leader in leaders.items() if crossing.low <= length <= crossing.high}
    ends = {crossing.low: crossing.shorter, crossing.high: crossing.longer}
    if not pair <= set(leaders.values()) or not ends.keys() <= there.keys():
        return None
    if not all(row.among_fastest(leader, {ends[length]} if length in ends else pair, length) for length, leader in there.items()):
        return None
    return 2 if any(there[length] != name for length, name in ends.items()) else 0 if set(there.values()) <= pair else 1


def _overlap(one: Crossing, other: Crossing) -> bool:
    """Whether two crossings of one division lie between the same lengths."""
    return bool(one.approximate) is bool(other.approximate) and one.low < other.high and other.low < one.high


def _turned(point: Point) -> Point:
    """The same with the kernels exchanged."""
    estimate, low, high = point.ratio
    inverse = Interval(*(math.inf if value == 0 else 1 / value for value in (estimate, high, low)))
    return Point(point.length, inverse, point.cases[::-1])


def _log(value: float, unknown: float) -> float:
    if math.isnan(value):
        return unknown
    return math.log(value) if value > 0 else -math.inf


def _zeros(places: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Where the line through these points is zero, ascending: it begins above and ends below."""
    found = []
    for number in range(1, len(places)):
        x0, x1, y0, y1 = places[number - 1], places[number], heights[number - 1], heights[number]
        if y1 == 0:
            found.append(x1)
        elif min(y0, y1) < 0 < max(y0, y1):
            found.append(x0 if math.isinf(y1) else x1 if math.isinf(y0) else x0 + (x1 - x0) * (y0 / (y0 - y1)))
    return found
