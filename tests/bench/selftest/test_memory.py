"""Known amounts planted in right kernels: what the harness's own step counts for them, and for every kernel of the project."""

from __future__ import annotations

import os
from functools import partial

import pytest
import torch

from kerneldyno.bench.records import Measurement
from kerneldyno.bench.selftest import allocating, library, memory
from kerneldyno.bench.selftest.allocating import MIB, PROBLEM, around
from kerneldyno.bench.selftest.findings import Control, Finding, tally
from kerneldyno.kernels import registry
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.layer.problem import Layer
from kerneldyno.kernels.registry import Device, Setup

CPU = torch.device("cpu")
KERNELS = registry.load()
SMALL = {
    "attention": [
        Attention(batch=2, heads=4, kv_heads=2, q_len=48, head_dim=32, causal=True, padding=True),
        Attention(batch=2, heads=2, q_len=48, head_dim=32, direction="backward"),
    ],
    "feedforward": [FeedForward(batch=2, seq_len=24, dim=64, hidden_dim=128)],
    "layer": [Layer(batch=2, seq_len=24, dim=64, heads=2, hidden_dim=128)],
}
COMPILES = {"compiled", "flex"}
pytestmark = [  # raised by inductor's own code
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]


def misses(found: list[Finding | Control]) -> list[Finding]:
    """What must have been caught and was not."""
    return [item for item in found if isinstance(item, Finding) and item.must and item.caught is False]


def alarms(found: list[Finding | Control]) -> list[Control]:
    """What was right and called wrong."""
    return [item for item in found if isinstance(item, Control) and item.alarm]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def compiler():
    try:
        library.library()
    except library.NoLibrary as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have a C compiler: {error}")
        pytest.skip(str(error))


def test_the_planted_kernels_compute_attention(compiler):
    inputs = PROBLEM.inputs(0)
    for known in memory.known_on(CPU):
        out = known.kernel.build(PROBLEM, Setup(CPU, None, PROBLEM.inputs(1)))(inputs)
        torch.testing.assert_close(out.double(), PROBLEM.reference(inputs), rtol=1e-5, atol=1e-5)


def test_in_short_everything_that_must_be_found_is_found_and_nothing_else(compiler):
    found = list(memory.findings(short=True))
    assert [item.plant for item in misses(found)] == []
    assert [item.what for item in alarms(found)] == []
    planted = {item.plant for item in found if isinstance(item, Finding) and item.caught}
    for kind in (
        "torch: 512 MiB",
        "numpy: 16 MiB",
        "ONNX Runtime: 16 MiB",
        "library: 16 MiB, mmap",
        "leak: torch",
        "leak: numpy",
        "leak: library",
    ):
        assert any(plant.startswith(kind) for plant in planted), kind
    assert {item.what for item in found if isinstance(item, Control)} >= {"no leak: attention/sdpa", "no leak: numpy: 16 MiB"}


@pytest.mark.slow
def test_everything_that_must_be_found_is_found(compiler):
    found = list(memory.findings(short=False))
    assert [(item.plant, item.said) for item in misses(found)] == []
    assert [(item.what, item.said) for item in alarms(found)] == []
    result = tally(memory.SECTION, found)
    assert result.planted >= 35
    assert not result.failed


def test_a_count_that_is_off_is_a_miss_and_a_leak_that_nobody_planted_an_alarm(monkeypatch):
    """The self-test of the self-test: a harness that counts half and sees leaks everywhere fails it."""

    def halved(kernel, device, problem=PROBLEM):
        measured = honest(kernel, device, problem)
        measured.peak_bytes //= 2
        measured.leak_bytes += 5
        return measured

    honest = memory.counted
    monkeypatch.setattr(memory, "counted", halved)
    known = next(known for known in memory.known_on(CPU) if known.plant == "torch: 16 MiB")
    finding, control = memory._tried(known, CPU)
    assert finding.caught is False
    assert control.alarm is True


def test_what_cannot_be_tried_says_why(monkeypatch):
    def missing():
        raise library.NoLibrary("there is no C compiler")

    monkeypatch.setattr(library, "library", missing)
    (finding,) = memory._tried(allocating.in_c("plant", MIB, 0, "within_call", MIB), CPU)
    assert finding.caught is None
    assert finding.said == "there is no C compiler"
    (finding,) = memory._tried(allocating.Known("plant", around(partial(allocating.at_once, 1, MIB), devices=("cuda",)), MIB), CPU)
    assert finding.caught is None
    assert finding.said == "runs on cuda only, not on cpu"


def test_where_nothing_can_be_measured_nothing_is_missed(monkeypatch):
    blind = Measurement(case="", status="ok", peak_source="not measured: memray is not installed")
    monkeypatch.setattr(memory, "counted", lambda kernel, device: blind)
    (finding,) = memory._tried(next(iter(memory.known_on(CPU))), CPU)
    assert finding.caught is None
    assert finding.said == blind.peak_source


def test_a_leak_is_a_column_and_a_warning_that_says_how_much_and_what_to_do():
    kernel = around(lambda device: allocating.keeping(None, device))
    measured = memory.counted(kernel, CPU)
    assert measured.leak_bytes == pytest.approx(4 * MIB, rel=0.001)
    (warning,) = measured.warnings
    assert warning.code == "leak"
    assert warning.text.startswith(f"{measured.leak_bytes} bytes of every call stay allocated")
    assert "look for" in warning.text


def leakless():
    for name, kernel in KERNELS.items():
        for problem in SMALL[kernel.operator]:
            if kernel.why_not(problem, Device("cpu")) is None:
                marks = [pytest.mark.slow] if kernel.family in COMPILES else []
                yield pytest.param(name, problem, id=f"{name}-{problem.direction}", marks=marks)


@pytest.mark.parametrize(("name", "problem"), list(leakless()))
def test_no_kernel_of_the_project_is_called_leaking(name, problem):
    measured = memory.counted(KERNELS[name], CPU, problem)
    assert measured.leak_bytes == 0
    assert measured.peak_bytes > 0
    assert measured.warnings == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_known_amounts_on_a_gpu():
    device = torch.device("cuda:0")
    found = [item for known in memory.known_on(device) for item in memory._tried(known, device)]
    assert [(item.plant, item.said) for item in misses(found)] == []
    assert [(item.what, item.said) for item in alarms(found)] == []
