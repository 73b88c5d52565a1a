"""What differs between the machines, software and settings of several runs, fact by fact, and what is equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from . import units
from .conditions import WORDS, parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kerneldyno.bench.journal import Run

UNKNOWN = "–"
CLOSE = 0.1
"""Measured ceilings of one machine move by this fraction: only more than that is called different."""
NAMES = WORDS | {
    "device_name": "device name", "cpu_features": "instruction sets", "memory_bytes": "memory", "os": "system", "python": "Python",
    "threads": "threads used", "commit": "kerneldyno commit", "min_samples": "samples at least", "target": "interval's half-width aimed at",
    "min_total_s": "sampling time at least, s", "cap_s": "sampling time at most, s", "warmup_s": "warm-up at least, s",
    "warmup_agreement": "warm-up windows agree within", "warmup_cap_s": "warm-up at most, s", "leg_s": "a kernel's share of a round, s",
    "samples_per_leg": "samples in a share, at most", "budget_s": "time budget, s", "build_timeout_s": "time limit of a build, s",
    "call_timeout_s": "time limit of a call, s", "load": "files of --load",
}  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One thing that may differ, with a value for each run."""

    name: str
    values: list[str]
    differs: bool


def facts(runs: Sequence[Run]) -> list[Fact]:
    """Everything that is known of how and where the runs were measured, those facts first that differ."""
    found = [dict(_facts(run)) for run in runs]
    made = [_fact(name, [own.get(name) for own in found]) for name in _merged(found)]
    made.insert(2, _instructions(runs))
    made += _ceilings(runs)
    return sorted(made, key=lambda fact: not fact.differs)


def sources(runs: Sequence[Run]) -> list[str]:
    """The kernels that several runs measured whose source is not the same in all of them."""
    known: dict[str, set[str]] = {}
    for run in runs:
        for kernel, digest in run.manifest.sources.items():
            known.setdefault(kernel, set()).add(digest)
    return sorted(kernel for kernel, digests in known.items() if len(digests) > 1)


def _facts(run: Run) -> Iterator[tuple[str, Any]]:
    """(name, value) in the order in which they are told."""
    environment, settings = run.manifest.environment, run.manifest.settings
    for name, key, value in parts(environment):
        if name in {"cpu_features", "worker_settings"} and key is None:
            continue
        yield (
            (f"{name} {key}" if name == "gpu" and key not in NAMES else NAMES.get(key or name, key or name)),
            (units.quantity(value, "B") if name == "memory_bytes" else value),
        )
    yield "fingerprint", environment.fingerprint
    yield "kerneldyno version", run.manifest.version
    yield "protocol", settings.protocol.name
    for name, value in msgspec.to_builtins(settings.protocol).items():
        if name != "name":
            yield f"protocol: {NAMES.get(name, name)}", value
    for name, value in msgspec.to_builtins(settings).items():
        if name not in {"protocol", "threads"}:
            yield NAMES.get(name, name), value
    yield "sessions", run.sessions


def _merged(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """All names, each after the one that it follows in its run: a package that one run lacks stays among the packages."""
    names: list[str] = []
    for own in found:
        place = 0
        for name in own:
            if name not in names:
                names.insert(place, name)
            place = names.index(name) + 1
    return names


def _fact(name: str, values: Sequence[Any]) -> Fact:
    told = [_told(value) for value in values]
    return Fact(name, told, len(set(told)) > 1)


def _told(value: Any) -> str:
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return UNKNOWN if value is None or value == "" else "yes" if value is True else "no" if value is False else str(value)


def _instructions(runs: Sequence[Run]) -> Fact:
    """Instruction sets: what all have where they are equal, else what each has besides."""
    own = [set(run.manifest.environment.cpu_features) for run in runs]
    shared = set.intersection(*own)
    if all(features == shared for features in own):
        return _fact(NAMES["cpu_features"], [sorted(shared)] * len(runs))
    values = [", ".join(sorted(features - shared)) or "none besides" for features in own]
    return Fact(f"{NAMES['cpu_features']} besides the {len(shared)} that all have", values, differs=True)


def _ceilings(runs: Sequence[Run]) -> Iterator[Fact]:
    """The measured rates: different where they are further apart than one machine's own are."""
    rates = [_rates(run) for run in runs]
    for name, unit in dict.fromkeys((name, unit) for own in rates for name, unit in own):
        values = [own.get((name, unit)) for own in rates]
        known = [value for value in values if value]
        apart = len(known) < len(values) or max(known) > (1 + CLOSE) * min(known)
        yield Fact(name, [units.quantity(value, unit) or "not measured" for value in values], apart)


def _rates(run: Run) -> Mapping[tuple[str, str], float]:
    if run.ceilings is None:
        return {}
    found = {(f"measured matmul rate, {dtype}", "FLOP/s"): rate for dtype, rate in run.ceilings.matmul_flops_per_s.items()}
    return found | {("measured copy rate", "B/s"): run.ceilings.copy_bytes_per_s}
