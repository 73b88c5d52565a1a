"""JAX's attention on the CPU: right in every form, on torch's memory and as many threads, and seen to be XLA's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kerneldyno.kernels.attention.jax import jax as kernel
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, NotAsNamed, Setup, Trace

CPU = Device("cpu")
needs_jax = pytest.mark.skipif(kernel.missing(CPU) is not None, reason="JAX is not installed")
SMALL = {"batch": 2, "heads": 4, "kv_heads": 2, "q_len": 33, "head_dim": 16}

THREADS = """
import os, torch
torch.set_num_threads(3)
from kerneldyno.kernels.attention.jax import jax as kernel
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Setup
problem, before = Attention(q_len=8), dict(os.environ)
setup = Setup(torch.device("cpu"), calibration=problem.inputs(0))
def pool():
    tasks = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
    return sum(name.startswith("tf_XLAEigen") for name in tasks)
kernel.build(problem, setup)(problem.inputs(1))
print(pool(), {name: os.environ.get(name) for name in ("NPROC", "PJRT_NPROC")})
torch.set_num_threads(2)
run = kernel.build(problem, setup)
print(pool())
torch.set_num_threads(1)
kept, again = run(problem.inputs(1)), kernel.build(problem, setup)(problem.inputs(1))
print(torch.equal(kept, again))
"""
ABSENT = """
import sys
sys.modules["jax"] = None
from kerneldyno.kernels import registry
kernel = registry.load()["attention/jax"]
print(kernel.missing(registry.Device("cpu")))
"""


def printed(program: str, folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def live_executables() -> int:
    import jax

    return len(jax.devices("cpu")[0].client.live_executables())


@needs_jax
def test_right(case: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(kernel, Attention(**case))


@needs_jax
@pytest.mark.parametrize("more", [{"causal": True}, {"padding": True, "window": 5}, {"bias": "boolean", "kv_len": 20, "causal": True}])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_right_in_bfloat16(more: dict[str, Any], direction: str, judge: Callable[..., torch.Tensor]) -> None:
    judge(kernel, Attention(**SMALL, **more, dtype="bfloat16", direction=direction))


@needs_jax
def test_gradients(backward_case: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(kernel, Attention(**backward_case))


@needs_jax
def test_awkward_lengths(awkward: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(kernel, Attention(**awkward))


@needs_jax
def test_strides(judge_strides: Callable[..., None]) -> None:
    judge_strides(kernel)


@needs_jax
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_that_begins_anywhere(dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    """XLA wants multiples of 64 bytes, and copies what begins elsewhere."""

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
        place = room[1:].view(tensor.shape)
        assert place.data_ptr() % 64
        return place.copy_(tensor)

    problem = Attention(**SMALL, padding=True, bias="additive", dtype=dtype)
    judge(kernel, problem, problem.inputs(1).map(moved))


@needs_jax
def test_masks_that_stand_for_fewer_dimensions_than_those_it_was_built_with(judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**SMALL, bias="boolean", padding=True)
    mask = torch.rand(2, 4, 1, 33) < 0.5
    judge(kernel, problem, problem.inputs(1).replace(mask=mask))


@needs_jax
def test_each_call_has_an_output_of_its_own_that_outlives_the_kernel(build: Callable[..., Any]) -> None:
    problem = Attention(**SMALL)
    run, _ = build(kernel, problem)
    first = run(problem.inputs(0))
    kept = first.clone()
    second = run(problem.inputs(1))
    assert first.data_ptr() != second.data_ptr()
    del run
    assert torch.equal(first, kept)


@needs_jax
def test_calls_compile_nothing(build: Callable[..., Any]) -> None:
    problem = Attention(**SMALL, causal=True, dtype="bfloat16")
    run, _ = build(kernel, problem)
    before = live_executables()
    run(problem.inputs(0))
    run(problem.inputs(1))
    assert live_executables() == before


@needs_jax
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_jax_has_as_many_threads_as_torch_and_is_started_anew_where_it_had_others(tmp_path: Path) -> None:
    started, later, same = printed(THREADS, tmp_path)
    assert started == f"3 { ({name: os.environ.get(name) for name in ('NPROC', 'PJRT_NPROC')}) }"
    assert later == "2"
    assert same == "True"


def test_listed_where_jax_is_not_installed(tmp_path: Path) -> None:
    assert printed(ABSENT, tmp_path) == ["needs the Python package jax, which is not installed"]


@needs_jax
def test_the_judge_sees_the_executable_and_who_else_multiplied(build: Callable[..., Any]) -> None:
    problem = Attention(**{**SMALL, "q_len": 34})  # a shape of no other test, which might still hold an executable
    setup = Setup(torch.device("cpu"), calibration=problem.inputs(0))
    assert kernel.identified is not None
    run, _ = build(kernel, problem)
    assert kernel.identified(problem, setup, Trace()) == "XLA cpu: dot ×2"
    with pytest.raises(NotAsNamed, match="torch multiplied matrices"):
        kernel.identified(problem, setup, Trace(product_flops=8))
    with pytest.raises(NotAsNamed, match=r"compiled by torch\.compile"):
        kernel.identified(problem, setup, Trace(regions=1))
    other = Attention(**{**SMALL, "q_len": 35})
    with pytest.raises(NotAsNamed, match=r"no executable of dot_product_attention for \[2,4,35,16\] on cpu"):
        kernel.identified(other, Setup(setup.device, calibration=other.inputs(0)), Trace())
    del run
    with pytest.raises(NotAsNamed, match="holds no executable"):
        kernel.identified(problem, setup, Trace())


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if "cuda" in name else object())
    assert "not float16" in (kernel.why_not(Attention(q_len=8, dtype="float16"), CPU) or "")
    assert kernel.why_not(Attention(q_len=8, softcap=2.0), CPU) == "does not take softcap"
    assert "has no CUDA" in (kernel.why_not(Attention(q_len=8), Device("cuda", capability=(9, 0))) or "")
