"""Case, Measurement and what they are made of: plain data that is written to a run folder. No torch, no kernels.

A quantity ends in its SI unit and means *per call*. None means "not measured", never zero.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, Literal

import msgspec

Status = Literal["ok", "skipped", "wrong", "failed", "timeout", "invalid"]
STATUSES: tuple[Status, ...] = ("ok", "skipped", "wrong", "failed", "timeout", "invalid")
SideName = Literal["", "base", "candidate", "copy"]
Phase = Literal["start", "build", "check", "identify", "memory", "warmup", "timing", "energy", "recheck"]


class Case(msgspec.Struct, frozen=True, kw_only=True, dict=True):  # dict: room for what is cached, which is no field
    """Kernel x problem x device x seed: one row of the results."""

    kernel: str
    """"attention/fused"."""
    family: str
    """What kernels of different operators have in common: eager, sdpa, compiled, fused, onnxrt, int8, pruned, …"""
    operator: str
    problem: dict[str, Any]
    """Every field of the problem, as plain values."""
    label: str
    """The problem in a few characters, for people."""
    batch: int
    seq_len: int
    tokens: int
    """Query tokens worked on in one call."""
    dtype: str
    direction: str
    device: str
    """"cpu" or "cuda:0"."""
    seed: int
    flops: int
    min_bytes: int
    approximate: bool
    baseline: str
    """The kernel that this one's speedup is measured against."""
    side: SideName = ""
    """Of a comparison; empty in a sweep. "copy" is the base once more."""

    @property
    def entry(self) -> str:
        """Under which name a worker finds the kernel: two sides may have different kernels of one name."""
        return f"{self.side}:{self.kernel}" if self.side else self.kernel

    @property
    def id(self) -> str:
        """Stable over runs and machines: the key for resuming and joining."""
        return self._digests[0]

    @property
    def group(self) -> str:
        """Equal for the cases of one problem on one device, which are measured side by side."""
        return self._digests[1]

    @cached_property
    def _digests(self) -> tuple[str, str]:
        group = [self.operator, sorted(self.problem.items()), self.device, self.seed]
        one, all_of_them = (hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:16] for key in ([self.entry, *group], group))
        return one, all_of_them


class Errors(msgspec.Struct, frozen=True, kw_only=True):
    """How far an output is from float64, next to how far the naive formula in the same dtype is."""

    max_ratio: float
    """Largest absolute error divided by the naive formula's."""
    rms_ratio: float
    """Root-mean-square error divided by the naive formula's."""
    max_abs: float
    relative_rms: float
    """Root-mean-square error divided by the root-mean-square of the right answer."""
    tensor: str = "output"
    """Which tensor was worst: "output", or "grad q" and the like."""


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """How far an approximate kernel's output is from the exact result."""

    relative_rms: float
    cosine: float
    max_abs: float


class Warn(msgspec.Struct, frozen=True):
    """Something a reader should know about a number, and what to do about it."""

    code: str
    """unstable · few-samples · wide-interval · launch-gaps · disturbed · busy-threads · leak · energy · global-state …"""
    text: str


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Power and energy of one kernel, or the reason why there is none."""

    power_w: float | None = None
    """Mean board or package power while the kernel ran back to back."""
    energy_j: float | None = None
    """Gross joules per call."""
    net_energy_j: float | None = None
    """Joules per call above idle."""
    source: str | None = None
    """Which counter: "nvml power_instant (indicative)", "nvml total energy", "rapl package"."""
    reason: str | None = None
    """Why something above is None, or why the joules are not valid."""
    valid: bool | None = None
    """Whether the joules may be believed: enough counter updates, windows that agree, no throttling; None without joules."""
    windows_j: list[float] = []
    """Gross joules per call of each window, in the order in which they were taken."""
    updates: int | None = None
    """Counter updates seen, all windows together."""
    spread: float | None = None
    """Largest window less the smallest, divided by their mean."""
    edge_error: float | None = None
    """Largest share of a window's joules per call that its ends leave open: when the counter moved, calls done in part."""
    readings_ratio: float | None = None
    """Joules by the integral of power readings, divided by the counter's; None where there are no such readings."""
    idle_w: float | None = None
    """Mean power of the idle device before and after."""
    temperature_low_c: float | None = None
    """Lowest temperature at the start of a window."""
    temperature_high_c: float | None = None
    """Highest temperature at the start of a window."""
    throttled_share: float | None = None
    """Share of the windows' time during which the device held back."""


class Clocks(msgspec.Struct, frozen=True, kw_only=True):
    """What the device said of itself before and after the rounds."""

    before_mhz: float | None = None
    after_mhz: float | None = None
    temperature_c: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    dropped_rounds: int = 0


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """The samples of one worker process, in the order in which they were taken."""

    worker: int = 0
    """Counts the worker processes of a run, over its resumptions too. Samples are paired only where both worker and
    round are equal: only then were they taken side by side."""
    samples_s: list[float]
    """Seconds per call: device time on a GPU, wall-clock time on a CPU. The latency."""
    rounds: list[int]
    """The round in which each sample was taken; equal rounds of one group pair samples of different kernels."""
    host_samples_s: list[float] | None = None
    """End-to-end seconds per call seen by the host, where it differs from device time."""
    warm_samples_s: list[float] | None = None
    """Device seconds per call with a warm cache, where `samples_s` are cold (GPU)."""
    cold_samples_s: list[float] | None = None
    """Seconds of single calls with the caches emptied before, where `samples_s` are warm (CPU)."""
    calls_per_sample: int = 1
    warmup_calls: int = 0
    warmup_s: float = 0.0


class Measurement(msgspec.Struct, kw_only=True):
    """What came out of one case. Samples are stored; statistics are derived from them."""

    case: str
    """The case's id."""
    status: Status
    reason: str | None = None
    """A sentence, for every status but ok."""
    build_s: float | None = None
    build_cache: Literal["cold", "warm"] | None = None
    prepare_s: float | None = None
    prepare_bytes: int | None = None
    processes: list[Process] = []
    peak_bytes: int | None = None
    peak_source: str | None = None
    """Which counter `peak_bytes` came from, or why there is none."""
    weight_bytes: int | None = None
    energy: Energy | None = None
    identity: str | None = None
    """What was seen to run: the SDPA backend, the nodes and their execution provider, the integer product."""
    probes: dict[str, float] = {}
    """Structured probe of the gate -> error ratio that the kernel reached in it; more than in `errors` is allowed there."""
    left_out: dict[str, str] = {}
    """Probe -> why it was not made."""
    leak_bytes: int | None = None
    """Bytes per call that stay allocated from call to call, after the first ones; None: not measured."""
    errors: Errors | None = None
    """Against the float64 reference; for an approximate kernel, against what it claims to compute."""
    distance: Distance | None = None
    """Approximate kernels only: from the exact result."""
    clocks: Clocks | None = None
    warnings: list[Warn] = []
    phases_s: dict[str, float] = {}
    """Wall time spent on this case, by phase."""
    stderr_tail: str | None = None

    @property
    def samples_s(self) -> list[float]:
        """All latency samples, of all processes."""
        return [sample for process in self.processes for sample in process.samples_s]


class Ceilings(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine can do, measured at the start of the run."""

    matmul_flops_per_s: dict[str, float]
    """By dtype: the best of three sizes, random data, median."""
    copy_bytes_per_s: float
    """Bytes read plus bytes written."""
    last_level_cache_bytes: int | None = None
    device: str = ""

    def limit_s(self, flops: int, min_bytes: int, dtype: str) -> float | None:
        """The least time in which this machine could do it; None when the dtype's rate was not measured."""
        rate = self.matmul_rate(dtype)
        return None if not rate else max(flops / rate, min_bytes / self.copy_bytes_per_s)

    def matmul_rate(self, dtype: str) -> float | None:
        """Flop per second that a kernel may reach with inputs of this dtype; None when it was not measured.

        On a CPU the best of all dtypes counts: kernels there compute in another one where the processor is slow at this.
        """
        if self.device == "cpu" and dtype in self.matmul_flops_per_s:
            return max(self.matmul_flops_per_s.values())
        return self.matmul_flops_per_s.get(dtype)

    def best_of(self, other: Ceilings) -> Ceilings:
        """What was reached at either time: a machine that was busy during one of them can do what it did in the other."""
        both = self.matmul_flops_per_s.keys() | other.matmul_flops_per_s.keys()
        rates = {dtype: max(self.matmul_flops_per_s.get(dtype, 0.0), other.matmul_flops_per_s.get(dtype, 0.0)) for dtype in sorted(both)}
        return msgspec.structs.replace(self, matmul_flops_per_s=rates, copy_bytes_per_s=max(self.copy_bytes_per_s, other.copy_bytes_per_s))
