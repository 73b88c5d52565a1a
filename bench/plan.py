"""Kernels x problems x device -> groups of cases: filtered, ordered, and refusals turned into skipped measurements.

Nothing here knows torch: what a kernel takes is read from its declaration.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kerneldyno.kernels.presets import NATIVE_DTYPE, STARTING_POINTS, Preset, Shape
from kerneldyno.kernels.registry import Device, Kernel, Problem

from .manifest import Manifest
from .records import Case, SideName

# the first of these that takes a problem is what speedups are measured against
BASELINES = {
    "attention": ("attention/sdpa", "attention/flex", "attention/compiled", "attention/eager"),
    "feedforward": ("feedforward/compiled", "feedforward/eager"),
    "layer": ("layer/compiled", "layer/eager"),
}


LARGEST = 2**60
"""Of the product of all sizes of a problem: its operations must still be countable in 64 bits."""


class UsageError(Exception):
    """The user asked for something impossible; the message says what, and what to do."""

    exit_code = 2


@dataclass
class Group:
    """The cases of one problem on one device: measured side by side in one worker process."""

    id: str
    label: str
    operator: str
    cases: list[Case]


@dataclass
class Plan:
    """What a run will do."""

    groups: list[Group]
    """Most informative first."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Case id -> why it is not measured."""
    cases: list[Case] = field(default_factory=list)
    """All of them, skipped ones too, in the order of the groups."""

    def extend(self, cases: Iterable[Case]) -> None:
        """Add cases at the end, those that are not skipped to the groups of their problems."""
        groups = {group.id: group for group in self.groups}
        for case in cases:
            self.cases.append(case)
            if case.id in self.skipped:
                continue
            if case.group not in groups:
                groups[case.group] = Group(case.group, case.label, case.operator, [])
                self.groups.append(groups[case.group])
            groups[case.group].cases.append(case)


def select(kernels: Mapping[str, Kernel], globs: Sequence[str], operators: Sequence[str] = ()) -> list[Kernel]:
    """The kernels that a list of globs names; a glob without "/" matches in every operator.

    Raises UsageError for an operator that does not exist and for a glob that matches nothing.
    """
    known = sorted({kernel.operator for kernel in kernels.values()})
    for operator in operators:
        if operator not in known:
            raise UsageError(f"--operator {operator!r} is unknown: choose from {', '.join(known)}")
    offered = [kernel for kernel in kernels.values() if not operators or kernel.operator in operators]
    if not globs:
        return offered
    chosen: dict[str, Kernel] = {}
    for glob in globs:
        pattern = glob if "/" in glob else f"*/{glob}"
        found = [kernel for kernel in offered if fnmatch.fnmatchcase(kernel.name, pattern)]
        if not found:
            names = ", ".join(kernel.name for kernel in offered)
            raise UsageError(f"--kernels {glob!r} matches no kernel: choose from {names}")
        chosen.update({kernel.name: kernel for kernel in found})
    return [kernel for kernel in offered if kernel.name in chosen]


def shapes(presets: Sequence[Preset], operators: Sequence[str], axes: Mapping[str, Sequence[Any]]) -> list[Shape]:
    """The problems of the presets (or the starting points), each field of `axes` replaced by each of its values.

    A field that an operator does not have is left out for it. "seq_len" means the query and key length of attention,
    or the length of the cache where queries are fewer than keys. Raises UsageError when nothing is left.
    """
    base = [shape for preset in presets for shape in preset.problems] if presets else list(STARTING_POINTS)
    found = [(operator, dict(fields)) for operator, fields in base if not operators or operator in operators]
    # "heads" takes "kv_heads" along with it, so that it goes first, in whichever order the two were given
    for axis, values in sorted(axes.items(), key=lambda axis: axis[0] == "kv_heads"):
        if not values:
            raise UsageError(f"--{axis.replace('_', '-')} is an empty list: give at least one value")
        found = [(operator, _with_axis(operator, fields, axis, value)) for operator, fields in found for value in values]
    unique: list[Shape] = []
    for shape in found:
        if shape not in unique:
            unique.append(shape)
    if not unique:
        raise UsageError(f"nothing to measure: the chosen presets hold no problem for {', '.join(operators)}")
    return unique


def problems(shapes: Iterable[Shape], types: Mapping[str, type[Problem]], device: Device) -> list[Problem]:
    """Problem objects of plain shapes, without repetition; the dtype defaults to what the device is made for.

    Raises UsageError, with the problem's own sentence, for an impossible one.
    """
    found: list[Problem] = []
    for operator, fields in shapes:
        cls = types[operator]
        own = {item.name for item in dataclasses.fields(cls)}
        taken = {name: value for name, value in fields.items() if name in own}
        taken.setdefault("dtype", NATIVE_DTYPE[device.kind])
        if taken.get("direction", "forward") not in cls.directions:
            continue  # a sweep over directions measures the operators that have them
        try:
            problem = cls(**taken)
        except ValueError as error:
            raise UsageError(f"{operator}: {error}") from error
        sizes = [value for value in problem.fields().values() if isinstance(value, int) and value > 1]
        if math.prod(sizes) > LARGEST:
            raise UsageError(f"{operator} {problem.label} is too large to be counted: give smaller sizes")
        if problem not in found:
            found.append(problem)
    if not found:
        raise UsageError("nothing to measure: no chosen operator has the chosen direction")
    return found


def make(
    kernels: Sequence[Kernel],
    problems: Sequence[Problem],
    device: Device,
    *,
    seed: int,
    every_kernel: Mapping[str, Kernel] | None = None,
    at_most: Sequence[tuple[str, int]] = (),
) -> Plan:
    """Multiply kernels and problems, ask every kernel why not, order the groups.

    `at_most` limits kernels (by glob) to the first groups that take them. `every_kernel` is where baselines are looked
    up, so that a filter on kernels does not change the name of the baseline.
    """
    everything = dict(every_kernel or {kernel.name: kernel for kernel in kernels})
    plan = Plan(groups=[])
    used: dict[str, int] = {}
    for problem in informative_order(problems):
        baseline = baseline_of(problem, everything, device)
        matching = [kernel for kernel in kernels if kernel.operator == problem.operator]
        if not matching:
            continue
        cases = [case_of(kernel, problem, device, seed, baseline) for kernel in matching]
        group = Group(id=cases[0].group, label=problem.label, operator=problem.operator, cases=[])
        for kernel, case in zip(matching, cases, strict=True):
            limit = None if kernel.name == baseline else over_limit(kernel, at_most, used)
            reason = kernel.why_not(problem, device) or limit
            plan.cases.append(case)
            if reason:
                plan.skipped[case.id] = reason
            else:
                group.cases.append(case)
                used[kernel.name] = used.get(kernel.name, 0) + 1
        if group.cases:
            plan.groups.append(group)
    if not plan.cases:
        names = ", ".join(kernel.name for kernel in kernels)
        raise UsageError(f"nothing to measure: no chosen problem is for {names}")
    if not plan.groups:
        case = plan.cases[0]
        more = f", and so on for {len(plan.cases) - 1} more cases" if len(plan.cases) > 1 else ""
        raise UsageError(f"nothing to measure on {device}: {case.kernel} {plan.skipped[case.id]}{more}")
    return plan


def of_manifest(manifest: Manifest) -> Plan:
    """The plan that a run was started with."""
    plan = Plan(groups=[], skipped=dict(manifest.skipped))
    plan.extend(manifest.cases)
    return plan


def _with_axis(operator: str, fields: dict[str, Any], axis: str, value: Any) -> dict[str, Any]:
    """A copy of the fields with one of them replaced, lengths kept consistent."""
    changed = dict(fields)
    if axis == "seq_len" and operator == "attention":
        decoding = changed.get("kv_len") is not None and changed["kv_len"] > changed.get("q_len", 1)
        if decoding:
            changed["kv_len"] = value
        else:
            changed["q_len"] = value
            changed.pop("kv_len", None)
        return changed
    if axis == "heads":
        changed.pop("kv_heads", None)
    if axis == "causal" and operator == "layer":
        changed["mask"] = "causal" if value else "none"
        return changed
    changed[axis] = value
    return changed


def baseline_of(problem: Problem, kernels: Mapping[str, Kernel], device: Device) -> str:
    """The kernel that speedups at this problem are measured against; empty where the operator has none."""
    candidates = BASELINES.get(problem.operator, ())
    for name in candidates:
        if name in kernels and kernels[name].why_not(problem, device) is None:
            return name
    return candidates[0] if candidates else ""


def case_of(kernel: Kernel, problem: Problem, device: Device, seed: int, baseline: str, side: SideName = "") -> Case:
    """One row of the results."""
    batch, seq_len = problem.shape
    return Case(
        kernel=kernel.name,
        family=kernel.family,
        operator=problem.operator,
        problem=problem.fields(),
        label=problem.label,
        batch=batch,
        seq_len=seq_len,
        tokens=problem.tokens,
        dtype=problem.dtype,
        direction=problem.direction,
        device=str(device),
        seed=seed,
        flops=problem.flops(),
        min_bytes=problem.min_bytes(),
        approximate=kernel.approximate,
        baseline=baseline,
        side=side,
    )


def over_limit(kernel: Kernel, at_most: Sequence[tuple[str, int]], used: Mapping[str, int]) -> str | None:
    """Why a kernel that was planned so often already is not planned once more, in a sentence; None when it is."""
    for glob, limit in at_most:
        if fnmatch.fnmatchcase(kernel.name, glob) and used.get(kernel.name, 0) >= limit:
            number = "no group" if limit == 0 else f"{limit} group{'s' * (limit > 1)}"
            return f"to stay short, this preset measures it in {number} only: name it with --kernels to measure it everywhere"
    return None


def informative_order(problems: Sequence[Problem]) -> list[Problem]:
    """Round robin over the operators; within one, the middle size, the smallest, the largest, then what lies between.

    A run that is stopped early then has a coarse picture of everything instead of a fine one of a part.
    """
    queues: dict[str, list[Problem]] = {}
    for problem in problems:
        queues.setdefault(problem.operator, []).append(problem)
    ordered = [_coarse_to_fine(sorted(queue, key=lambda p: (p.flops(), p.label))) for queue in queues.values()]
    longest = max(len(queue) for queue in ordered)
    return [queue[i] for i in range(longest) for queue in ordered if i < len(queue)]


def _coarse_to_fine(items: list[Problem]) -> list[Problem]:
    """The middle, the ends, then the middles of what is left, breadth first."""
    if len(items) < 3:
        return items
    middle = len(items) // 2
    found = [items[middle], items[0], items[-1]]
    spans = [(0, middle), (middle, len(items) - 1)]
    while spans:
        low, high = spans.pop(0)
        if high - low > 1:
            centre = (low + high) // 2
            found.append(items[centre])
            spans += [(low, centre), (centre, high)]
    return found
