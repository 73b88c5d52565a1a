"""A made-up run with everything that the reports must be able to show, hostile names included."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kerneldyno.bench.entries import CeilingsFound, Measured, Session, SessionEnd
from kerneldyno.bench.journal import Journal, Run, read
from kerneldyno.bench.manifest import PROTOCOLS, Environment, Manifest, Settings
from kerneldyno.bench.records import Case, Ceilings, Clocks, Distance, Energy, Errors, Measurement, Process, Warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

HOSTILE = "<script>alert(1)</script>"
CEILINGS = Ceilings(
    matmul_flops_per_s={"float32": 1.5e11, "bfloat16": 2.9e11}, copy_bytes_per_s=2.2e10, last_level_cache_bytes=32 * 2**20, device="cpu"
)
# kernel -> time relative to the baseline at a long sequence
KERNELS = {
    "attention": {
        "eager": 2.9, "sdpa": 1.0, "sdpa_math": 2.2, "compiled": 1.7, "flex": 1.3, "fused": 1.0, "onnxrt": 1.1, "int8": 0.82,
        "pruned": 0.51, HOSTILE: 3.3,
    },
    "feedforward": {"eager": 1.12, "compiled": 1.0, "fused": 1.0, "onnxrt": 0.93, "int8": 0.31, "pruned": 0.53},
    "layer": {"eager": 1.5, "sdpa": 1.2, "compiled": 1.0, "torch": 1.04, "fused": 1.0, "onnxrt": 1.01, "int8": 0.5, "pruned": 0.6},
}  # fmt: skip
BASELINES = {"attention": "sdpa", "feedforward": "compiled", "layer": "compiled"}
GRID = [(1, 512), (1, 128), (1, 2048), (4, 512), (4, 128)]


def attention_shapes() -> Iterator[dict[str, Any]]:
    common = {"heads": 8, "kv_heads": 8, "head_dim": 64, "causal": False, "padding": False, "bias": "none"}
    for batch, length in GRID:
        yield common | {"batch": batch, "q_len": length, "kv_len": length, "dtype": "float32"}
    yield common | {"batch": 1, "q_len": 512, "kv_len": 512, "causal": True, "dtype": "float32"}
    yield common | {"batch": 4, "q_len": 1, "kv_len": 2048, "kv_heads": 2, "dtype": "float32"}
    yield common | {"batch": 1, "q_len": 512, "kv_len": 512, "dtype": "bfloat16"}


def other_shapes(operator: str) -> Iterator[dict[str, Any]]:
    own: dict[str, dict[str, Any]] = {
        "feedforward": {"activation": "relu", "norm": "layernorm", "gated": False, "bias": True},
        "layer": {"heads": 8, "mask": "none", "padding": False},
    }
    for batch, length in GRID:
        yield own[operator] | {"batch": batch, "seq_len": length, "dim": 512, "hidden_dim": 2048, "dtype": "float32"}


def make_case(operator: str, name: str, problem: dict[str, Any], device: str = "cpu", baseline: str | None = None) -> Case:
    length = max(problem.get("seq_len", 0), problem.get("q_len", 0), problem.get("kv_len", 0))
    tokens = problem["batch"] * problem.get("q_len", length)
    if operator == "attention":
        flops = 4 * problem["batch"] * 8 * problem["q_len"] * problem["kv_len"] * 64
        label = f"{problem['batch']}×8×{length}×64{' causal' * problem['causal']}{' structured' * problem.get('structured', False)}"
    else:
        flops, label = 4 * tokens * 512 * 2048, f"{problem['batch']}×{length} 512→2048"
    return Case(
        kernel=f"{operator}/{name}", family="sdpa" if name.startswith("sdpa") else name, operator=operator,
        problem=problem | {"direction": "forward"}, label=f"{label} {problem['dtype'].replace('float', 'fp')}", batch=problem["batch"],
        seq_len=length, tokens=tokens, dtype=problem["dtype"], direction="forward", device=device, seed=0, flops=flops,
        min_bytes=4 * tokens * 512 * 4 + 1024, approximate=name in {"int8", "pruned"},
        baseline=f"{operator}/{baseline or BASELINES[operator]}",
    )  # fmt: skip


def make_cases() -> list[Case]:
    shapes = {"attention": attention_shapes(), "feedforward": other_shapes("feedforward"), "layer": other_shapes("layer")}
    return [
        make_case(operator, name, problem) for operator, problems in shapes.items() for problem in problems for name in KERNELS[operator]
    ]


def make_process(median_s: float, seed: int, samples: int = 40, spread: float = 0.01) -> Process:
    """Samples around a median; the same round of two kernels shares its drift, as interleaving makes it."""
    own, drift = np.random.default_rng(seed), np.random.default_rng(99)
    taken = median_s * np.exp(0.03 * drift.standard_normal(samples) + spread * own.standard_normal(samples))
    return Process(samples_s=taken.tolist(), rounds=list(range(samples)), calls_per_sample=3, warmup_calls=20, warmup_s=0.2)


def measured(case: Case, relative: float, seed: int) -> Measurement:
    """An ok measurement at a time that grows with the work, with an overhead that small shapes feel."""
    least = CEILINGS.limit_s(case.flops, case.min_bytes, case.dtype) or 1e-4
    short = case.kernel.partition("/")[2]
    error = 3e-7 if case.dtype == "float32" else 4e-3
    far, cosine = (1.3e-2, 0.9999) if short == "int8" else (0.7, 0.72)
    return Measurement(
        case=case.id, status="ok", build_s=4.6 if short == "compiled" else 0.02, build_cache="cold",
        processes=[make_process(relative * (1.6 * least + 2e-5), seed)],
        peak_bytes=case.tokens * 2048 + (case.flops // 64 if short in {"eager", "sdpa_math"} else 0), peak_source="memray",
        weight_bytes=None if case.operator == "attention" else 8 * 2**20,
        energy=Energy(reason="this machine exposes no energy counter (RAPL)"), clocks=Clocks(temperature_c=None),
        errors=Errors(max_ratio=0.6, rms_ratio=0.4, max_abs=error * 3, relative_rms=error * (1 + seed % 5)),
        distance=Distance(relative_rms=far, cosine=cosine, max_abs=0.1) if case.approximate else None,
        warnings=[Warn("unstable", f"the warm-up windows did not settle: run longer {HOSTILE}")] if seed % 11 == 0 else [],
    )  # fmt: skip


def make_measurement(case: Case, number: int) -> Measurement | None:
    """What became of a case: every status occurs."""
    short = case.kernel.partition("/")[2]
    if short == "fused":
        return Measurement(case=case.id, status="skipped", reason="attention/fused needs a CUDA GPU: this machine has none")
    if short == "flex" and case.seq_len != 512:
        return Measurement(case=case.id, status="skipped", reason="flex is measured in the first two groups only: it is slow to build")
    odd: dict[int, Measurement | None] = {
        3: Measurement(case=case.id, status="wrong", reason="error ratio 5.2 (limit 8) in output", stderr_tail="…"),
        17: Measurement(case=case.id, status="failed", reason=f"RuntimeError: {HOSTILE} & \"quotes\" 'both'"),
        28: Measurement(case=case.id, status="timeout", reason="one call took longer than 30 s"),
        33: Measurement(case=case.id, status="invalid", reason="1.4 × the machine's matmul rate: the measurement cannot be right"),
        40: None,
    }
    if number in odd:
        return odd[number]
    relative = KERNELS[case.operator][short]
    return measured(case, relative * (1 + 0.5 / (1 + case.tokens / 300)) if short == "compiled" else relative, number)


def make_environment() -> Environment:
    return Environment(
        device="cpu", device_name="AMD EPYC 9R14", os="Linux 6.1", python="3.11.2", versions={"torch": "2.13.0", "onnxruntime": "1.30.0"},
        cpu_name="AMD EPYC 9R14", cpu_cores=2, cpu_features=("avx2", "avx512_vnni"), memory_bytes=24 * 2**30, threads=2,
        worker_settings={"MALLOC_TRIM_THRESHOLD_": "8589934592"}, commit="0123abc-dirty",
    )  # fmt: skip


def make_run(
    folder: Path, cases: list[Case], measurements: list[Measurement], ceilings: Ceilings | None = CEILINGS, ended: str = "finished"
) -> Path:
    """Write a run folder as the harness does."""
    manifest = Manifest(
        version="0.1.0", created="2026-11-23T19:20:00+00:00", environment=make_environment(), cases=cases,
        settings=Settings(protocol=PROTOCOLS["default"], threads=2, presets=("default",), command="kerneldyno run --preset default"),
    )  # fmt: skip
    journal = Journal.create(folder, manifest)
    journal.append(Session(started="2026-11-23T19:20:00+00:00"))
    if ceilings is not None:
        journal.append(CeilingsFound(ceilings))
    for measurement in measurements:
        journal.append(Measured(measurement))
    journal.append(SessionEnd(reason=ended, wall_s=412.0))  # type: ignore[arg-type]
    journal.close()
    return folder


@pytest.fixture(scope="session")
def rich_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with every status, two data types, decode, causal and a hostile plugin; do not write to it."""
    cases = make_cases()
    made = [measurement for number, case in enumerate(cases) if (measurement := make_measurement(case, number))]
    return make_run(tmp_path_factory.mktemp("runs") / "rich", cases, made)


@pytest.fixture(scope="session")
def rich(rich_folder: Path) -> Run:
    return read(rich_folder)


@pytest.fixture
def rich_copy(rich_folder: Path, tmp_path: Path) -> Path:
    """A copy of the rich run folder that a test may write to."""
    return Path(shutil.copytree(rich_folder, tmp_path / "rich"))


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """The functions that make the parts of a run, for tests that need a run of their own."""
    return SimpleNamespace(
        case=make_case,
        process=make_process,
        measured=measured,
        run=make_run,
        ceilings=CEILINGS,
        hostile=HOSTILE,
        attention=list(attention_shapes()),
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, for modules marked `browser`."""
    from playwright.sync_api import sync_playwright

    from .browsing import CHROMIUM

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """Opens the module's `address`; at the end asserts that the console stayed silent and nothing was fetched."""
    said: list[str] = []
    asked: list[str] = []
    contexts: list[Any] = []

    def opened(width: int = 1440, **settings: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} <= {address}
