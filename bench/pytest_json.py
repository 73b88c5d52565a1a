"""What pytest-benchmark's JSON says about a machine and about one measured case; and whether two machines are the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from . import privacy, stats
from .manifest import PROTOCOLS, Environment, Manifest, Settings
from .matching import differences

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .records import Case, Measurement

KEY = "kerneldyno"
"""Under which `machine_info` holds the environments that kernels were measured in."""
PRIVATE = ("node",)
"""What pytest-benchmark says of a machine and nobody needs: the host's name."""


def complete(machine_info: dict[str, Any], environments: Iterable[Environment]) -> None:
    """Add the environments, each with its fingerprint, to pytest-benchmark's description of the machine; take out the host."""
    machine_info[KEY] = [_plain(environment) | {"fingerprint": environment.fingerprint} for environment in environments]
    for name in PRIVATE:
        machine_info.pop(name, None)


def environments(machine_info: Mapping[str, Any]) -> list[Environment] | None:
    """The environments in a stored description; None when kerneldyno had no part in it.

    Raises ValueError when they cannot be read: another version wrote them, or something else did.
    """
    if KEY not in machine_info:
        return None
    return msgspec.convert(machine_info[KEY], type=list[Environment])


def differing(stored: Environment, current: Environment) -> list[str]:
    """What makes measurements in two environments incomparable, as "what: stored there, current here"."""
    return differences(_nothing_planned(stored), _nothing_planned(current)) if stored.fingerprint != current.fingerprint else []


def group(case: Case) -> str:
    """The problem, for tables that compare the kernels of one."""
    return f"{case.operator} {case.label}"


def extra_info(case: Case, measurement: Measurement, manifest: Manifest) -> dict[str, Any]:
    """Everything about a measured case that pytest-benchmark has no place for: plain values, per call, None where not measured."""
    processes = [process for process in measurement.processes if process.samples_s]
    median = stats.latency(processes)
    return {
        "kernel": case.kernel,
        "operator": case.operator,
        "problem": case.problem,
        "label": case.label,
        "device": case.device,
        "seed": case.seed,
        "approximate": case.approximate,
        "status": measurement.status,
        "identity": privacy.scrubbed(measurement.identity),
        "protocol": manifest.settings.protocol.name,
        "processes": len(processes),
        "calls_per_sample": [process.calls_per_sample for process in processes],
        "latency_s": median.estimate,
        "latency_low_s": _finite(median.low),
        "latency_high_s": _finite(median.high),
        "interval_kind": "over_processes" if len(processes) >= stats.MIN_PROCESSES else "within_process",
        "build_s": measurement.build_s,
        "peak_bytes": measurement.peak_bytes,
        "peak_source": measurement.peak_source,
        "weight_bytes": measurement.weight_bytes,
        "leak_bytes": measurement.leak_bytes,
        **{name: privacy.scrubbed(_plain(getattr(measurement, name))) for name in ("errors", "distance", "energy", "warnings")},
        "fingerprint": manifest.environment.fingerprint,
        "kerneldyno": manifest.version,
    }


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _nothing_planned(environment: Environment) -> Manifest:
    return Manifest(version="", created="", settings=Settings(protocol=PROTOCOLS["default"]), environment=environment, cases=[])
