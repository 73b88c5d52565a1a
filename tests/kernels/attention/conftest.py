"""Problems to try kernels on, and the judgement of what comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import Gradients, Kernel, Run, Setup

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"causal": True},
    "padding": {"padding": True},
    "bias": {"bias": "additive"},
    "mask": {"bias": "boolean"},
    "grouped": {"kv_heads": 2, "causal": True},
    "one kv head": {"kv_heads": 1, "padding": True},
    "cross": {"kv_len": 101},
    "causal, more keys": {"kv_len": 101, "causal": True, "kv_heads": 2},
    "causal, blind queries": {"kv_len": 33, "causal": True},
    "decode": {"q_len": 1, "kv_len": 90, "causal": True, "padding": True, "kv_heads": 1},
    "single key": {"kv_len": 1},
    "window": {"window": 9},
    "window, causal": {"window": 9, "causal": True, "kv_heads": 2, "kv_len": 101},
    "window, padding, blind queries": {"window": 5, "padding": True},
    "softcap": {"softcap": 2.0, "causal": True},
    "ragged": {"q_len": 3, "kv_len": 101, "ragged": True, "causal": True, "kv_heads": 2},
    "ragged window": {"q_len": 4, "kv_len": 90, "ragged": True, "window": 20, "softcap": 5.0},
    "paged": {"q_len": 1, "kv_len": 90, "page_size": 16, "ragged": True, "kv_heads": 2},
    "paged prefill": {"kv_len": 101, "page_size": 24, "causal": True, "kv_heads": 2, "bias": "boolean"},
    "everything": {"kv_len": 101, "causal": True, "padding": True, "bias": "additive", "kv_heads": 2},
    "everything, mask": {"kv_len": 33, "causal": True, "padding": True, "bias": "boolean", "kv_heads": 2},
}
SIZES = {"batch": 2, "heads": 4, "q_len": 70, "head_dim": 32}
AWKWARD = (1, 127, 129, 1000)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Problems this small are slower on several threads, and much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments of a small Attention problem, dtype and direction left open."""
    return {**SIZES, **request.param}


@pytest.fixture(params=[name for name, fields in CASES.items() if "page_size" not in fields])
def backward_case(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments of a small Attention problem that has gradients, dtype left open."""
    return {**SIZES, **CASES[request.param], "direction": "backward"}


@pytest.fixture(params=AWKWARD)
def awkward(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A length that is no multiple of any tile."""
    return {"heads": 2, "kv_heads": 1, "q_len": request.param, "head_dim": 24, "causal": True}


def half_ulp(dtype: torch.dtype, scale: torch.Tensor) -> torch.Tensor:
    return torch.finfo(dtype).eps / 2 * scale


def assert_close(
    found: torch.Tensor, naive: torch.Tensor, right: torch.Tensor, exact: torch.Tensor | None = None, size: torch.Tensor | None = None
) -> None:
    """The error ratios of the measuring rules: `found` against `right`, as `naive` is against `exact`.

    Rounding is judged at the scale of `size`, by default `right`: a gradient of exactly 0 is a sum of larger numbers.
    """
    dtype = naive.dtype
    assert found.shape == naive.shape
    assert found.dtype == dtype
    assert found.isfinite().all()
    error, yardstick = found.double() - right, naive.double() - (right if exact is None else exact)
    limits = (8, 3) if dtype == torch.float32 else (2, 1.5)
    size = right if size is None else size
    scale = size.abs().max(), size.square().mean().sqrt()
    assert error.abs().max() <= limits[0] * torch.maximum(yardstick.abs().max(), half_ulp(dtype, scale[0]))
    assert error.square().mean().sqrt() <= limits[1] * torch.maximum(yardstick.square().mean().sqrt(), half_ulp(dtype, scale[1]))


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """Equal numbers, in the memory order of [batch, sequence, heads, head_dim]."""
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def built(kernel: Kernel, problem: Attention, device: str = "cpu") -> tuple[Run, Setup]:
    setup = Setup(torch.device(device), calibration=problem.inputs(99, device))
    return kernel.build(problem, setup), setup


def judged(kernel: Kernel, problem: Attention, inputs: AttentionInputs | None = None, device: str = "cpu") -> torch.Tensor:
    """Build and run; assert that the output is right and the inputs are as they were; return the output."""
    if lacking := sorted(problem.features - kernel.accepts):
        pytest.skip(f"{kernel.name} does not take {', '.join(lacking)}")
    run, setup = built(kernel, problem, device)
    inputs = problem.inputs(1, device) if inputs is None else inputs
    before = inputs.map(torch.clone)
    found = run(inputs)
    for name, tensor in inputs.tensors().items():
        assert torch.equal(tensor, before.tensors()[name]), f"{name} was changed"
    if isinstance(found, Gradients):
        gradients, naive = problem.gradients(inputs), problem.gradients(inputs, naive=True)
        assert_close(found.output, naive.output, gradients.output)
        for name in inputs.differentiable:
            assert_close(found.by_name[name], naive.by_name[name], gradients.by_name[name], size=gradients.by_name["v"])
        return found.output
    exact = problem.reference(inputs)
    right = kernel.claim(problem, setup, inputs) if kernel.claim else exact
    assert isinstance(found, torch.Tensor)
    assert_close(found, problem.naive(inputs), right, exact)
    memory = {tensor.untyped_storage().data_ptr() for tensor in inputs.tensors().values()}
    assert found.untyped_storage().data_ptr() not in memory
    return found


def judged_on_strides(kernel: Kernel, **more: Any) -> None:
    """Inputs in other memory orders: sequence before heads, expanded, every second row of something larger."""
    problem = Attention(**{**SIZES, "causal": True, **more})
    inputs = problem.inputs(1)
    judged(kernel, problem, inputs.map(lambda t: strided(t) if t.dim() == 4 else t))
    judged(kernel, problem, inputs.replace(k=inputs.k[:1, :1].expand(inputs.k.shape), v=inputs.v[:, :1].expand(inputs.v.shape)))
    shape, generator = (*inputs.q.shape[:2], 2 * problem.q_len, problem.head_dim), torch.Generator().manual_seed(3)
    wider = torch.randn(shape, generator=generator, dtype=inputs.q.dtype)
    judged(kernel, problem, inputs.replace(q=wider[:, :, ::2], k=inputs.k.mT.contiguous().mT))


class Noted:
    """Stands where a device kernel does, which nothing here could run, and notes what it would be compiled for."""

    def __init__(self) -> None:
        self.grid: tuple[int, ...] = ()
        self.arguments: tuple[Any, ...] = ()
        self.constants: dict[str, Any] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        self.grid = grid
        return self._launch

    def _launch(self, *arguments: Any, **constants: Any) -> None:
        self.arguments, self.constants = arguments, constants


@pytest.fixture(scope="session")
def noted_kernel() -> type[Noted]:
    """To be put in the place of device kernels."""
    return Noted


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """(script beside this file, *arguments, interpreted=…) -> what it prints, line by line, in a process and with a cache of its own.

    Whether Triton compiles or interprets is decided by the environment, before it is imported, and for good.
    """
    pytest.importorskip("triton")

    def tell(script: str, *arguments: str, interpreted: bool = False) -> list[dict[str, Any]]:
        variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        variables |= {"TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"} | ({"TRITON_INTERPRET": "1"} if interpreted else {})
        interpreter = [str(Path(__file__).parents[1] / "interpreted.py")] if interpreted else []
        command = [sys.executable, *interpreter, str(Path(__file__).with_name(script)), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return tell


@pytest.fixture
def judge() -> Callable[..., torch.Tensor]:
    return judged


@pytest.fixture
def judge_strides() -> Callable[..., None]:
    return judged_on_strides


@pytest.fixture
def build() -> Callable[..., tuple[Run, Setup]]:
    return built
