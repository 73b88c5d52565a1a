"""The command line: a table of contents. The only file that knows both measuring and reports."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from . import flags
from .cli import codegen, comparing, explaining, named, reporting, stored, tuning

EXIT_OK, EXIT_USAGE, EXIT_MISMATCH, EXIT_CASES, EXIT_INTERRUPTED = 0, 2, 3, 5, 130
EXIT_CODES = """Exit status: 0 all is well · 2 a mistake in what was asked · 3 runs that do not fit together ·
5 cases are wrong, failed, invalid or missing · 130 interrupted (what was measured is kept)."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A dynamometer for transformer kernels: speed, memory, power and error of implementations of attention, the "
    "feed-forward network and the encoder layer, side by side.",
    epilog=EXIT_CODES,
)


@app.command(epilog=EXIT_CODES)
def run(
    preset: flags.Preset = None,
    operator: flags.Operator = None,
    kernels: flags.Kernels = None,
    batch: flags.Batch = None,
    seq_len: flags.SeqLen = None,
    dtype: flags.Dtype = None,
    causal: flags.Causal = None,
    direction: flags.Direction = None,
    set_: flags.Set = None,
    model: flags.Model = None,
    weights: flags.Weights = None,
    inputs: flags.ModelInputs = None,
    layers: flags.Layers = None,
    device: flags.Device = "auto",
    load: flags.Load = None,
    protocol: flags.Protocol = None,
    processes: flags.Processes = 1,
    threads: flags.Threads = None,
    seed: flags.Seed = 0,
    energy: flags.Energy = "auto",
    refine_crossovers: flags.RefineCrossovers = False,
    budget: flags.Budget = None,
    build_timeout: flags.BuildTimeout = None,
    call_timeout: flags.CallTimeout = 30.0,
    out: flags.Out = None,
    resume: flags.Resume = None,
) -> None:
    """Measure kernels side by side and write tables and a report.

    Without options: the default sweep over all operators on the best device here. Shape options (--batch, --seq-len, --set
    …) replace those fields in the problems of the presets; without a preset they start from the seed's shapes.
    """
    from . import launch, options
    from .terminal import TerminalProgress

    if resume is not None:
        raise typer.Exit(_resumed(resume, load or [], budget, (model, weights, inputs), refine=refine_crossovers))
    chosen = launch.Options(
        presets=tuple(preset or ()),
        operators=options.words(operator, "--operator"),
        kernels=options.words(kernels, "--kernels"),
        axes=options.axes(batch=batch, seq_len=seq_len, dtype=dtype, direction=direction, others=set_ or [], causal=causal),
        device=device,
        load=tuple(load or ()),
        protocol=protocol,
        processes=processes,
        seed=seed,
        energy=options.energy(energy),
        budget_s=budget,
        refine_crossovers=refine_crossovers,
        threads=threads,
        build_timeout_s=build_timeout,
        call_timeout_s=call_timeout,
        out=out,
        model=named.model(model, weights, inputs, layers),
        command=shlex.join(["kerneldyno", *options.without_paths(sys.argv[1:])]),
    )
    with launch.stop_on_signals() as stop:
        raise typer.Exit(_conclude(*launch.launch(chosen, TerminalProgress(reporting.console()), stop)))


@app.command(epilog=EXIT_CODES)
def check(
    preset: flags.Preset = None,
    operator: flags.Operator = None,
    kernels: flags.Kernels = None,
    batch: flags.Batch = None,
    seq_len: flags.SeqLen = None,
    dtype: flags.Dtype = None,
    causal: flags.Causal = None,
    direction: flags.Direction = None,
    set_: flags.Set = None,
    model: flags.Model = None,
    weights: flags.Weights = None,
    inputs: flags.ModelInputs = None,
    layers: flags.Layers = None,
    device: flags.Device = "auto",
    load: flags.Load = None,
    threads: flags.Threads = None,
    seed: flags.Seed = 0,
    build_timeout: flags.BuildTimeout = None,
    call_timeout: flags.CallTimeout = 30.0,
    json: flags.Json = None,
) -> None:
    """Is it right, and does it behave? The gate alone, with every probe, over any kernels and problems; nothing is timed.

    Without shape options: the preset `features`. What fails is told with its probe, the place (batch, head, row), the
    number expected and the one that came.
    """
    from . import launch, options
    from .terminal import TerminalProgress, gate_summary

    chosen = launch.Options(
        presets=tuple(preset or ()) or (() if batch or seq_len or set_ or model or weights else ("features",)),
        operators=options.words(operator, "--operator"),
        kernels=options.words(kernels, "--kernels"),
        axes=options.axes(batch=batch, seq_len=seq_len, dtype=dtype, direction=direction, others=set_ or [], causal=causal),
        device=device,
        load=tuple(load or ()),
        protocol="smoke",
        seed=seed,
        energy="off",
        threads=threads,
        build_timeout_s=build_timeout,
        call_timeout_s=call_timeout,
        model=named.model(model, weights, inputs, layers),
    )
    console = reporting.console()
    with launch.stop_on_signals() as stop:
        plan, measurements, ended = launch.check(chosen, TerminalProgress(console), stop)
    failed = gate_summary(console, plan.cases, measurements)
    if json is not None:
        options.write_checks(json, plan.cases, measurements)
    raise typer.Exit(EXIT_INTERRUPTED if ended == "interrupted" else EXIT_CASES if failed else EXIT_OK)


app.command(epilog=comparing.EXIT_CODES)(comparing.compare)
app.command(epilog=codegen.EXIT_CODES)(codegen.codegen)
app.command(epilog=tuning.EXIT_CODES)(tuning.tune)
app.command(epilog=explaining.EXIT_CODES)(explaining.explain)
app.command(epilog=EXIT_CODES)(stored.history)
app.command(epilog=EXIT_CODES)(stored.export)


@app.command(epilog=EXIT_CODES)
def selftest(
    short: Annotated[bool, typer.Option("--short", help="The most telling faults only, in two or three minutes.")] = False,
    only: Annotated[str | None, typer.Option(metavar="SECTIONS", help='Only these sections: "attention,cheats,known times".')] = None,
    seed: flags.Seed = 0,
    device: flags.Device = "auto",
    json: flags.Json = None,
    blind: Annotated[bool, typer.Option(hidden=True, help="Switch the gate off: the self-test must then fail.")] = False,
) -> None:
    """The benchmark of the benchmark: plants wrong kernels, cheats, crashes and slowdowns, and counts what is caught.

    Exits with 5 when something that must be caught was missed, or when too many right kernels were refused. What was
    found is written as JSON (default: runs/DATE-selftest.json).
    """
    from . import launch, options
    from .selftest import command

    sections = options.words(only, "--only")
    with launch.stop_on_signals() as stop:
        code = command.selftest(reporting.console(), device=device, seed=seed, short=short, only=sections, out=json, blind=blind, stop=stop)
    raise typer.Exit(code)


@app.command("list", epilog=EXIT_CODES)
def list_(
    load: flags.Load = None,
) -> None:
    """Show devices, presets and kernels, and what does not run here and why."""
    from . import inventory

    inventory.show(reporting.console(), load or [])


app.command(epilog=EXIT_CODES)(reporting.report)


@app.command(epilog=EXIT_CODES)
def salvage(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run whose journal is damaged.")],
) -> None:
    """Keep every good record of a damaged journal; the damaged file is set aside."""
    from . import journal

    kept = journal.salvage(run_folder)
    reporting.say_path(f"{kept} records kept: go on with kerneldyno run --resume", run_folder)


def _resumed(
    folder: Path, load: list[Path], budget: float | None, files: tuple[Path | None, Path | None, Path | None], *, refine: bool
) -> int:
    """Go on with a stored run, `files` being those of its model; the exit status."""
    from . import journal, launch, models, options
    from .terminal import TerminalProgress

    options.refuse_beside_resume(sys.argv)
    model = named.model(*files, ",".join(models.layers_of(journal.read(folder).manifest.cases)) or None) if any(files) else None
    with launch.stop_on_signals() as stop:
        return _conclude(*launch.resume(folder, load, budget, TerminalProgress(reporting.console()), stop, model, refine_crossovers=refine))


def _conclude(folder: Path, ended: str) -> int:
    """Write tables and report, print the winners, and return the exit status."""
    from kerneldyno.reports import crossovers, frame

    from .terminal import summary

    path = reporting.write(folder)
    frames = frame.load(folder)
    results = frames.results
    summary(reporting.console(), results, frames.winners, frames.run.groups, crossovers.leading(frames.run))
    reporting.say_path("report:", path)
    if ended == "interrupted":
        return EXIT_INTERRUPTED
    bad = {"wrong", "failed", "timeout", "invalid"} | ({"missing"} if ended == "finished" else set())
    return EXIT_CASES if results["status"].isin(bad).any() else EXIT_OK


def main() -> NoReturn:
    """Run the command line; a mistake of the user ends in one sentence and a documented exit status."""
    try:
        app(prog_name="kerneldyno")
    except Exception as error:
        from . import options

        code = options.exit_code(error)
        if code is None:
            raise
        print(f"kerneldyno: {error}", file=sys.stderr)
        raise SystemExit(code) from None
    raise SystemExit(EXIT_OK)


if __name__ == "__main__":
    main()
