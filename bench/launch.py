"""From options to a run: what the user asked for becomes a manifest, a journal and a Runner."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from msgspec import structs

from kerneldyno.kernels import _given_files as files
from kerneldyno.kernels import presets, registry
from kerneldyno.kernels.registry import Device, Kernel, Problem

from . import environment, models, plan, privacy, refine
from .comparison import Comparison
from .instruments import processor
from .journal import Journal, read
from .manifest import PROTOCOLS, Environment, Manifest, Settings
from .models import Chosen
from .plan import Plan, UsageError
from .records import Ceilings, Measurement
from .run import Ended, Progress, Runner

EnergyChoice = Literal["auto", "off", "on"]
BUILD_TIMEOUT_S = {"cpu": 180.0, "cuda": 300.0}


@dataclass(frozen=True)
class Options:
    """What `kerneldyno run` was asked for."""

    presets: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    device: str = "auto"
    load: tuple[Path, ...] = ()
    protocol: str | None = None
    processes: int = 1
    seed: int = 0
    energy: EnergyChoice = "auto"
    budget_s: float | None = None
    refine_crossovers: bool = False
    threads: int | None = None
    build_timeout_s: float | None = None
    call_timeout_s: float = 30.0
    out: Path | None = None
    command: str = ""
    model: Chosen | None = None
    """The model whose layers are measured, instead of presets."""
    ceilings: Ceilings | None = None
    """What the machine was seen to do a moment ago, for many small runs in a row; None: it is measured first."""


def launch(options: Options, progress: Progress, stop: Callable[[], bool] = lambda: False) -> tuple[Path, Ended]:
    """Start a new run and measure it; return its folder and how it ended.

    Raises UsageError, KernelFileError, DeviceError or JournalError, each with one sentence, before anything is measured.
    """
    device, kernels, made, manifest = _prepared(options)
    folder = options.out or _new_folder(options)
    more = refine.asked(manifest.settings, kernels, device)
    with offering(options.model), only_one(device), Journal.create(folder, manifest) as journal:
        runner = Runner(made, journal, manifest.settings, progress, options.load, stop, known=options.ceilings, more=more)
        return folder, runner.run(manifest.created)


def check(options: Options, progress: Progress, stop: Callable[[], bool] = lambda: False) -> tuple[Plan, dict[str, Measurement], Ended]:
    """Put kernels through the gate alone; the plan, what came of each case by its id, and how it ended.

    In worker processes like those of a run, so that a crash or a hang costs one case. Nothing is timed and nothing is
    left on the disk. Raises as `launch` does.
    """
    device, _, made, manifest = _prepared(options)
    with (
        offering(options.model),
        only_one(device),
        tempfile.TemporaryDirectory(prefix="kerneldyno-") as folder,
        Journal.create(Path(folder) / "check", manifest) as journal,
    ):
        runner = Runner(made, journal, manifest.settings, progress, options.load, stop, mode="check")
        ended = runner.run(manifest.created)
    return made, runner.measurements, ended


def _prepared(options: Options) -> tuple[Device, dict[str, Kernel], Plan, Manifest]:
    """Everything that can be said before anything is measured."""
    require_torch()
    device = environment.choose(options.device)
    kernels = registry.load(options.load, declarations_only=True)
    chosen = presets_of(options, device)
    made = _plan(options, kernels, chosen, device)
    settings = settings_of(options, chosen, device)
    return device, kernels, made, manifest_of(made, settings, environment.describe(device, settings.threads), _sources(made, kernels))


def resume(
    folder: Path,
    load: Sequence[Path],
    budget_s: float | None,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
    model: Chosen | None = None,
    *,
    refine_crossovers: bool = False,
) -> tuple[Path, Ended]:
    """Measure what is missing of a stored run; return its folder and how it ended. `model`: that of the run, if it had one.

    `refine_crossovers` has it do so afterwards, as a run does that was begun with it.

    Raises MismatchError when kernels or machine are no longer those that the run was started with.
    """
    require_torch()
    stored = read(folder).manifest
    if stored.comparison is not None:
        raise UsageError(f"--resume {folder.name}: it is a comparison: what was measured of it is told by kerneldyno report {folder.name}")
    models.again(stored.cases, model)
    kernels = registry.load(load, declarations_only=True)
    if absent := sorted({case.kernel for case in stored.cases} - set(kernels)):
        hint = f": give --load {' '.join(stored.settings.load)} again" if stored.settings.load else ""
        raise UsageError(f"--resume {folder.name}: the run holds kernels that are not here: {', '.join(absent)}{hint}")
    device = environment.choose(stored.environment.device)
    made, machine = plan.of_manifest(stored), environment.describe(device, stored.settings.threads)
    current = manifest_of(made, stored.settings, machine, _sources(made, kernels))
    settings = structs.replace(stored.settings, budget_s=budget_s, refine_crossovers=refine_crossovers or stored.settings.refine_crossovers)
    more = refine.asked(settings, kernels, device)
    with offering(model), only_one(device), Journal.resume(folder, current) as journal:
        made.extend(journal.run.added)
        return folder, Runner(made, journal, settings, progress, tuple(load), stop, more=more).run(current.created)


def require_torch() -> None:
    """Raise UsageError where nothing can be measured."""
    if importlib.util.find_spec("torch") is None:
        raise UsageError("measuring needs PyTorch, which is not installed: pip install 'kerneldyno[run]'")


def presets_of(options: Options, device: Device) -> list[presets.Preset]:
    """The presets asked for; the default one when neither a preset nor any axis of a shape was given, nor a model."""
    if options.model is not None:
        if options.presets:
            raise UsageError(f"--preset {options.presets[0]} does not go with --model: the model's configuration makes the problems")
        return [options.model.preset()]
    names = options.presets or (() if options.axes else ("default",))
    for name in names:
        if name not in presets.names():
            raise UsageError(f"--preset {name!r} is unknown: choose from {', '.join(presets.names())}")
    return [presets.preset(name, device.kind) for name in names]


def _plan(options: Options, kernels: Mapping[str, Kernel], chosen: Sequence[presets.Preset], device: Device) -> Plan:
    selected = plan.select(kernels, options.kernels, options.operators)
    problems = problems_of(options, kernels, chosen, device, {kernel.operator for kernel in selected})
    return plan.make(selected, problems, device, seed=options.seed, every_kernel=kernels, at_most=limits(options, chosen))


def problems_of(
    options: Options, kernels: Mapping[str, Kernel], chosen: Sequence[presets.Preset], device: Device, operators: Collection[str]
) -> list[Problem]:
    """The problems of these operators that the options ask for. Raises UsageError when one is impossible, or there is none."""
    types = {kernel.operator: kernel.problem for kernel in kernels.values()}
    known = {item.name for cls in types.values() for item in dataclasses.fields(cls)} | {"seq_len"}
    for axis in options.axes:
        if axis not in known:
            raise UsageError(f"--set {axis!r} is not a field of any problem: choose from {', '.join(sorted(known))}")
    if options.model is not None:
        options.model.require_axes(options.axes)
    found = plan.problems(plan.shapes(chosen, sorted(operators), options.axes), types, device)
    if options.model is not None:
        options.model.require_lengths(found)
    return found


def limits(options: Options, chosen: Sequence[presets.Preset]) -> tuple[tuple[str, int], ...]:
    """Kernels that the presets measure in a few groups only; none for who names kernels: he wants them everywhere."""
    return () if options.kernels else tuple(limit for preset in chosen for limit in preset.at_most)


def settings_of(options: Options, chosen: Sequence[presets.Preset], device: Device) -> Settings:
    """What the user chose, checked. Raises UsageError for what is impossible."""
    protocol = (chosen[0].protocol if chosen else "default") if options.protocol is None else options.protocol
    if protocol not in PROTOCOLS:
        raise UsageError(f"--protocol {protocol!r} is unknown: choose from {', '.join(PROTOCOLS)}")
    threads = usable_threads(options.threads, options.seed)
    _require_range("--processes", options.processes, 1, 1000)
    for name, seconds in (
        ("--budget", options.budget_s),
        ("--build-timeout", options.build_timeout_s),
        ("--call-timeout", options.call_timeout_s),
    ):
        if seconds is not None and not seconds > 0:
            raise UsageError(f"{name} {seconds:g} is impossible: give a number of seconds above 0")
    return Settings(
        protocol=PROTOCOLS[protocol],
        processes=options.processes,
        seed=options.seed,
        energy=options.energy,
        budget_s=options.budget_s,
        refine_crossovers=options.refine_crossovers,
        threads=threads,
        build_timeout_s=options.build_timeout_s or BUILD_TIMEOUT_S[device.kind],
        call_timeout_s=options.call_timeout_s,
        presets=options.presets or (("default",) if not options.axes and options.model is None else ()),
        load=tuple(path.name for path in options.load),
        command=privacy.scrub(options.command),
    )


def usable_threads(threads: int | None, seed: int) -> int:
    """As many as were asked for, all cores when none were. Raises UsageError for what is impossible, of the seed, too."""
    cores = processor.cores()
    _require_range("--threads", cores if threads is None else threads, 1, cores)
    _require_range("--seed", seed, 0, 2**32 - 1)
    return cores if threads is None else threads


def _require_range(option: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UsageError(f"{option} {value} is impossible here: give a whole number from {least} to {most}")


def manifest_of(
    made: Plan, settings: Settings, machine: Environment, sources: Mapping[str, str], comparison: Comparison | None = None
) -> Manifest:
    """The plan as it is written before anything is measured."""
    return Manifest(
        version=importlib.metadata.version("kerneldyno"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=settings,
        environment=machine,
        cases=list(made.cases),
        skipped=privacy.scrubbed(made.skipped),
        comparison=comparison,
        sources=dict(sources),
    )


def _sources(made: Plan, kernels: Mapping[str, Kernel]) -> dict[str, str]:
    return {name: kernels[name].source_hash for name in sorted({case.kernel for case in made.cases})}


def _new_folder(options: Options) -> Path:
    model = "" if options.model is None else options.model.source.name
    name = "-".join(options.presets) or model or ("sweep" if options.axes else "default")
    return Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-{name}"


def offering(model: Chosen | None) -> AbstractContextManager[None]:
    """Inside, worker processes find the model's files."""
    return files.offered(None if model is None else model.source)


@contextmanager
def only_one(device: Device) -> Iterator[None]:
    """Keep a second run away from the device while this one measures; raise UsageError when another one is there."""
    lock = FileLock(Path(tempfile.gettempdir()) / f"kerneldyno-{os.getuid()}-{str(device).replace(':', '-')}.lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout:
        raise UsageError(f"another kerneldyno run is measuring on {device}: both would be wrong; wait until it has ended") from None


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a request to stop that is honoured when what was measured is safe.

    It stays in force while tables and report are written: pressing again must not lose them.
    """
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if not asked:
            print("kerneldyno: stopping; what was measured is kept (up to 10 s)", file=sys.stderr, flush=True)
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
