"""The command line: a table of contents. The only file that knows both measuring and reports."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

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
    preset: Annotated[
        list[str] | None, typer.Option(help="Named set of problems; repeat for several. `kerneldyno list` shows them. [default: default]")
    ] = None,
    operator: Annotated[str, typer.Option(help="Only these operators: attention,feedforward,layer.")] = "",
    kernels: Annotated[str, typer.Option(help='Only kernels whose name matches one of these globs: "attention/*,sdpa*".')] = "",
    batch: Annotated[str | None, typer.Option(help="Batch sizes, e.g. 1,4.")] = None,
    seq_len: Annotated[str | None, typer.Option(help="Sequence lengths, e.g. 128,512; the cache length of a decode problem.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32,bfloat16,float16. [default: float32 on a CPU, bfloat16 on a GPU]")] = None,
    causal: Annotated[bool | None, typer.Option("--causal/--no-causal", help="Causal attention; a causal mask for the layer.")] = None,
    direction: Annotated[str | None, typer.Option(help="forward,backward; backward times a forward and a backward pass.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUES", help="Any other field of a problem, e.g. head_dim=64,128 or activation=gelu."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    load: Annotated[
        list[Path] | None, typer.Option(metavar="FILE.py", help="Measure the kernels of this file too; repeat for several.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="smoke, default or full: how long to sample. [default: the preset's]")] = None,
    processes: Annotated[
        int, typer.Option(help="Measure every group in so many fresh processes; 3 or more give intervals over processes.")
    ] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads for every kernel alike. [default: all cores]")] = None,
    seed: Annotated[int, typer.Option(help="Seed of inputs, weights and the order of rounds.")] = 0,
    energy: Annotated[str, typer.Option(help="auto: power of every case where there is a counter; on: longer windows; off.")] = "auto",
    budget: Annotated[float | None, typer.Option(metavar="SECONDS", help="Stop in time; the most informative groups come first.")] = None,
    build_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Limit for building one kernel. [default: 180 on a CPU, 300 on a GPU]")
    ] = None,
    call_timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Limit for one call.")] = 30.0,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the results. [default: runs/DATE-PRESET]")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Measure what is missing of this run. Only --load and --budget go with it.")
    ] = None,
) -> None:
    """Measure kernels side by side and write tables and a report.

    Without options: the default sweep over all operators on the best device here. Shape options (--batch, --seq-len, --set
    …) replace those fields in the problems of the presets; without a preset they start from the seed's shapes.
    """
    from . import launch, options
    from .terminal import TerminalProgress

    console = _console()
    progress = TerminalProgress(console)
    if resume is not None:
        options.refuse_beside_resume(sys.argv)
        folder, ended = launch.resume(resume, load or [], budget, progress)
    else:
        axes = options.axes(batch=batch, seq_len=seq_len, dtype=dtype, direction=direction, others=set_ or [], causal=causal)
        chosen = launch.Options(
            presets=tuple(preset or ()),
            operators=options.words(operator, "--operator"),
            kernels=options.words(kernels, "--kernels"),
            axes=axes,
            device=device,
            load=tuple(load or ()),
            protocol=protocol,
            processes=processes,
            seed=seed,
            energy=options.energy(energy),
            budget_s=budget,
            threads=threads,
            build_timeout_s=build_timeout,
            call_timeout_s=call_timeout,
            out=out,
            command=shlex.join(["kerneldyno", *options.without_paths(sys.argv[1:])]),
        )
        folder, ended = launch.launch(chosen, progress)
    raise typer.Exit(_conclude(folder, ended))


@app.command("list", epilog=EXIT_CODES)
def list_(
    load: Annotated[list[Path] | None, typer.Option(metavar="FILE.py", help="Show the kernels of this file too.")] = None,
) -> None:
    """Show devices, presets and kernels, and what does not run here and why."""
    from . import inventory

    inventory.show(_console(), load or [])


@app.command(epilog=EXIT_CODES)
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    plain: Annotated[bool, typer.Option(help="Embed the chart library uncompressed, for browsers without DecompressionStream.")] = False,
) -> None:
    """Write results.csv, results.parquet, samples.parquet and report.html of a run again."""
    from kerneldyno.reports import frame, page

    frame.write_tables(run_folder)
    _console().print(f"report: {page.render(run_folder, plain=plain)}", soft_wrap=True, highlight=False)


@app.command(epilog=EXIT_CODES)
def salvage(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run whose journal is damaged.")],
) -> None:
    """Keep every good record of a damaged journal; the damaged file is set aside."""
    from . import journal

    kept = journal.salvage(run_folder)
    _console().print(f"{kept} records kept: go on with kerneldyno run --resume {run_folder}", soft_wrap=True, highlight=False)


def _conclude(folder: Path, ended: str) -> int:
    """Write tables and report, print the winners, and return the exit status."""
    from kerneldyno.reports import frame, page

    from .terminal import summary

    console = _console()
    frame.write_tables(folder)
    path = page.render(folder)
    frames = frame.load(folder)
    results = frames.results
    summary(console, results, frames.winners)
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
    if ended == "interrupted":
        return EXIT_INTERRUPTED
    bad = {"wrong", "failed", "timeout", "invalid"} | ({"missing"} if ended == "finished" else set())
    return EXIT_CASES if results["status"].isin(bad).any() else EXIT_OK


def _console() -> Console:
    from rich.console import Console

    return Console()


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
