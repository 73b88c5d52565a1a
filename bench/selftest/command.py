"""`kerneldyno selftest`: runs the sections one after the other, keeps what they find, and decides how it ends."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .. import environment
from ..plan import UsageError
from . import sections
from .context import Context
from .findings import Found
from .sections import SECTIONS, WITHOUT_GATE
from .telling import Teller, summary

if TYPE_CHECKING:
    from rich.console import Console

    from .sections import Section

FINE, FAULTY, INTERRUPTED = 0, 5, 130


def selftest(
    console: Console,
    *,
    device: str = "auto",
    seed: int = 0,
    short: bool = False,
    only: Sequence[str] = (),
    out: Path | None = None,
    blind: bool = False,
    stop: Callable[[], bool] = lambda: False,
    every: Mapping[str, Section] = SECTIONS,
) -> int:
    """Plant faults, say what was caught, write it to `out`; return the exit status: 0, 5 or 130.

    5: something that must be caught was missed, or more right kernels were refused than is tolerated. Raises UsageError
    for a section that does not exist.
    """
    chosen = _chosen(only, every, blind=blind)
    context = Context(environment.choose(device), seed, short, blind, stop)
    path = out or Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-selftest.json"
    found: list[Found] = []
    began = time.monotonic()
    with _as_a_worker(), Teller(console) as teller:
        context = replace(context, say=teller.say, tick=teller.tick)
        for name in chosen:
            if stop():
                break
            teller.section(name)
            try:
                for item in every[name](context):
                    found.append(item)
                    teller.found(item)
                    if stop():
                        break
            finally:
                sections.write(path, sections.document(found, context, seconds=time.monotonic() - began, complete=False))
            teller.done()
    made = sections.document(found, context, seconds=time.monotonic() - began, complete=not stop())
    sections.write(path, made)
    summary(console, made.tallies)
    console.print(f"findings: {path}", soft_wrap=True, highlight=False, markup=False)
    if stop():
        return INTERRUPTED
    return FAULTY if any(one.failed for one in made.tallies) else FINE


def _chosen(only: Sequence[str], every: Mapping[str, Section], *, blind: bool) -> list[str]:
    known = [name for name in every if not blind or name in WITHOUT_GATE]
    for name in only:
        if name not in known:
            raise UsageError(f"--only {name!r} is no section: choose from {', '.join(known)}")
    return [name for name in known if not only or name in only]


@contextmanager
def _as_a_worker() -> Iterator[None]:
    """Processes started inside see what workers see: the allocator's settings, and build caches of their own."""
    with tempfile.TemporaryDirectory(prefix="kerneldyno-", ignore_cleanup_errors=True) as caches:
        wanted = environment.worker_environment(1, Path(caches))
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
