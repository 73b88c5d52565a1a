"""What the kernels of the backward pass are compiled for, in every form that they may be launched in. No torch and no Triton."""

from __future__ import annotations

from collections.abc import Iterator

from .._code import Configuration, signature

ACTIVATION = "feedforward._fused_backward:activation_gradient_kernel"
ACTIVATION_ARGUMENTS = "p_da p_h p_du p_dg p_bu p_bg T N"
NORM = "feedforward._fused_backward:norm_gradient_kernel"
NORM_ARGUMENTS = "p_x p_w p_dy p_r p_dx p_dw p_db s_x s_r T D eps"

ACTIVATION_TILE, ACTIVATION_WARPS = (32, 64), 4
"""Tokens and hidden neurons of one program."""
WIDEST = 8192
"""Numbers of a token whose gradient a program has room for: with twice as many it spills 84 to 1,020 registers' worth."""
DIMS = (64, 1024, 2048, 4096, WIDEST)
VARIANTS = {"relu, bias": ("relu", False, True), "gelu": ("gelu", False, False), "silu, gated": ("silu", True, False),
            "gelu_tanh, gated, bias": ("gelu_tanh", True, True), "gelu, gated, bias": ("gelu", True, True)}  # fmt: skip
"""Activation, gate, bias."""


def norm_gradient_constants(dim: int, *, centred: bool) -> tuple[dict[str, object], int, int]:
    """(what `norm_gradient_kernel` is compiled for, warps, programs for each multiprocessor); at most 16 numbers of a row for a thread."""
    block = 1 << (dim - 1).bit_length()
    warps = min(16, max(1, block // 512))
    return {"CENTRED": centred, "BD": block}, warps, max(1, min(4, 16 // warps))


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form that may be launched on a card."""
    for dtype in ("bfloat16", "float32"):
        for name, (activation, gated, bias) in VARIANTS.items():
            few = (dtype, name) == ("bfloat16", "gelu, gated, bias")
            yield _activation(capability, dtype, name, activation, gated=gated, bias=bias, representative=few)
        for dim in DIMS:
            for centred in (False, True):
                yield _norm(capability, dim, dtype, centred=centred)


def _activation(
    capability: tuple[int, int], dtype: str, variant: str, activation: str, *, gated: bool, bias: bool, representative: bool
) -> Configuration:
    fixed: dict[str, object] = {"ACTIVATION": activation, "GATED": gated, "BT": ACTIVATION_TILE[0], "BN": ACTIVATION_TILE[1]}
    given = {"p_dg": gated, "p_bu": bias, "p_bg": gated and bias}
    fixed |= {name: None for name, there in given.items() if not there}
    found = signature(ACTIVATION_ARGUMENTS, fixed, dtype, "", {"p_bu": "*fp32", "p_bg": "*fp32"})
    return Configuration(
        function=ACTIVATION,
        capability=capability,
        dtype=dtype,
        size="any",
        variant=variant,
        tile=f"{ACTIVATION_TILE[0]}×{ACTIVATION_TILE[1]} w{ACTIVATION_WARPS}",
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith("p_") or name == "N"),
        warps=ACTIVATION_WARPS,
        stages=3,
        tensor_cores=False,
        representative=representative,
    )


def _norm(capability: tuple[int, int], dim: int, dtype: str, *, centred: bool) -> Configuration:
    fixed, warps, _ = norm_gradient_constants(dim, centred=centred)
    absent = {} if centred else {"p_db": None}
    found = signature(NORM_ARGUMENTS, {**fixed, **absent}, dtype, "eps", {"p_dw": "*fp32", "p_db": "*fp32"})
    return Configuration(
        function=NORM,
        capability=capability,
        dtype=dtype,
        size=f"dim {dim}",
        variant="LayerNorm" if centred else "RMSNorm",
        tile=f"{fixed['BD']} w{warps}",
        signature=found,
        constants={**fixed, **absent},
        aligned=frozenset(name for name in found if name.startswith("p_") or name in ("s_x", "s_r", "D")),
        warps=warps,
        stages=3,
        tensor_cores=False,
        # before the loop: the assembler gives up a register or two where one more program then fits a multiprocessor
        spills_allowed=4,
        representative=(dim, dtype, centred) == (4096, "bfloat16", True),
    )
