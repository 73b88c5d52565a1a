"""`kerneldyno compare`: two kernels, two commits or two stored runs, a verdict for each case, and an exit code."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from .. import flags
from . import named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from ..compare.command import Asked
    from ..comparison import Quantity
    from ..launch import Options
    from ..verdict import Outcome

EXIT_CODES = """Exit status: 0 nothing regressed · 1 something regressed · 2 a mistake in what was asked · 3 not comparable (other
machine, day or software) · 4 too noisy to tell, or the canary failed · 5 cases failed, are wrong or missing · 130 interrupted. All
files are written before."""

What = Annotated[
    list[str] | None,
    Argument(metavar="[KERNEL | RUN RUN]", help="The second kernel after --kernels, or the folders of two stored runs."),
]
Base = Annotated[str | None, Option(metavar="REV", help="Compare with the kernels of this commit: main, origin/main, HEAD~1, a hash.")]
Candidate = Annotated[str, Option(metavar="REV", help="The other commit; worktree: the files as they are now.")]
Kernels = Annotated[
    str | None,
    Option(metavar="BASE CANDIDATE", help="Two kernels, by name; with --base only kernels that match these globs: 'attention/*,sdpa*'."),
]
Preset = Annotated[list[str] | None, Option(help="Named set of problems; repeat for several. `list` shows them. (default: compare)")]
All = Annotated[bool, Option("--all", help="Kernels that did not change, too. (default: those that differ, and canaries)")]
Gate = Annotated[str, Option(help="What fails the comparison: latency,memory,errors,energy.")]
Processes = Annotated[
    int | None, Option(help="Fresh processes of each cell. (default: 8, 12 where they scatter, 8 more where it is unclear)")
]
Budget = Annotated[
    float | None, Option(metavar="SECONDS", help="Stop in time: fewer processes, then fewer cells; the result says what it could see.")
]
Stored = Annotated[bool, Option("--strict", help="Stored runs: let a regression fail, if they are of one machine and one day.")]


def compare(
    context: typer.Context,  # what is not named in the body is read from it
    what: What = None,
    base: Base = None,
    candidate: Candidate = "worktree",
    kernels: Kernels = None,
    everything: All = False,
    preset: Preset = None,  # noqa: ARG001
    operator: flags.Operator = None,  # noqa: ARG001
    batch: flags.Batch = None,  # noqa: ARG001
    seq_len: flags.SeqLen = None,  # noqa: ARG001
    dtype: flags.Dtype = None,  # noqa: ARG001
    causal: flags.Causal = None,  # noqa: ARG001
    direction: flags.Direction = None,  # noqa: ARG001
    set_: flags.Set = None,  # noqa: ARG001
    model: flags.Model = None,  # noqa: ARG001
    weights: flags.Weights = None,  # noqa: ARG001
    inputs: flags.ModelInputs = None,  # noqa: ARG001
    layers: flags.Layers = None,  # noqa: ARG001
    device: flags.Device = "auto",  # noqa: ARG001
    load: flags.Load = None,  # noqa: ARG001
    threads: flags.Threads = None,  # noqa: ARG001
    seed: flags.Seed = 0,  # noqa: ARG001
    processes: Processes = None,
    budget: Budget = None,  # noqa: ARG001
    gate: Gate = "latency,memory,errors",
    strict: Stored = False,
    build_timeout: flags.BuildTimeout = None,  # noqa: ARG001
    call_timeout: flags.CallTimeout = 30.0,  # noqa: ARG001
    out: flags.Out = None,
) -> None:
    """Did it get slower, hungrier or wrong? REGRESSED, IMPROVED, SAME or INCONCLUSIVE for each case, with an interval.

    Three forms. Two kernels: `compare --kernels attention/sdpa attention/fused`. Two commits: `compare --base origin/main`,
    where both sides are measured now, in the same fresh processes. Two stored runs: `compare runs/A runs/B`, which is advice.
    """
    from ..compare import command
    from ..options import words
    from ..plan import UsageError

    chosen = command.gates(words(gate, "--gate"))
    positional = list(what or [])
    if base is None and kernels is None:
        _require_two(context, positional)
        raise typer.Exit(_stored(positional, chosen, strict=strict, out=out))
    if strict:
        raise UsageError("--strict is for two stored runs: what is measured now fails the comparison anyway")
    names = _names(kernels, positional, base)
    if base is None:
        _refuse(context, tuple(set(context.params) - {"candidate", "everything"}), "two kernels: it needs --base")
    asked = command.Asked(
        run=_run_options(context.params, names, energy="energy" in chosen),
        base=base,
        candidate=candidate,
        everything=everything,
        processes=processes,
        gates=chosen,
    )
    raise typer.Exit(_measured(asked))


def _require_two(context: typer.Context, folders: Sequence[str]) -> None:
    """Raise UsageError unless two stored runs are named, and nothing that would have to be measured."""
    from ..plan import UsageError

    if len(folders) != 2:
        forms = "--base REV, --kernels BASE CANDIDATE, or the folders of two stored runs"
        raise UsageError(f"compare needs {forms}: kerneldyno compare --help")
    _refuse(context, ("what", "gate", "strict", "out"), "two stored runs, which are not measured again")


def _refuse(context: typer.Context, allowed: tuple[str, ...], where: str) -> None:
    """Raise UsageError for an option that was given and would do nothing."""
    from ..plan import UsageError

    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            option = {"set_": "--set", "everything": "--all"}.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(f"{option} does not go with {where}")


def _run_options(given: Mapping[str, Any], names: tuple[str, ...], *, energy: bool) -> Options:
    """What a comparison has in common with a sweep."""
    from .. import launch, options

    varied = {name: given[name] for name in ("batch", "seq_len", "dtype", "direction", "causal")}
    return launch.Options(
        presets=tuple(given["preset"] or ()),
        operators=options.words(given["operator"], "--operator"),
        kernels=names,
        axes=options.axes(**varied, others=given["set_"] or []),
        device=given["device"],
        load=tuple(given["load"] or ()),
        protocol="paired",
        seed=given["seed"],
        energy="on" if energy else "auto",
        budget_s=given["budget"],
        threads=given["threads"],
        build_timeout_s=given["build_timeout"],
        call_timeout_s=given["call_timeout"],
        out=given["out"],
        model=named.model(given["model"], given["weights"], given["inputs"], given["layers"]),
        command=shlex.join(["kerneldyno", *options.without_paths(sys.argv[1:])]),
    )


def _names(kernels: str | None, positional: Sequence[str], base: str | None) -> tuple[str, ...]:
    """The kernels asked for: globs beside --base, else exactly two. Raises UsageError."""
    from .. import options
    from ..plan import UsageError

    names = (*options.words(kernels, "--kernels"), *positional)
    if base is None and len(names) != 2:
        raise UsageError(f"--kernels {' '.join(names)}: name exactly two kernels, the base first: --kernels attention/sdpa attention/fused")
    if base is not None and positional:
        raise UsageError(f"{positional[0]!r} is one argument too many: beside --base, give --kernels 'a,b' as one list")
    return names


def _measured(asked: Asked) -> int:
    from .. import launch
    from ..compare import command
    from ..compare.progress import CompareProgress

    console = _console()
    progress = CompareProgress(console)
    with launch.stop_on_signals() as stop, launch.offering(asked.run.model):
        folder, outcome = command.compare(asked, progress, progress, stop)
        return publish(console, outcome, folder)


def _stored(folders: Sequence[str], gates: tuple[Quantity, ...], *, strict: bool, out: Path | None) -> int:
    from ..compare import stored

    outcome = stored.compare(Path(folders[0]), Path(folders[1]), gates, strict=strict)
    return publish(_console(), outcome, out or stored.new_folder())


def again(console: Console, folder: Path, *, plain: bool = False) -> int:
    """Derive a stored comparison anew, write its files and show it; 0, whatever it says: that was said when it was measured."""
    from .. import journal
    from ..compare.outcome import derive

    publish(console, derive(journal.read(folder)), folder, plain=plain)
    return 0


def publish(console: Console, outcome: Outcome, folder: Path, *, plain: bool = False) -> int:
    """Write and show what came of a comparison; its exit code. Raises UsageError where the folder cannot take the files."""
    from rich.markup import escape

    from kerneldyno.reports import artefacts
    from kerneldyno.reports.annotations import annotations
    from kerneldyno.reports.markdown import SUMMARY_BYTES, markdown

    from ..compare.telling import tell
    from ..plan import UsageError

    try:
        page = artefacts.write(outcome, folder, plain=plain)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(
            f"the results in {folder} could not be written ({why}): make room or give permission, then: kerneldyno report {folder}"
        ) from error
    tell(console, outcome)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(markdown(outcome, limit_bytes=SUMMARY_BYTES))
        except OSError as error:
            print(f"kerneldyno: the job's summary could not be written ({error.strerror or error})", file=sys.stderr)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in annotations(outcome):
            print(line, flush=True)
    console.print(f"page: {escape(str(page))}", soft_wrap=True, highlight=False)
    return outcome.exit_code


def _console() -> Console:
    from rich.console import Console

    return Console()
