"""The command line of the study: `python -m kerneldyno.bench.study`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from .. import launch
from ..environment import DeviceError
from ..journal import JournalError
from ..plan import UsageError
from . import analysis, samples, telling
from . import pool as pools
from .subjects import SUBJECTS

INTERRUPTED, MISSED = 130, 5


def main(
    processes: Annotated[int, typer.Option(min=1, help="Fresh processes of each kernel.")] = 120,
    out: Annotated[Path, typer.Option(help="Folder of the study: batches of runs, pool.npz, study.json, study.md.")] = Path("runs/study"),
    kernels: Annotated[str | None, typer.Option(help=f"Only these, with commas: {','.join(SUBJECTS)}.")] = None,
    families: Annotated[
        int, typer.Option(min=1, help="Families of 20 cells that are drawn for each condition; the goal needs 299 at least.")
    ] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn, of inputs and of the order of rounds.")] = 0,
    only_analyse: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Measure nothing: tell the study of this pool.npz again.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in --out.")] = False,
) -> None:
    """How often is a comparison wrong? Equal kernels and slowed ones in many fresh processes; exit with 5 when a goal is missed.

    Every process measures a shipped kernel, a second copy of it, and copies slowed by 2, 5, 10 and 20 % in the same rounds.
    Families of 20 cells are drawn from these processes and decided as `kerneldyno compare` decides; other tools' rules are
    asked about the same processes. With 120 processes of 4 kernels it takes about an hour and a half on two cores that do nothing else.
    """
    try:
        pool = samples.load(only_analyse) if only_analyse else _measured(pools.Asked(out, pools.chosen(kernels), processes, seed), resume)
    except (UsageError, DeviceError, JournalError) as error:
        print(f"kerneldyno: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    study = analysis.analyse(pool, families, seed, _say)
    out.mkdir(parents=True, exist_ok=True)
    (out / "study.json").write_bytes(msgspec.json.format(msgspec.json.encode(study), indent=1))
    told = telling.markdown(study)
    (out / "study.md").write_text(told, encoding="utf-8")
    print(told)
    raise typer.Exit(MISSED if study.missed else 0)


def _measured(asked: pools.Asked, resume: bool) -> samples.Pool:
    """The pool, measured as far as it was missing; its compact file is written."""
    if not resume:
        pools.require_new(asked.out)
    with launch.stop_on_signals() as stop:
        if not pools.measure(asked, _say, stop):
            print("kerneldyno: go on with the same options and --resume", file=sys.stderr)
            raise typer.Exit(INTERRUPTED)
    pool = pools.gathered(asked)
    pool.save(asked.out / "pool.npz")
    return pool


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    typer.run(main)
