"""From what was asked to an explanation: one attention problem, a few of its heads, and the kernels whose maps are looked at."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerneldyno.kernels import registry
from kerneldyno.kernels.presets import Preset

from .. import environment, launch, plan, privacy
from ..explanation import Explained, Explanation
from ..plan import UsageError
from . import given

if TYPE_CHECKING:
    import torch

    from kerneldyno.kernels.registry import Device, Kernel, Problem

    from ..models import Chosen

DRAWN = {"batch": 1, "q_len": 1024, "heads": 8, "head_dim": 64, "structured": True}
"""The problem where none is given: with N(0, 1) numbers every key would matter alike, as in no trained model."""
LONGEST = 4096
"""Keys, and queries: a map of so many squared takes 128 MiB in float64."""
KERNELS = ("attention/int8", "attention/pruned", "attention/block_sparse_25", "attention/sinks_25")
"""Looked at where none is named: one of each kind."""
HEADS = 4
"""Looked at where none is named."""
MOST_BYTES = 2**31
"""Of all exact maps together."""


@dataclass(frozen=True)
class Asked:
    """What `kerneldyno explain` was asked for."""

    kernels: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    device: str = "auto"
    load: tuple[Path, ...] = ()
    threads: int | None = None
    seed: int = 0
    model: Chosen | None = None
    inputs: Path | None = None
    """Queries, keys and values in a file; what a model reads belongs to `model`."""
    command: str = ""


def explain(asked: Asked, stop: Callable[[], bool] = lambda: False, say: Callable[[str], None] = lambda _: None) -> Explanation:
    """Run the kernels and compare their attention with the exact one. Raises UsageError, ModelError, KernelFileError or DeviceError."""
    launch.require_torch()
    launch.usable_threads(asked.threads, asked.seed)
    device = environment.choose(asked.device)
    kernels = registry.load(asked.load)
    attention = {name: kernel for name, kernel in kernels.items() if kernel.operator == "attention"}
    chosen = plan.select(attention, asked.kernels or tuple(name for name in KERNELS if name in attention))
    problem = problem_of(asked, chosen[0].problem, device)
    heads = heads_of(asked.heads, problem)
    with launch.offering(asked.model), launch.only_one(device):
        return _explained(asked, problem, chosen, heads, device, stop, say)


def problem_of(asked: Asked, cls: type[Problem], device: Device) -> Any:
    """The one attention problem that was asked for. Raises UsageError when there are several, or its maps would be too large."""
    if asked.model is not None:
        asked.model.require_axes(asked.axes)
        shapes = [shape for shape in asked.model.preset().problems if shape[0] == "attention"]
        if len(shapes) > 1:
            raise UsageError("explain looks at one layer: name one with --layer")
    else:
        shapes = [("attention", _fields(asked, cls))]
    preset = Preset(name="explain", summary="", problems=tuple(shapes))
    found = plan.problems(plan.shapes([preset], ["attention"], asked.axes), {"attention": cls}, device)
    if asked.model is not None:
        asked.model.require_lengths(found)
    if len(found) != 1:
        raise UsageError(f"explain looks at one problem, not at {len(found)}: give one value of each field")
    problem: Any = found[0]
    if problem.direction != "forward" or problem.page_size:
        raise UsageError("explain looks at the forward pass over a cache in one piece: leave direction and page_size out")
    for what, length in (("keys", problem.kv_len), ("queries", problem.q_len)):
        if length > LONGEST:
            raise UsageError(f"{length} {what} are too many for a map: give at most {LONGEST}, with --seq-len")
    return problem


def _fields(asked: Asked, cls: type[Problem]) -> dict[str, Any]:
    """Of the problem that is looked at without a model. Raises UsageError for axes that there are none of, or that a file decides."""
    own = {item.name for item in dataclasses.fields(cls)} | {"seq_len"}
    if unknown := next((axis for axis in asked.axes if axis not in own), None):
        raise UsageError(f"--set {unknown!r} is not a field of attention: choose from {', '.join(sorted(own))}")
    if asked.inputs is None:
        return dict(DRAWN)
    fields = given.fields_of(asked.inputs)
    if fixed := next((name for name in asked.axes if name in {*fields, "seq_len", "structured", "ragged", "page_size"}), None):
        raise UsageError(f"--set {fixed} does not go with --inputs: the tensors of {asked.inputs.name} decide it")
    return fields


def heads_of(words: Sequence[str], problem: Any) -> tuple[int, ...]:
    """The heads that were named, or a few that are spread evenly. Raises UsageError."""
    count = problem.heads
    if not words:
        few = min(HEADS, count)
        return tuple(dict.fromkeys(round(step * (count - 1) / max(1, few - 1)) for step in range(few)))
    heads = []
    for word in words:
        if not word.isdecimal() or int(word) >= count:
            raise UsageError(f"--heads {word}: there are {count} heads: give numbers from 0 to {count - 1}")
        heads.append(int(word))
    bytes_needed = len(set(heads)) * problem.q_len * problem.kv_len * 8
    if bytes_needed > MOST_BYTES:
        raise UsageError(f"--heads: {len(set(heads))} maps of {problem.q_len} × {problem.kv_len} are too many at once: name fewer heads")
    return tuple(dict.fromkeys(heads))


def _explained(
    asked: Asked,
    problem: Any,
    chosen: Sequence[Kernel],
    heads: tuple[int, ...],
    device: Device,
    stop: Callable[[], bool],
    say: Callable[[str], None],
) -> Explanation:
    import torch

    from ..gate.examine import complete
    from . import maps

    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    place = torch.device(str(device))
    notes = list(asked.model.notes()) if asked.model is not None else []
    with torch.no_grad():
        inputs = problem.inputs(asked.seed, place)
        setup = registry.Setup(place, seed=asked.seed)
        if asked.inputs is not None:
            inputs = given.replaced(inputs, asked.inputs)
            setup = dataclasses.replace(setup, calibration=inputs)
            notes.append("What a kernel decides from calibration inputs (which heads stay) it decides from the given ones themselves")
        setup = complete(problem, setup, asked.seed)
        say(f"exact maps of {len(heads)} heads at {problem.label}")
        exact = maps.exact(problem, inputs, heads)
        cells = maps.cell_of(problem.q_len), maps.cell_of(problem.kv_len)
        explained = []
        for kernel in chosen:
            if stop():
                notes.append("Interrupted: kernels that are not here were not looked at")
                break
            say(kernel.name)
            explained.append(_kernel(kernel, problem, setup, inputs, heads, exact, cells, device))
    return Explanation(
        version=importlib.metadata.version("kerneldyno"),
        label=problem.label,
        device=privacy.scrub(device.name or str(device)),
        seed=asked.seed,
        q_len=problem.q_len,
        kv_len=problem.kv_len,
        group=problem.group,
        heads=heads,
        query_cell=cells[0],
        key_cell=cells[1],
        exact={head: maps.pooled(one, *cells) for head, one in zip(heads, exact, strict=True)},
        kernels=tuple(explained),
        notes=tuple(notes),
        command=privacy.scrub(asked.command),
    )


def _kernel(
    kernel: Kernel,
    problem: Any,
    setup: registry.Setup,
    inputs: Any,
    heads: tuple[int, ...],
    exact: torch.Tensor,
    cells: tuple[int, int],
    device: Device,
) -> Explained:
    """The maps of one kernel and their numbers; a reason where there are none."""
    from ..gate.probing import built
    from . import maps
    from .numbers import compared

    told: dict[str, Any] = {"kernel": kernel.name, "summary": kernel.summary, "approximate": kernel.approximate}
    if reason := kernel.why_not(problem, device):
        return Explained(**told, reason=reason)
    try:
        call = built(kernel, problem, setup)
        found = maps.weights_of(call, inputs, heads)
        rest = maps.unexplained(call, inputs, heads, found, problem.group)
    except Exception as error:  # noqa: BLE001 - kernels fail in any way; the others are still of interest
        lines = [line for line in str(error).splitlines() if line.strip()] or ["no message"]
        return Explained(**told, reason=f"raised {type(error).__name__}: {privacy.scrub(lines[0])[:200]}", failed=True)
    if not bool(found.isfinite().all()):
        return Explained(**told, reason="gives weights that are not finite", failed=True)
    return Explained(
        **told,
        unexplained=rest,
        heads=tuple(compared(head, exact[at], found[at]) for at, head in enumerate(heads)),
        maps={head: maps.pooled(found[at], *cells) for at, head in enumerate(heads)},
    )
