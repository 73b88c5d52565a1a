"""`kerneldyno codegen`: what our Triton kernels compile to, for GPUs that need not be there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Exit, Option

from .. import flags

EXIT_CODES = """Exit status: 0 everything may be offered · 2 a mistake in what was asked · 5 a configuration spills, does not fit, does not
compile or lacks tensor cores · 130 interrupted (what was compiled is shown)."""

Kernels = Annotated[
    str | None, Option(metavar="GLOBS", help='Only these: "attention/*", or by the names of device kernels, "prefill*,split*".')
]
Arch = Annotated[str, Option(metavar="ARCHS", help="sm_80, sm_86, sm_89, sm_90, sm_100 or sm_120; 90 is sm_90.")]
Few = Annotated[bool, Option("--few", help="A representative subset, in a minute or two, instead of everything, in half an hour.")]
Jobs = Annotated[int | None, Option(metavar="N", help="Compile so many at once. (default: one on each core)")]
Timeout = Annotated[float, Option(metavar="SECONDS", help="Limit for compiling one configuration.")]
Json = Annotated[Path | None, Option("--json", metavar="FILE", help="Write everything that was found as JSON, too.")]
Csv = Annotated[Path | None, Option("--csv", metavar="FILE", help="Write the table, too.")]
Baseline = Annotated[Path | None, Option(metavar="FILE", help="What an earlier --json holds: say what changed since.")]


def codegen(
    kernels: Kernels = None,
    arch: Arch = "sm_80,sm_90,sm_100",
    few: Few = False,
    load: flags.Load = None,
    jobs: Jobs = None,
    timeout: Timeout = 120.0,
    json: Json = None,
    csv: Csv = None,
    baseline: Baseline = None,
) -> None:
    """What do our Triton kernels compile to? Every form that may be launched, for three GPUs, none of which has to be here.

    Shows registers, spills, shared memory, how many programs share a multiprocessor and what limits them, instructions on tensor cores,
    and a predicted limit. The prediction counts the instructions of the main loop by the unit that they occupy, at published rates: the
    share of the tensor cores' rate that is left when all units overlap, and when they take turns. It is no measurement: it knows nothing
    of latency, caches or bank conflicts.
    """
    from rich.console import Console

    from .. import launch, options
    from ..codegen import command

    asked = command.Asked(
        kernels=options.words(kernels, "--kernels"),
        archs=options.words(arch, "--arch"),
        few=few,
        load=tuple(load or ()),
        jobs=jobs,
        timeout_s=timeout,
        json=json,
        csv=csv,
        baseline=baseline,
    )
    with launch.stop_on_signals() as stop:
        raise Exit(command.codegen(Console(), asked, stop))
