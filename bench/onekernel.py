"""One kernel at one problem, measured in a run of its own: what a test asks for. No torch."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from kerneldyno.kernels import registry

from . import environment, launch, plan
from .instruments import processor
from .journal import read
from .options import SHORT_DTYPES
from .plan import UsageError
from .terminal import Quiet

if TYPE_CHECKING:
    from kerneldyno.kernels.registry import Kernel, Problem

    from .manifest import Environment, Manifest
    from .records import Case, Ceilings, Measurement

_seen: dict[str, Ceilings] = {}
"""Fingerprint of an environment -> what its machine was seen to do in this process."""
DEVICES = re.compile(r"auto|cpu|cuda(:\d+)?")


class CannotRunError(Exception):
    """The kernel does not take this problem here, or the device is not there; the message is the sentence that says why."""


@dataclass(frozen=True)
class Asked:
    """What will be measured, and where."""

    options: launch.Options
    environment: Environment


@dataclass(frozen=True)
class Taken:
    """What came of it."""

    case: Case
    measurement: Measurement
    manifest: Manifest | None = None
    """None when it was only put through the gate."""


def ask(
    kernel: str,
    problem: Mapping[str, Any] | Problem,
    *,
    load: Sequence[Path] = (),
    device: str = "auto",
    protocol: str = "default",
    seed: int = 0,
    threads: int | None = None,
) -> Asked:
    """Find the kernel and the problem; nothing is measured yet.

    Fields that a mapping leaves out are those of the seed's shapes, as with the shape options of `kerneldyno run`. Raises
    CannotRunError, and UsageError, KernelFileError or DeviceError for what cannot be understood.
    """
    try:
        chosen = environment.choose(device)
    except environment.DeviceError as error:
        if DEVICES.fullmatch(device):
            raise CannotRunError(str(error)) from None
        raise
    kernels = registry.load(load, declarations_only=True)
    if kernel not in kernels:
        raise UsageError(f"there is no kernel {kernel!r}: choose from {', '.join(kernels)}, or name the file that defines it with load=…")
    declared = kernels[kernel]
    (found,) = plan.problems(_shapes(declared, problem), {declared.operator: declared.problem}, chosen)
    if reason := declared.why_not(found, chosen):
        raise CannotRunError(f"{kernel} {reason}")
    options = launch.Options(
        operators=(declared.operator,),
        kernels=(_literally(kernel),),
        axes={name: [value] for name, value in found.fields().items()},
        device=device,
        load=tuple(load),
        protocol=protocol,
        seed=seed,
        threads=threads,
    )
    return Asked(options, environment.describe(chosen, processor.cores() if threads is None else threads))


def measure(asked: Asked) -> Taken:
    """Measure in fresh worker processes; the run folder is gone afterwards. Raises as `launch.launch` does."""
    with _turn(), tempfile.TemporaryDirectory(prefix="kerneldyno-") as folder:
        known = _seen.get(asked.environment.fingerprint)
        where, _ = launch.launch(replace(asked.options, out=Path(folder) / "run", ceilings=known), Quiet())
        stored = read(where)
    if stored.ceilings is not None:
        _seen[asked.environment.fingerprint] = stored.ceilings.best_of(known) if known else stored.ceilings
    (case,) = stored.manifest.cases
    return Taken(case, stored.measurements[case.id], stored.manifest)


def examine(asked: Asked) -> Taken:
    """Put the kernel through the gate in a fresh worker process; nothing is timed. Raises as `launch.check` does."""
    with _turn():
        made, measurements, _ = launch.check(asked.options, Quiet())
    (case,) = made.cases
    return Taken(case, measurements[case.id])


def _shapes(kernel: Kernel, problem: Mapping[str, Any] | Problem) -> list[tuple[str, dict[str, Any]]]:
    """The fields of the one problem that is meant."""
    operator = kernel.operator
    own = [item.name for item in dataclasses.fields(kernel.problem)]
    if not isinstance(problem, Mapping):
        if problem.operator != operator:
            raise UsageError(f"{kernel.name} is for {operator}: it cannot be given a problem of {problem.operator}")
        return [(operator, problem.fields())]
    for name in problem:
        if name not in (*own, "seq_len"):
            raise UsageError(f"{name!r} is not a field of {operator}: choose from {', '.join(own)}")
    # heads come before kv_heads and lengths before kv_len: the former bring defaults of the latter with them
    ordered = [name for name in ("seq_len", *own) if name in problem]
    axes = {name: [problem[name]] for name in dict.fromkeys(ordered)}
    if "dtype" in axes:
        axes["dtype"] = [SHORT_DTYPES.get(problem["dtype"], problem["dtype"])]
    return plan.shapes((), (operator,), axes)


def _literally(name: str) -> str:
    """A glob that matches this name alone."""
    pattern = re.sub(r"([*?[])", r"[\1]", name)
    assert fnmatch.fnmatchcase(name, pattern)
    return pattern


@contextmanager
def _turn() -> Iterator[None]:
    """Wait until no other test session of this user measures: processes of pytest-xdist take turns."""
    with FileLock(Path(tempfile.gettempdir()) / f"kerneldyno-{os.getuid()}-pytest.lock"):
        yield
