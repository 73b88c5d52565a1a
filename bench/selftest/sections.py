"""The sections of the self-test in their order, and the document that keeps what they found."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from .. import privacy
from .findings import MOST_ALARMS, MOST_ALARMS_IN_COMPARISONS, Control, Finding, Found, Rate, Tally, tally

if TYPE_CHECKING:
    from pathlib import Path

    from .context import Context

SCHEMA_VERSION = 1

Section = Callable[["Context"], Iterator[Found]]


def _of(module: str, function: str = "findings") -> Section:
    """Imported when it is begun: what a section needs, torch above all, takes its time."""
    return lambda context: getattr(import_module(f".{module}", __package__), function)(context)  # noqa: PLW0108 - not yet


def _planted(section: str) -> Section:
    return lambda context: import_module(".mistakes", __package__).findings(section, context)


def _memory(context: Context) -> Iterator[Found]:
    found: Iterator[Found] = import_module(".memory", __package__).findings(context.short)
    return found


SECTIONS: Mapping[str, Section] = {
    **{name: _planted(name) for name in ("attention", "gradients", "feedforward", "layer", "approximations", "cheats")},
    "impostors": _of("identities"),
    "crashes": _of("crashes"),
    "memory": _memory,
    "known times": _of("timing", "known_times"),
    "slowdowns": _of("timing", "slowdowns"),
    "right kernels": _of("randomly"),
}
WITHOUT_GATE = ("attention", "gradients", "feedforward", "layer", "approximations", "cheats", "impostors")
"""Those that mean something when the gate is switched off."""


class Document(msgspec.Struct, kw_only=True):
    """A self-test as JSON."""

    schema: int = SCHEMA_VERSION
    version: str
    """Of kerneldyno."""
    created: str
    """ISO 8601, UTC."""
    device: str
    seed: int
    short: bool
    complete: bool
    """False: it was interrupted."""
    seconds: float
    tallies: list[Tally]
    detection: dict[str, Rate]
    """Section -> share of the faults that were caught, with its exact 95 % interval."""
    false_alarms: dict[str, Rate]
    """Section -> share of right kernels that were called wrong, likewise."""
    findings: list[Finding]
    controls: list[Control]


def tallies(found: list[Found]) -> list[Tally]:
    """One for each section that found something, in the order of the sections."""
    present = dict.fromkeys(item.section for item in found)
    order = [name for name in (*SECTIONS, *present) if name in present]
    return [tally(name, found, most_alarms=_most(name)) for name in dict.fromkeys(order)]


def _most(section: str) -> float:
    return MOST_ALARMS_IN_COMPARISONS if section == "slowdowns" else MOST_ALARMS


def document(found: list[Found], context: Context, *, seconds: float, complete: bool) -> Document:
    """All that is known so far."""
    counted = tallies(found)
    return Document(
        version=importlib.metadata.version("kerneldyno"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=str(context.device),
        seed=context.seed,
        short=context.short,
        complete=complete,
        seconds=seconds,
        tallies=counted,
        detection={one.section: one.detection for one in counted},
        false_alarms={one.section: one.false_alarms for one in counted},
        findings=[item for item in found if isinstance(item, Finding)],
        controls=[item for item in found if isinstance(item, Control)],
    )


def write(path: Path, what: Document) -> None:
    """As indented JSON; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(privacy.scrubbed(what)), indent=1))


def read(path: Path) -> Document:
    """Back from JSON. Raises ValueError for another schema."""
    data: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    if data.get("schema") != SCHEMA_VERSION:
        raise ValueError(f"{path.name} has schema {data.get('schema')}, not {SCHEMA_VERSION}: read it with the version that wrote it")
    return msgspec.convert(data, Document)
