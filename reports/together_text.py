"""Sentences of the page of several runs: who leads where, what must be known first, why a case stands in one run only."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from . import units
from .conditions import conditions, told_apart
from .names import short
from .summary import OPERATORS, date, machine, moment
from .together import has_number
from .together_facts import sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .together import Member, Together

COMMIT_LENGTH = 10
NAMED = 4
"""So many runs or kernels are named in a sentence; the others are counted."""


def subject(together: Together) -> str:
    """What stands side by side, measured where and when."""
    days = list(dict.fromkeys(date(member.run) for member in together.members))
    when = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
    machines = list(dict.fromkeys(machine(member.run) for member in together.members))
    where = units.listed(machines[:NAMED]) + f" and {len(machines) - NAMED} more" * (len(machines) > NAMED)
    return f"{units.count(len(together.members), 'run')} {when} on {where}: side by side, never pooled."


def headline(together: Together) -> str:
    """What is common, and who is fastest where, in one sentence."""
    asked = [operator for operator in operators(together) if _contested(together, operator)]
    if not asked:
        return "No two runs planned the same shape: they share lengths that were added to their plans, at which not all kernels take part."
    told = "; ".join(f"for {_named(operator).lower()}, {_leaders(together, operator)}" for operator in asked)
    return f"Fastest, ties included, at the {units.count(len(together.contested), 'shape')} that {_whose(together)} planned: {told}."


def operators(together: Together) -> list[str]:
    """The operators of the shared problems, in order of appearance."""
    return list(dict.fromkeys(row["operator"] for row in together.planned if row["group"] in together.shared))


def wins(together: Together, member: Member, operator: str, division: str = "exact") -> Counter[str]:
    """How often each kernel is the fastest of a run, over the problems of an operator that two runs planned."""
    return Counter(
        contest["kernel"]
        for contest in member.contests
        if contest["group"] in together.contested and contest["operator"] == operator and contest["division"] == division
    )


def led(together: Together, member: Member, operator: str) -> str:
    """Who is fastest most often in a run, over the shared shapes: "onnxrt 7 of 9"; nothing where it did not plan the operator."""
    if all(case.operator != operator for case in member.run.cases):
        return ""
    if not _contested(together, operator) & member.planned_groups:
        return "shares only lengths that were added" if _asked(together, operator) & member.groups else "shares no shape with another run"
    counted = wins(together, member, operator)
    if not counted:
        return "no fastest exact kernel at the shapes that it shares"
    most, contested = max(counted.values()), _contested(together, operator)
    first = units.listed(short(kernel) for kernel in _first(counted))
    ties = sum(len(first.get(member.letter, ())) > 1 for group, first in together.fastest.items() if group in contested)
    too_close = f", {ties} too close to call" if ties else ""
    return f"{first} {'each ' * (len(_first(counted)) > 1)}{most} of {counted.total()}{too_close}"


def takeaway(together: Together, operator: str) -> str:
    """One sentence above the grid of an operator."""
    asked = [first for group in _asked(together, operator) if len(first := together.fastest.get(group, {})) > 1]
    same = sum(bool(set.intersection(*first.values())) for first in asked)
    if not asked:
        return "No shape has a fastest exact kernel in two runs."
    partly = any(_asked(together, operator) - member.groups for member in together.members)
    whose = "both runs" if len(together.members) == 2 else "all runs that have a number"
    shapes = units.count(len(asked), "shape")
    return (
        f"The same exact kernel is fastest, or ties, in {whose} at {same} of {shapes}. Each line of a cell is one run"
        f"{' that planned the shape' * partly}: speedup over the "
        "baseline of that run, paired within it, and the latency of one call."
    )


def outcome(together: Together, member: Member) -> list[str]:
    """The lines of a run's card."""
    run = member.run
    environment, settings = run.manifest.environment, run.manifest.settings
    rows = list(member.rows.values())
    commit = f", commit {_brief(environment.commit)}" if environment.commit else ""
    alike = [other for other in together.members if machine(other.run) == machine(run) and conditions(other.run) != conditions(run)]
    return [
        machine(run),
        f"{moment(run.manifest.created)} UTC, kerneldyno {run.manifest.version}{commit}",
        f"{sum(map(has_number, rows))} of {units.count(len(rows), 'case')} with a number, protocol {settings.protocol.name}",
        *([f"unlike {units.listed(other.letter for other in alike)}: {_told_apart(together)[member.letter]}"] if alike else []),
    ]


def notes(together: Together) -> list[str]:
    """What holds for the page as a whole."""
    return [
        "these runs were measured at different times: a ratio between two of them holds machine, software and noise, and is not a verdict. "
        "To judge a change, measure both sides together with kerneldyno compare",
        *_unlike(together),
        *(f"left out: {folder.said}" for folder in together.left_out),
    ]


def partial(together: Together) -> list[tuple[str, str, str, str]]:
    """(operator, runs that planned them, runs that did not, shapes) of problems that are not in every run, the largest lot first."""
    found: dict[tuple[str, str], list[str]] = {}
    for group, row in {row["group"]: row for row in together.planned}.items():
        letters = "".join(member.letter for member in together.members if group in member.groups)
        if len(letters) < len(together.members):
            found.setdefault((row["operator"], letters), []).append(row["label"])
    everyone = "".join(member.letter for member in together.members)
    return [
        (_named(operator), ", ".join(letters), ", ".join(letter for letter in everyone if letter not in letters), _shapes(labels))
        for (operator, letters), labels in sorted(found.items(), key=lambda item: -len(item[1]))
    ]


def method() -> list[tuple[str, str]]:
    """(name, explanation) of how the page came about."""
    return [
        ("joined by", "kernel and every field of the problem, data type and direction included; device and seed may differ"),
        (
            "speedup",
            "time of the baseline over time of the kernel, paired round by round within one run; never over the baseline of another run",
        ),
        ("fastest", "★ is the fastest exact kernel within its own run, ☆ the fastest approximate one, ≈ the two fastest where they tie"),
        (
            "unpaired ratio",
            "time of run A over time of run B (two runs only): from measurements that were not interleaved, so without an interval",
        ),
        ("one run's own page", "samples, intervals, errors and the exact command: kerneldyno report RUN"),
    ]


def _whose(together: Together) -> str:
    return "both runs" if len(together.members) == 2 else "two runs or more"


def _asked(together: Together, operator: str) -> set[str]:
    """The shared problems of an operator."""
    return {row["group"] for row in together.planned if row["operator"] == operator} & together.shared


def _contested(together: Together, operator: str) -> set[str]:
    """Those of an operator that two runs planned."""
    return _asked(together, operator) & together.contested


def _leaders(together: Together, operator: str) -> str:
    """Who leads an operator in which runs."""
    by_leader: dict[str, list[tuple[Member, int, int]]] = {}
    several = set()
    for member in together.members:
        counted = wins(together, member, operator)
        if counted:
            first = units.listed(short(kernel) for kernel in _first(counted))
            by_leader.setdefault(first, []).append((member, max(counted.values()), counted.total()))
            if len(_first(counted)) > 1:
                several.add(first)
    if not by_leader:
        return "none in any run"
    said = [f"{kernel} in {_runs(together, runs)} ({_numbers(runs)}{' each' * (kernel in several)})" for kernel, runs in by_leader.items()]
    return ", ".join([*said[:NAMED], *([f"{len(said) - NAMED} more"] if len(said) > NAMED else [])])


def _numbers(runs: Sequence[tuple[Member, int, int]]) -> str:
    """`7 and 6 of 9 shapes`, `7 of 9 and 3 of 4 shapes`; `6 to 9 of 9 shapes` of many runs."""
    wins_told, totals = [number for _, number, _ in runs], sorted({total for _, _, total in runs})
    if len(runs) > NAMED:
        least, most = min(wins_told), max(wins_told)
        shapes = units.count(totals[0], "shape") if len(totals) == 1 else f"{totals[0]} to {totals[-1]} shapes"
        return f"{least} to {most} of {shapes}" if least < most else f"{most} of {shapes}"
    if len(totals) == 1:
        same = len(set(wins_told)) == 1
        return f"{units.listed(map(str, wins_told[:1] if same else wins_told))} of {units.count(totals[0], 'shape')}"
    return f"{units.listed(f'{number} of {total}' for _, number, total in runs)} shapes"


def _runs(together: Together, runs: Sequence[tuple[Member, int, int]]) -> str:
    if len(runs) == len(together.members):
        return "both runs" if len(runs) == 2 else f"all {len(runs)} runs"
    return units.listed(member.letter for member, _, _ in runs)


def _first(counted: Counter[str]) -> list[str]:
    """Whoever has the highest count."""
    most = max(counted.values())
    return [kernel for kernel, number in counted.items() if number == most]


def _told_apart(together: Together) -> Mapping[str, str]:
    """Letter -> how the conditions of that run differ from the others'."""
    names = told_apart([member.run for member in together.members])
    return {member.letter: names[conditions(member.run)] for member in together.members}


def _unlike(together: Together) -> Iterator[str]:
    """What makes the numbers of these runs unlike each other."""
    runs = [member.run for member in together.members]
    protocols = list(dict.fromkeys(run.manifest.settings.protocol.name for run in runs))
    if len(protocols) > 1:
        yield f"the runs sampled under different protocols ({units.listed(protocols)}): their intervals are not alike"
    if changed := sources(runs):
        named = units.listed([*changed[:NAMED], *([f"{len(changed) - NAMED} more"] if len(changed) > NAMED else [])])
        yield f"the source of {units.count(len(changed), 'kernel')} is not the same in all runs that have it: {named}"
    if together.lacking:
        told = [f"{kernel} (lacking in {units.listed(letters)})" for kernel, letters in together.lacking.items()]
        named = units.listed([*told[:NAMED], *([f"{len(told) - NAMED} more"] if len(told) > NAMED else [])])
        yield f"who is fastest is said among the kernels that a run measured, which are not the same at each shape: {named}"
    if unlike := _baselines(together):
        yield f"at {units.count(len(unlike), 'shape')} the runs have different baselines, so their speedups are not alike: {unlike[0]}"
    dirty = [member.letter for member in together.members if (member.run.manifest.environment.commit or "").endswith("-dirty")]
    if dirty:
        whose = "all runs" if len(dirty) == len(runs) else units.listed(dirty)
        yield f"{whose} measured a changed worktree (-dirty): the commit named is not what was measured"


def _baselines(together: Together) -> list[str]:
    """An example of each shared problem whose baseline is not the same in all runs."""
    found: dict[str, dict[str, list[str]]] = {}
    labels = {row["group"]: row["label"] for row in together.planned}
    group_of = {row["case"]: row["group"] for row in together.planned}
    for member in together.members:
        for group, baseline in {group_of[case]: row["baseline"] for case, row in member.rows.items()}.items():
            found.setdefault(group, {}).setdefault(baseline, []).append(member.letter)
    return [
        f"{labels[group]}: {units.listed(f'{baseline} in {units.listed(letters)}' for baseline, letters in own.items())}"
        for group, own in found.items()
        if group in together.shared and len(own) > 1
    ]


def _shapes(labels: Sequence[str]) -> str:
    """So many shapes, the first of them by name."""
    named = ", ".join(labels[:NAMED]) + ", …" * (len(labels) > NAMED)
    return f"{units.count(len(labels), 'shape')}: {named}"


def _brief(commit: str) -> str:
    """A commit as people name it, with what is said after it."""
    name, dash, rest = commit.partition("-")
    return name[:COMMIT_LENGTH] + dash + rest


def _named(operator: str) -> str:
    return OPERATORS.get(operator, operator)
