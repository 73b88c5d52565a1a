"""Sentences: what came out, said once at the top of the page and once above each chart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import units
from .figures import QUANTITIES, believed, error_of
from .names import short
from .shapes import SHORT_DTYPES
from .tables import STATES

if TYPE_CHECKING:
    from kerneldyno.bench.journal import Run

Row = Mapping[str, Any]

CONTRADICTION = 1.25
"""From this factor on, a speedup and the two latencies beside it are called contradicting."""
FEW = 3
"""So many kernels are named one by one in a sentence."""
OPERATORS = {"attention": "Attention", "feedforward": "Feed-forward", "layer": "Encoder layer"}


def subject(run: Run, results: Sequence[Row]) -> str:
    """What was measured, on what, when."""
    measured = [row for row in results if row["status"] == "ok"] or results
    kernels, planned = (len({row["kernel"] for row in rows}) for rows in (measured, results))
    shapes = len({row["group"] for row in measured})
    of = f" of {planned}" * (kernels < planned)
    operators = units.listed(OPERATORS.get(name, name).lower() for name in dict.fromkeys(row["operator"] for row in results))
    noun = "kernel" if planned == 1 else "kernels"
    return f"{kernels}{of} {noun} on {units.count(shapes, 'shape')} of {operators}, measured on {machine(run)} on {date(run)}."


def machine(run: Run) -> str:
    """The device in words."""
    environment = run.manifest.environment
    if environment.device == "cpu":
        return f"{environment.device_name} (CPU, {units.count(environment.threads, 'thread')})"
    return environment.device_name


def date(run: Run) -> str:
    """The day of the run, as people write it; as it stands in the manifest when it is no ISO date."""
    try:
        when = datetime.fromisoformat(run.manifest.created)
    except ValueError:
        return run.manifest.created
    return f"{when.day} {when:%B %Y}"


def moment(created: str) -> str:
    """When a run began, to the minute: `2026-11-08 19:20`; as it stands in the manifest when it is no ISO date."""
    try:
        return f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M}"
    except ValueError:
        return created


def coverage(results: Sequence[Row]) -> list[tuple[str, str, str, int]]:
    """(status, word, sign, number of cases) of every status that occurs."""
    counted = Counter(row["status"] for row in results)
    return [(status, *STATES[status], counted[status]) for status in STATES if counted[status]]


def trust(results: Sequence[Row]) -> str:
    """Why the numbers may be believed, and how far: what was checked and how well it was measured; empty without any number."""
    measured = [row for row in results if row["status"] == "ok"]
    if not measured:
        return ""
    probes = sum(row["probes"] or 0 for row in measured)
    said = [f"All {len(measured)} numbers passed the gate before and after timing: float64 as the reference"]
    said[0] += f", {units.count(probes, 'probe')}" if probes else ""
    exact = [row for row in measured if not row["approximate"]]
    ratios = [row[name] for row in exact for name in ("error_max_ratio", "probe_max_ratio") if row[name] is not None]
    if ratios:
        said[0] += f", no exact kernel more than {units.digits(max(ratios), 2)} × the naive formula's error in any of them"
    halves = sorted(
        (row["latency_high_s"] - row["latency_low_s"]) / 2 / row["latency_s"]
        for row in measured
        if row["latency_low_s"] is not None and row["latency_high_s"] is not None and row["latency_s"]
    )
    if halves:
        kind = "over processes" if all(row["interval_kind"] == "over_processes" for row in measured) else "within one process"
        said.append(f"Half of the 95 % intervals are within ± {halves[len(halves) // 2]:.1%} ({kind})")
    return ". ".join(said) + "."


def notes(run: Run, results: Sequence[Row]) -> list[str]:
    """What holds for the run as a whole and must be known before its numbers are used."""
    said = []
    missing = sum(row["status"] == "missing" for row in results)
    if missing:
        said.append(f"{len(results) - missing} of {units.count(len(results), 'case')}: {_ending(run)}")
    orphans = {row["group"]: row["baseline"] for row in results if row["status"] == "ok" and row["speedup_reason"]}
    if orphans:
        names = units.listed(sorted(set(orphans.values())))
        said.append(f"no speedup in {units.count(len(orphans), 'shape')}, where the baseline ({names}) has no usable number")
    if torn := contradicting(results):
        said.append(
            f"in {units.count(len(torn), 'row')} the speedup from paired rounds is far from the ratio of the two medians, because times "
            f"jumped between rounds: measure again on a quieter machine ({units.listed(sorted({row['kernel'] for row in torn}))})"
        )
    if any(row["interval_kind"] == "within_process" for row in results):
        said.append(
            "intervals are within one process, and fresh processes of the same code can differ by several percent more: "
            "use --processes 3 for anything published"
        )
    if run.ceilings is None:
        said.append("the machine's ceilings were not measured: no share of the limit")
    return said


def rivals(results: Sequence[Row], contests: Sequence[Row]) -> list[str]:
    """Exact kernels that lead somewhere and were not measured everywhere: elsewhere they might lead, too."""
    said = []
    for operator in dict.fromkeys(row["operator"] for row in results):
        exact = [contest for contest in contests if contest["operator"] == operator and contest["division"] == "exact"]
        groups = {contest["group"] for contest in exact}
        first = {kernel for contest in exact for kernel in (contest["kernel"], contest["runner_up"] if contest["tie"] else None) if kernel}
        for kernel in sorted(first):
            own = {row["group"] for row in results if row["kernel"] == kernel and row["status"] == "ok"} & groups
            if len(own) < len(groups):
                said.append(
                    f"{kernel} is among the fastest where it was measured, at {len(own)} of {units.count(len(groups), 'shape')} only"
                )
    return said


def contradicting(results: Sequence[Row]) -> list[Row]:
    """The rows whose speedup does not fit the latencies beside it: a reader would see 0.5× at half the time of the baseline."""
    base = {row["group"]: row["latency_s"] for row in results if row["kernel"] == row["baseline"]}
    told = [row for row in results if row["speedup"] and base.get(row["group"])]
    return [row for row in told if abs(math.log(row["speedup"] * row["latency_s"] / base[row["group"]])) > math.log(CONTRADICTION)]


def extreme(results: Sequence[Row], column: str) -> dict[str, str]:
    """Operator -> a sentence about a column where lower is better: the best and the worst exact kernel at its largest shape."""
    unit = next(quantity.unit for quantity in QUANTITIES.values() if quantity.column == column)
    said = {}
    for operator, own in _largest(results, column).items():
        # like the winners, by paired speedup: times of a machine whose speed drifts may say otherwise
        by_speedup = column == "latency_s" and all(row["speedup"] for row in own)
        ranked = sorted(own, key=lambda row: -row["speedup"] if by_speedup else row[column])
        best, worst = ranked[0], ranked[-1]
        sentence = f"At {best['label']}, {short(best['kernel'])} needs {units.quantity(best[column], unit)}"
        if worst[column] > best[column] > 0:
            ratio = units.times(worst[column] / best[column])
            sentence += f"; {short(worst['kernel'])} needs {units.quantity(worst[column], unit)}, {ratio} as much"
        said[operator] = sentence + "."
    return said


def share(results: Sequence[Row]) -> str:
    """How close the best came to what the machine can do."""
    exact = [row for row in results if row["status"] == "ok" and row["share_of_limit"] is not None and not row["approximate"]]
    if not exact:
        return "Not known: the machine's ceilings were not measured for these data types."
    best = max(exact, key=lambda row: row["share_of_limit"])
    rest = (
        " Approximate kernels do less work than the exact problem and may exceed 100 %."
        if any(row["approximate"] for row in results)
        else ""
    )
    slower = " Above 100 %, the machine was slower while its rates were measured than here." if best["share_of_limit"] > 1 else ""
    return (
        f"Closest to what this machine can do: {best['kernel']} at {best['label']}, "
        f"{units.quantity(best['share_of_limit'], 'share', 2)} of the limit; higher is better.{slower}{rest}"
    )


def accuracy(results: Sequence[Row]) -> str:
    """What approximate kernels pay for their speed."""
    exact: dict[str, float] = {}
    loose: dict[str, float] = {}
    for row in results:
        error = error_of(row)
        if row["status"] == "ok" and error is not None:
            worst = loose if row["approximate"] else exact
            name = short(row["kernel"]) if row["approximate"] else str(SHORT_DTYPES.get(row["dtype"], row["dtype"]))
            worst[name] = max(error, worst.get(name, 0.0))
    said = []
    if exact:
        said.append(
            "Exact kernels stay within a relative error of "
            + units.listed(f"{units.error(error)} ({dtype})" for dtype, error in exact.items())
        )
    if 0 < len(loose) <= FEW:
        said.append(
            "of the approximate ones " + units.listed(f"{name} is off by up to {units.error(error)}" for name, error in loose.items())
        )
    elif loose:
        (least, low), *_, (most, high) = sorted(loose.items(), key=lambda item: item[1])
        said.append(f"the {len(loose)} approximate ones are off by up to {units.error(low)} ({least}) to {units.error(high)} ({most})")
    sentence = "; ".join(said) or "no kernel has a measured error"
    zeros = " Above 100 %, an answer of zeros would be closer." * any(error > 1 for error in loose.values())
    return f"{sentence[0].upper()}{sentence[1:]}.{zeros} The dotted line joins what no kernel beats in both."


def energy(results: Sequence[Row]) -> str:
    """Where energy was measured, or the reason why it was not."""
    measured = [row for row in results if row["energy_j"] is not None or row["power_w"] is not None]
    if measured:
        sources = units.listed(sorted({str(row["energy_source"]) for row in measured}))
        joules = [row for row in measured if row["energy_j"] is not None]
        doubted = sum(not believed(row, "energy_j") for row in joules)
        said = [f"Joules for {units.count(len(joules), 'case')}"] * bool(joules)
        said += [f"not valid for {doubted} of them, which are neither drawn nor ranked"] * bool(doubted)
        said += [f"{'power' if said else 'Power'} for {units.count(len(measured), 'case')}"]
        return f"{', '.join(said)}; source: {sources}."
    reasons = Counter(row["energy_reason"] for row in results if row["energy_reason"])
    reason = reasons.most_common(1)[0][0] if reasons else "it was switched off, or nothing was measured"
    return f"Not measured: {reason.removeprefix('not measured: ')}."


def _ending(run: Run) -> str:
    reasons = {
        "interrupted": "the run was interrupted",
        "budget": "the time budget was spent",
        "finished": "the run finished without the rest",
    }
    return reasons[run.ended.reason] if run.ended else "the run goes on, or was killed"


def _largest(results: Sequence[Row], column: str) -> dict[str, list[Row]]:
    """Operator -> the exact rows with a number, of the largest problem that most of its kernels could be measured at."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in results:
        if row["status"] == "ok" and not row["approximate"] and row[column] is not None and believed(row, column):
            found.setdefault(row["operator"], {}).setdefault(row["group"], []).append(row)
    largest = {}
    for operator, groups in found.items():
        most = max(len(own) for own in groups.values())
        largest[operator] = max((own for own in groups.values() if 2 * len(own) >= most), key=lambda own: own[0]["flops"])
    return largest


def options(results: Sequence[Row]) -> dict[str, dict[str, str]]:
    """What a page can be filtered by: value -> word, where there is more than one to choose from."""
    offered = {
        "operator": {row["operator"]: str(OPERATORS.get(row["operator"], row["operator"])) for row in results},
        "kernel": {name: name for name in sorted({short(row["kernel"]) for row in results})},
        "dtype": {row["dtype"]: str(SHORT_DTYPES.get(row["dtype"], row["dtype"])) for row in results},
    }
    return {name: values for name, values in offered.items() if len(values) > 1}
