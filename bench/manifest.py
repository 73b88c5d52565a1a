"""Protocol, Settings, Environment, Manifest: what a run was asked for, and where it ran. No torch, no kernels."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from . import privacy
from .comparison import Comparison
from .records import Case

SCHEMA_VERSION = 2
"""1: the cases of a run are those of its manifest. 2: its journal may add some."""


class Protocol(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often: one named way of sampling."""

    name: str
    min_samples: int
    target: float
    """Half-width of the median's interval at which sampling stops, as a fraction."""
    min_total_s: float
    cap_s: float
    warmup_s: float
    """Busy time before the first sample."""
    warmup_agreement: float
    """The last three warm-up windows must agree within this fraction."""
    warmup_cap_s: float
    rounds: int | None = None
    """So many rounds, whatever the samples look like; fewer once a kernel has been busy for `cap_s`. None: `target` decides."""
    leg_s: float = 0.1
    """A leg is one kernel's share of a round: about this long, so that a round sees one state of the machine."""
    samples_per_leg: int = 5
    """At most."""


PROTOCOLS = {
    "smoke": Protocol(
        name="smoke", min_samples=10, target=0.03, min_total_s=0.0, cap_s=1.0, warmup_s=0.1, warmup_agreement=0.05, warmup_cap_s=0.5
    ),
    "default": Protocol(
        name="default", min_samples=20, target=0.015, min_total_s=0.2, cap_s=3.0, warmup_s=0.2, warmup_agreement=0.02, warmup_cap_s=1.5
    ),
    "full": Protocol(
        name="full", min_samples=30, target=0.005, min_total_s=0.5, cap_s=15.0, warmup_s=0.2, warmup_agreement=0.005, warmup_cap_s=3.0
    ),
    # comparisons: what counts is the difference within a round, and how it varies from process to process
    "paired": Protocol(
        name="paired",
        min_samples=5,
        target=1e9,
        min_total_s=0.0,
        cap_s=3.0,
        warmup_s=0.15,
        warmup_agreement=0.02,
        warmup_cap_s=1.0,
        rounds=15,
        leg_s=0.03,
        samples_per_leg=20,
    ),
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the user chose, and every limit that applied."""

    protocol: Protocol
    processes: int = 1
    seed: int = 0
    energy: Literal["auto", "off", "on"] = "auto"
    refine_crossovers: bool = False
    """Whether lengths are added after the plan, to find where the fastest kernel changes."""
    budget_s: float | None = None
    threads: int = 1
    build_timeout_s: float = 180.0
    call_timeout_s: float = 30.0
    presets: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    """File names (never paths) of --load plugins."""
    command: str = ""
    """The command line that reproduces this run, scrubbed."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and its software, scrubbed of host, user, paths and serials."""

    device: str
    """"cpu" or "cuda:0"."""
    device_name: str
    os: str
    python: str
    versions: dict[str, str]
    """Of every package that measures: torch, triton, onnxruntime, …"""
    cpu_name: str
    cpu_cores: int
    cpu_features: tuple[str, ...]
    memory_bytes: int
    threads: int
    gpu: dict[str, Any] | None = None
    """Driver, CUDA, power limit, clocks and whether they are locked; None without a GPU."""
    worker_settings: dict[str, str] = {}
    """Environment variables that every worker starts with so that kernels leave their neighbours alone."""
    commit: str | None = None
    """Of the kerneldyno checkout, "-dirty" appended when it was changed."""

    def __post_init__(self) -> None:
        """Whoever described the GPU, or wrote the file that is read: what names one piece of hardware is not kept."""
        if self.gpu is not None:
            msgspec.structs.force_setattr(self, "gpu", privacy.of_hardware(self.gpu))

    @property
    def fingerprint(self) -> str:
        """Equal when two runs may be compared; never contains a measured quantity."""
        gpu = {key: self.gpu[key] for key in ("driver_major", "cuda", "power_limit_w") if self.gpu and key in self.gpu}
        key = [
            self.device, self.device_name, self.python.rsplit(".", 1)[0], sorted(self.versions.items()), self.cpu_name,
            self.cpu_cores, self.cpu_features, self.threads, sorted(gpu.items()), sorted(self.worker_settings.items()),
        ]  # fmt: skip
        return hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:16]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of a run, written before anything is measured."""

    schema: int = SCHEMA_VERSION
    version: str
    """Of kerneldyno."""
    created: str
    """ISO 8601, UTC."""
    settings: Settings
    environment: Environment
    cases: list[Case]
    skipped: dict[str, str] = {}
    """Case id -> why it will not be measured, in a sentence."""
    comparison: Comparison | None = None
    """What is compared with what; None for a sweep."""
    sources: dict[str, str] = {}
    """Kernel name -> hash of the source that defines it: a resumed run with other sources is refused."""
