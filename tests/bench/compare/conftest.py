"""Comparisons of made-up measurements: what is decided of them can be known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from kerneldyno.bench.comparison import Cell, Comparison, Side, Terms
from kerneldyno.bench.entries import Measured, Session, SessionEnd
from kerneldyno.bench.journal import Journal, Run, read
from kerneldyno.bench.manifest import PROTOCOLS, Environment, Manifest, Settings
from kerneldyno.bench.records import Case, Distance, Energy, Errors, Measurement, Process

BASE_S = 1e-3
KERNELS = ("attention/one", "attention/two", "attention/three", "attention/four", "attention/five")


def make_case(kernel: str, side: str = "", seq_len: int = 128) -> Case:
    return Case(
        kernel=kernel, family=kernel.partition("/")[2], operator="attention", problem={"batch": 1, "q_len": seq_len},
        label=f"1×8×{seq_len}×64", batch=1, seq_len=seq_len, tokens=seq_len, dtype="float32", direction="forward", device="cpu", seed=0,
        flops=10**9, min_bytes=10**6, approximate=False, baseline="attention/sdpa", side=side,
    )  # fmt: skip


def make_measurement(
    case: Case, ratio: float = 1.0, *, processes: int = 8, scatter: float = 0.004, seed: int = 0, worker: int = 1, **more
) -> Measurement:
    """Every process as slow as `ratio` says, give or take `scatter`; processes of one number share what drifts."""
    found = []
    for number in range(processes):
        drift, own = np.random.default_rng([1, number]), np.random.default_rng([seed, number, len(case.side)])
        level = BASE_S * ratio * np.exp(0.05 * drift.standard_normal() + scatter * own.standard_normal())
        noise = np.exp(0.002 * own.standard_normal(15))
        found.append(Process(worker=worker + number, samples_s=(level * noise).tolist(), rounds=list(range(15))))
    plain = {
        "peak_bytes": 10**7,
        "peak_source": "memray",
        "errors": Errors(max_ratio=0.5, rms_ratio=0.4, max_abs=1e-6, relative_rms=1e-7),
        "energy": Energy(reason="this machine exposes no energy counter (RAPL)"),
    }
    return Measurement(case=case.id, status="ok", processes=found, **{**plain, **more})


def make_manifest(cases: list[Case], comparison: Comparison | None = None, **more) -> Manifest:
    environment = Environment(
        device="cpu", device_name="a processor", os="Linux", python="3.11.2", versions={"torch": "2.13.0"}, cpu_name="a processor",
        cpu_cores=2, cpu_features=("avx2",), memory_bytes=2**34, threads=2, commit="abc",
    )  # fmt: skip
    settings = Settings(protocol=PROTOCOLS["paired"], command="kerneldyno compare --base main", **more)
    return Manifest(
        version="0.1.0", created="2026-11-25T01:02:03+00:00", settings=settings, environment=environment, cases=cases, comparison=comparison
    )


class Made:
    """A comparison being made up: cells are added with what is measured of each side."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self.cases: list[Case] = []
        self.measurements: dict[str, Measurement] = {}

    def cell(self, kernel: str, base: Measurement | float | None, candidate: Measurement | float | None, copy: float | None = None, **more):
        """A side is None (it has no such kernel), a ratio to the usual time, or a function of its case that gives a measurement."""
        ids = {}
        for side, given in (("base", base), ("candidate", candidate), ("copy", copy)):
            if given is None:
                continue
            case = make_case(kernel, side)
            self.cases.append(case)
            ids[side] = case.id
            measurement = given(case) if callable(given) else make_measurement(case, given, seed=len(self.cases))
            if measurement is not None:
                self.measurements[case.id] = measurement
        self.cells.append(
            Cell(
                id=f"cell of {kernel}", operator="attention", base_kernel=kernel, candidate_kernel=kernel, label="1×8×128×64", device="cpu",
                reason=None if len(ids) > 1 else f"there is no {kernel}", **{**ids, **more},
            )
        )  # fmt: skip
        return self

    def comparison(self, **terms) -> Comparison:
        sides = Side(label="main", commit="a" * 40), Side(label="worktree", commit="b" * 40 + "-dirty")
        return Comparison(form="commits", base=sides[0], candidate=sides[1], cells=self.cells, terms=Terms(**terms))

    def run(self, ended: str | None = "finished", budget_s: float | None = None, **terms) -> Run:
        run = Run("a-run", make_manifest(self.cases, self.comparison(**terms), budget_s=budget_s))
        run.measurements = dict(self.measurements)
        run.ended = SessionEnd(reason=ended, wall_s=12.0) if ended else None
        return run

    def write(self, folder, ended: str = "finished", **terms) -> Run:
        with Journal.create(folder, make_manifest(self.cases, self.comparison(**terms))) as journal:
            journal.append(Session("2026-11-25T01:02:03+00:00"))
            for measurement in self.measurements.values():
                journal.append(Measured(measurement))
            journal.append(SessionEnd(reason=ended, wall_s=12.0))
        return read(folder)


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def measuring():
    """The maker of measurements, for sides that are not plain ratios."""
    return make_measurement


@pytest.fixture
def casing():
    return make_case


@pytest.fixture
def manifesting():
    return make_manifest


@pytest.fixture
def far():
    return Distance(relative_rms=0.01, cosine=0.99, max_abs=0.1)
