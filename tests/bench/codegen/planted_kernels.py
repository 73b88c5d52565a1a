"""A plain matrix product in Triton, in forms that may and that must not be offered: given to codegen with --load."""

import os
import subprocess
import sys
from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from kerneldyno.kernels._code import Configuration, signature
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import Run, Setup, kernel


@triton.jit
def product_kernel(
    p_x, p_w, p_y, K, s_x, s_w, s_y, BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """y [BT, BN] = x [BT, K] w [K, BN]"""
    o_t, o_n, o_k = tl.arange(0, BT), tl.arange(0, BN), tl.arange(0, BK)
    b_y = tl.zeros([BT, BN], tl.float32)
    for k in range(0, K, BK):
        b_x = tl.load(p_x + o_t[:, None] * s_x + (k + o_k)[None, :])
        b_w = tl.load(p_w + (k + o_k)[:, None] * s_w + o_n[None, :])
        b_y = tl.dot(b_x, b_w, b_y, input_precision=PRECISION)
    tl.store(p_y + o_t[:, None] * s_y + o_n[None, :], b_y.to(p_y.dtype.element_ty))


def form(capability, variant, name="product_kernel", dtype="bfloat16", cut=(128, 128, 64), warps=8, stages=3, **more) -> Configuration:
    fixed = {**dict(zip(("BT", "BN", "BK"), cut, strict=True)), "PRECISION": "ieee"}
    found = signature("p_x p_w p_y K s_x s_w s_y", fixed, dtype)
    return Configuration(
        function=f"{__file__}:{name}",
        capability=capability,
        dtype=dtype,
        size="one",
        variant=variant,
        tile=f"{'×'.join(map(str, cut))} w{warps} s{stages}",
        signature=found | more.pop("signature", {}),
        constants=fixed,
        aligned=frozenset(found),
        warps=warps,
        stages=stages,
        **more,
    )


def forms(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Those that are right are the representative ones."""
    yield form(capability, "right", representative=True)
    yield form(capability, "few rows", cut=(16, 64, 64), warps=4, instruction="HMMA", representative=True)
    yield form(capability, "exact", dtype="float32", cut=(64, 32, 32), warps=4, tensor_cores=False, representative=True)
    yield form(capability, "too large", cut=(128, 256, 128), stages=4)
    yield form(capability, "spills", cut=(128, 256, 32), warps=4, stages=2)
    yield form(capability, "no tensor cores", dtype="float32", cut=(64, 32, 32), warps=4)
    yield form(capability, "no warp groups", cut=(16, 64, 64), warps=4)
    yield form(capability, "impossible", cut=(100, 64, 64))
    yield form(capability, "an argument too many", signature={"p_z": "*bf16"})
    yield form(capability, "crashes", name="crash")
    yield form(capability, "hangs", name="hang")


def __getattr__(name: str) -> None:
    """What is asked of this module where it is compiled."""
    if name == "crash":
        os._exit(7)
    if name == "hang":
        # as Triton waits for the assembler; the last word tells whose it is
        subprocess.run([sys.executable, "-c", "import time; time.sleep(600)", os.environ["TRITON_CACHE_DIR"]], check=True)
    raise AttributeError(name)


@kernel(FeedForward, name="planted", devices=("cuda",), requires=("triton",), device_code=forms)
def planted(problem: FeedForward, setup: Setup) -> Run:
    """Nobody runs it."""
    return lambda inputs: torch.empty(0)
