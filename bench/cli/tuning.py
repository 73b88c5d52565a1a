"""`kerneldyno tune`: which tiles of our kernels are fastest on this device, stored for the builds to come."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Exit, Option

from .. import flags

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..launch import Options

EXIT_CODES = """Exit status: 0 all choices are made, or the budget is used up · 2 a mistake in what was asked, or no GPU · 3 cannot go on:
another machine, software or kernel · 5 a default is wrong or fails itself, or candidates
crash again and again · 130 interrupted (what was measured is kept)."""

Preset = Annotated[
    list[str] | None,
    Option(help="Named set of problems; repeat for several. (default: default, fa-grid, llama-8b-prefill, decode)"),
]
Kernels = Annotated[str | None, Option(help='Only kernels whose name matches one of these globs: "attention/*,fused".')]
Processes = Annotated[int, Option(help="Fresh processes of each final, at least 3.")]
Budget = Annotated[
    float | None, Option(metavar="SECONDS", help="Stop in time: choices that are made are stored, the others go on with --resume.")
]
Book = Annotated[
    Path | None,
    Option(metavar="DIR", help="Folder for the choices, a file for each architecture. (default: that which kernels read, in the package)"),
]
Resume = Annotated[Path | None, Option(metavar="DIR", help="Go on with this tuning. Only --load, --budget and --out go with it.")]
CompileOnly = Annotated[
    bool, Option("--compile-only", help="No GPU needed: show the candidates, which of them are left out and why; nothing is measured.")
]
Arch = Annotated[
    str | None,
    Option(metavar="ARCH", help="With --compile-only: for a usual card of sm_80, sm_86, sm_89, sm_90, sm_100 or sm_120. (default: sm_90)"),
]
Jobs = Annotated[int | None, Option(metavar="N", help="Compile so many candidates at once. (default: one on each core)")]
Simulated = Annotated[
    str, Option(metavar="FILE.py", hidden=True, help="Time with the `clock` of this file of --load, which simulates --arch.")
]


def tune(
    context: typer.Context,  # shapes and limits are read from it
    preset: Preset = None,  # noqa: ARG001
    operator: flags.Operator = None,  # noqa: ARG001
    kernels: Kernels = None,  # noqa: ARG001
    batch: flags.Batch = None,  # noqa: ARG001
    seq_len: flags.SeqLen = None,  # noqa: ARG001
    dtype: flags.Dtype = None,  # noqa: ARG001
    causal: flags.Causal = None,  # noqa: ARG001
    direction: flags.Direction = None,  # noqa: ARG001
    set_: flags.Set = None,  # noqa: ARG001
    device: flags.Device = "auto",  # noqa: ARG001
    load: flags.Load = None,
    processes: Processes = 5,  # noqa: ARG001
    threads: flags.Threads = None,  # noqa: ARG001
    seed: flags.Seed = 0,  # noqa: ARG001
    budget: Budget = None,
    build_timeout: flags.BuildTimeout = None,  # noqa: ARG001
    call_timeout: flags.CallTimeout = 30.0,  # noqa: ARG001
    out: Book = None,
    resume: Resume = None,
    compile_only: CompileOnly = False,
    arch: Arch = None,
    jobs: Jobs = None,
    simulated: Simulated = "",
) -> None:
    """Which tiles are fastest here? Candidates are compiled, checked by the gate, measured, and what wins is stored as data.

    Left out are those that spill, do not fit or lack tensor cores. The rest run in short rounds; the fastest and the default then in
    interleaved rounds of fresh processes. A candidate replaces the default only if it is faster by more than the noise. Kernels read
    what is stored when they are built; a run never tunes.
    """
    from rich.console import Console

    from .. import launch, options
    from ..plan import UsageError
    from ..terminal import TerminalProgress
    from ..tune import command, goals, records
    from ..tune.folder import TuneFolder

    console = Console()
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs} is impossible: give 1 or more")
    if arch is not None and not (compile_only or simulated):
        raise UsageError(f"--arch {arch} goes with --compile-only alone: a device says itself what it is")
    if resume is not None:
        options.refuse_beside_resume(sys.argv, allowed=("--resume", "--load", "--budget", "--out"))
        stored = TuneFolder(resume).planned().options
        asked = records.asked_again(stored, tuple(load or ()), budget, out, resume)
    else:
        asked = goals.Asked(_run_options(context.params), arch=arch or "sm_90", simulated=simulated, book=out, jobs=jobs)
    with launch.stop_on_signals() as stop:
        raise Exit(command.preview(console, asked, stop) if compile_only else command.tune(console, asked, TerminalProgress(console), stop))


def _run_options(given: Mapping[str, Any]) -> Options:
    """The options that mean the same as for `kerneldyno run`."""
    from .. import launch, options
    from ..tune import goals

    shape = {name: given[name] for name in ("batch", "seq_len", "dtype", "direction", "causal")}
    axes = options.axes(**shape, others=given["set_"] or [])
    return launch.Options(
        presets=tuple(given["preset"] or ()) or (() if axes else goals.PRESETS),
        operators=options.words(given["operator"], "--operator"),
        kernels=options.words(given["kernels"], "--kernels"),
        axes=axes,
        device=given["device"],
        load=tuple(given["load"] or ()),
        protocol="default",
        processes=given["processes"],
        seed=given["seed"],
        energy="off",
        budget_s=given["budget"],
        threads=given["threads"],
        build_timeout_s=given["build_timeout"],
        call_timeout_s=given["call_timeout"],
    )
