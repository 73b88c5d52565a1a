"""Runs of other machines and days for the tests of pages that hold several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from kerneldyno.bench.entries import CeilingsFound, Measured, SessionEnd
from kerneldyno.bench.journal import Journal, read
from kerneldyno.bench.records import Case, Measurement

LAPTOP: dict[str, Any] = {
    "device_name": "Laptop <i>i7</i>",
    "cpu_name": "Laptop <i>i7</i>",
    "cpu_features": ("avx2",),
    "versions": {"torch": "2.14.0"},
    "commit": "feed",
}
Times = Callable[[Case, int], float | str | None]
"""(case, place) -> relative time, or the sentence for why it is wrong, or nothing where it is missing."""


def write(
    folder: Path,
    made: SimpleNamespace,
    pattern: Path,
    cases: Sequence[Case],
    times: Times,
    *,
    day: int = 10,
    sources: dict[str, str] | None = None,
    protocol: str | None = None,
    **environment: Any,
) -> Path:
    """A run like the one at `pattern`, of these cases at these times, in another environment; its folder."""
    manifest = read(pattern).manifest
    settings = manifest.settings
    if protocol:
        settings = msgspec.structs.replace(settings, protocol=msgspec.structs.replace(settings.protocol, name=protocol))
    manifest = msgspec.structs.replace(
        manifest,
        cases=list(cases),
        created=f"2026-11-{day:02}T08:00:00+00:00",
        environment=msgspec.structs.replace(manifest.environment, **environment),
        settings=settings,
        sources=sources or {},
    )
    with Journal.create(folder, manifest) as journal:
        journal.append(CeilingsFound(made.ceilings))
        for place, case in enumerate(cases):
            time = times(case, place)
            if isinstance(time, str):
                journal.append(Measured(Measurement(case=case.id, status="wrong", reason=time)))
            elif time is not None:
                journal.append(Measured(made.measured(case, time, place)))
        journal.append(SessionEnd(reason="finished", wall_s=3.0))
    return folder
