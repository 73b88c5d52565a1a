"""Under which conditions runs were measured: machine, software and protocol; and in words, how several conditions differ.

Numbers are joined over runs of equal conditions only: what a graphics driver changed must not look like a change of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from . import units

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kerneldyno.bench.journal import Run
    from kerneldyno.bench.manifest import Environment

TOLD = 4
"""So many differences are named; the others are counted."""
WORDS = {
    "device_name": "device", "cpu_name": "processor", "cpu_cores": "cores", "cpu_features": "instructions", "driver_major": "driver",
    "cuda": "CUDA", "power_limit_w": "power limit, W",
}  # fmt: skip


@dataclass(frozen=True)
class Conditions:
    """What the runs of one series share."""

    fingerprint: str
    """Of the environment."""
    protocol: str
    """Name of the protocol: shorter sampling gives other numbers."""


def conditions(run: Run) -> Conditions:
    """The conditions of a run."""
    return Conditions(run.manifest.environment.fingerprint, run.manifest.settings.protocol.name)


def told_apart(runs: Sequence[Run]) -> dict[Conditions, str]:
    """Each of the conditions of these runs, with a name that says how it differs from the others; empty where there is one."""
    firsts = {conditions(run): run for run in reversed(runs)}
    firsts = {found: firsts[found] for found in dict.fromkeys(conditions(run) for run in runs)}
    facts = {found: _facts(run, list(firsts.values())) for found, run in firsts.items()}
    names = list(dict.fromkeys(name for own in facts.values() for name in own))
    varying = [name for name in names if len({own.get(name) for own in facts.values()}) > 1]
    told = {found: _sentence({name: own.get(name) for name in varying}) for found, own in facts.items()}
    return _distinct(told)


def _facts(run: Run, others: Sequence[Run]) -> dict[str, str]:
    """Everything that may tell conditions apart, in words."""
    environment = run.manifest.environment
    facts = {"protocol": run.manifest.settings.protocol.name}
    for name, key, value in parts(environment):
        if any(_matters(environment, other.manifest.environment, name, key) for other in others):
            facts[WORDS.get(key or name, key or name)] = _value(name, value)
    if "instructions" in facts:
        shared = set(environment.cpu_features).intersection(*(other.manifest.environment.cpu_features for other in others))
        facts["instructions"] = "with " + (", ".join(sorted(set(environment.cpu_features) - shared)) or "none besides")
    return facts


def parts(environment: Environment) -> Iterator[tuple[str, str | None, Any]]:
    """(field, key inside it, value): each field of an environment, one by one where it holds several things."""
    for name in environment.__struct_fields__:
        value = getattr(environment, name)
        if isinstance(value, dict):
            yield from ((name, key, inner) for key, inner in value.items())
        else:
            yield name, None, value


def _matters(one: Environment, other: Environment, name: str, key: str | None) -> bool:
    """Whether taking this part over from the other changes the fingerprint: asked of the fingerprint itself."""
    theirs = getattr(other, name)
    if key is not None:
        mine: Mapping[str, Any] = getattr(one, name) or {}
        rest = {inner: value for inner, value in mine.items() if inner != key}
        theirs = rest | ({key: theirs[key]} if key in (theirs or {}) else {})
    return msgspec.structs.replace(one, **{name: theirs}).fingerprint != one.fingerprint


def _value(name: str, value: Any) -> str:
    return value.rsplit(".", 1)[0] if name == "python" else str(value)


def _sentence(differing: Mapping[str, str | None]) -> str:
    said = [f"no {name}" if value is None else _fact(name, value) for name, value in differing.items()]
    more = [f"{len(said) - TOLD} more differences"] * (len(said) > TOLD)
    return units.listed([*said[:TOLD], *more])


def _fact(name: str, value: str) -> str:
    return value if name in {"device", "processor"} else f"{value} protocol" if name == "protocol" else f"{name} {value}"


def _distinct(told: Mapping[Conditions, str]) -> dict[Conditions, str]:
    """Where the words are the same although the fingerprints are not, the fingerprint says it."""
    if len(told) == 1:
        return dict.fromkeys(told, "")
    names = list(told.values())
    return {found: name if name and names.count(name) == 1 else f"{name} ({found.fingerprint})".strip() for found, name in told.items()}
