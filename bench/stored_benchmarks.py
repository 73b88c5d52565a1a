"""The stored benchmarks that a test session is compared with: whether they were measured on this machine. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import environment, pytest_json

if TYPE_CHECKING:
    from .manifest import Environment

WHAT_TO_DO = "compare on the machine that stored them, or store new ones here with --benchmark-save"
DIFFERENCES_TOLD = 4


@dataclass
class StoredBenchmarks:
    """Where the stored benchmarks were measured, by test."""

    fingerprints: dict[str, set[str | None]] = field(default_factory=dict)
    """Node id -> where it was measured; None: not by kerneldyno."""
    environments: dict[str, Environment] = field(default_factory=dict)

    def add(self, compared: dict[str, Any], machine_info: dict[str, Any]) -> None:
        """Take in the content of a stored file; `machine_info` describes this session and is made to say the same.

        Raises ValueError, with a sentence, when kernels in it were measured on another machine.
        """
        for bench in compared["benchmarks"]:
            self.fingerprints.setdefault(bench["fullname"], set()).add((bench.get("extra_info") or {}).get("fingerprint"))
        named = f"the stored benchmarks of {compared.get('datetime', 'an unknown day')}"
        try:
            stored = pytest_json.environments(compared["machine_info"])
        except ValueError as error:
            raise ValueError(f"{named} have a machine_info of kerneldyno that cannot be read ({error}): store new ones") from None
        if stored is None:
            return
        for one in stored:
            if reason := why_elsewhere(one):
                raise ValueError(f"{named} were measured elsewhere ({reason}): {WHAT_TO_DO}")
            self.environments[one.fingerprint] = one
        pytest_json.complete(machine_info, stored)

    def why_foreign(self, test: str, current: Environment) -> str | None:
        """Why the stored numbers of a test say nothing about what will be measured now; None when there are none, or they do."""
        for fingerprint in sorted(self.fingerprints.get(test, set()) - {current.fingerprint}, key=str):
            if fingerprint is None:
                return f"the stored numbers of {test} were not measured by kerneldyno: {WHAT_TO_DO}"
            known = self.environments.get(fingerprint)
            reason = _told(pytest_json.differing(known, current)) if known else f"fingerprint {fingerprint}"
            return f"the stored numbers of {test} were measured elsewhere ({reason}): {WHAT_TO_DO}"
        return None


def why_elsewhere(stored: Environment) -> str | None:
    """What tells this machine, used as in the stored environment, from that one; None when nothing does."""
    try:
        device = environment.choose(stored.device)
    except environment.DeviceError as error:
        return f"on {stored.device_name}; here {error}"
    found = pytest_json.differing(stored, environment.describe(device, stored.threads))
    return _told(found) if found else None


def _told(found: list[str]) -> str:
    more = f"; and {len(found) - DIFFERENCES_TOLD} more" if len(found) > DIFFERENCES_TOLD else ""
    return "; ".join(found[:DIFFERENCES_TOLD]) + more
