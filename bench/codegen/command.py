"""What `kerneldyno codegen` does: choose configurations, compile them side by side, judge, show and write."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kerneldyno.kernels import _code, registry

from ..plan import UsageError
from . import pool, rows
from .cards import LIMITS, arch, capability
from .telling import Teller

if TYPE_CHECKING:
    from rich.console import Console

    from kerneldyno.kernels.registry import Kernel

ARCHS = ("sm_80", "sm_90", "sm_100")
EXIT_OK, EXIT_FAULTS, EXIT_INTERRUPTED = 0, 5, 130


@dataclass(frozen=True)
class Asked:
    """The options."""

    kernels: tuple[str, ...] = ()
    archs: tuple[str, ...] = ARCHS
    few: bool = False
    load: tuple[Path, ...] = ()
    jobs: int | None = None
    timeout_s: float = pool.TIMEOUT_S
    json: Path | None = None
    csv: Path | None = None
    baseline: Path | None = None


def codegen(console: Console, asked: Asked, stop: Callable[[], bool]) -> int:
    """Compile and tell; the exit code. Raises UsageError for what cannot be done as it was asked."""
    _require_sense(asked)
    before = rows.read_json(asked.baseline) if asked.baseline else None
    wanted = choose(asked)
    if importlib.util.find_spec("triton") is None:
        raise UsageError("codegen needs the Python package triton, which is not installed: pip install 'kerneldyno[run]' on Linux")
    began, found = time.monotonic(), []
    with Teller(console, len(wanted)) as teller:
        for done in pool.compile_all(wanted, jobs=asked.jobs, timeout_s=asked.timeout_s, stop=stop):
            found.append(rows.row(done))
            teller.done(found[-1])
    places = {one: i for i, one in enumerate(_key(configuration) for configuration in wanted)}
    found.sort(key=lambda one: places[one.key])
    report = rows.Report(importlib.metadata.version("triton"), round(time.monotonic() - began, 1), found)
    teller.table(report)
    if before is not None:
        teller.changes(before, report)
    if asked.json:
        rows.write_json(report, asked.json)
    if asked.csv:
        rows.write_csv(report, asked.csv)
    teller.summary(report, len(wanted))
    if len(found) < len(wanted):
        return EXIT_INTERRUPTED
    return EXIT_FAULTS if any(one.faults for one in found) else EXIT_OK


def choose(asked: Asked) -> list[_code.Configuration]:
    """What is to be compiled, each form once. Raises UsageError for an unknown card and for kernels without Triton code of their own."""
    capabilities = [_known(word) for word in asked.archs]
    # `_code` is loaded before and so not forgotten: a configuration that is sent to a process has to be of the class that is known here
    kernels = registry.load(asked.load, declarations_only=True)
    found = [
        configuration
        for kernel, configurations in _offering(kernels, capabilities, asked.kernels)
        for configuration in configurations
        if not asked.few or configuration.representative
    ]
    found.sort(key=lambda one: capabilities.index(one.capability))
    return list({_key(one): one for one in found}.values())


def _require_sense(asked: Asked) -> None:
    """Raise UsageError for options that are impossible, rather now than when everything is compiled."""
    if asked.jobs is not None and asked.jobs < 1:
        raise UsageError(f"--jobs {asked.jobs} is impossible: give 1 or more")
    if not asked.timeout_s > 0:
        raise UsageError(f"--timeout {asked.timeout_s:g} is impossible: give more than 0 seconds")
    for option, path in (("--json", asked.json), ("--csv", asked.csv)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise UsageError(f"{option} {path}: cannot be written: give a file in a folder that is there")


def _known(word: str) -> tuple[int, int]:
    found = capability(word)
    if found is None:
        raise UsageError(f"--arch {word!r} is unknown: choose from {', '.join(map(arch, LIMITS))}")
    return found


def _offering(
    kernels: dict[str, Kernel], capabilities: Sequence[tuple[int, int]], globs: Sequence[str]
) -> list[tuple[str, list[_code.Configuration]]]:
    """(kernel, its configurations on those cards), narrowed to globs of names of kernels or of their device kernels."""
    offering = {name: kernel.device_code for name, kernel in kernels.items() if kernel.device_code}
    every = [(name, one) for name, forms in offering.items() for card in capabilities for one in forms(card)]
    for glob in globs:
        if not any(_matches(glob, name, one) for name, one in every):
            known = ", ".join(dict.fromkeys([*offering, *(one.name for _, one in every)]))
            raise UsageError(f"--kernels {glob!r} matches no kernel with Triton code of its own: choose from {known}")
    chosen = [(name, one) for name, one in every if not globs or any(_matches(glob, name, one) for glob in globs)]
    return [(name, [one for kernel, one in chosen if kernel == name]) for name in offering]


def _matches(glob: str, kernel: str, configuration: _code.Configuration) -> bool:
    """Of attention/fused and its prefill_kernel: "attention/*", "fused" and "prefill*"."""
    pattern = glob if "/" in glob else f"*/{glob}"
    names = (kernel, f"{kernel.partition('/')[0]}/{configuration.name}")
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _key(one: _code.Configuration) -> tuple[str, ...]:
    return (one.name, arch(one.capability), one.dtype, one.size, one.variant, one.tile)
