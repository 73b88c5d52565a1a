"""Machine code of a product of 128×128×64 tiles in bfloat16, as cuobjdump wrote it, less the encoding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kerneldyno.bench.codegen import sass
from kerneldyno.kernels._code import Configuration

SASS = Path(__file__).with_name("sass")


@pytest.fixture
def written() -> Callable[[str], str]:
    """What cuobjdump wrote of the product for a card."""
    return lambda arch: (SASS / f"product_{arch}.sass").read_text(encoding="utf-8")


@pytest.fixture
def code(written: Callable[[str], str]) -> Callable[[str], list[sass.Instruction]]:
    """The instructions of the product for a card."""
    return lambda arch: list(sass.parse(written(arch)))


@pytest.fixture
def configuration() -> Callable[..., Configuration]:
    """One that nothing is compiled of."""

    def make(**changes: object) -> Configuration:
        fields = {
            "function": "attention._prefill_triton:prefill_kernel",
            "capability": (9, 0),
            "dtype": "bfloat16",
            "size": "head_dim 64",
            "variant": "plain",
            "tile": "128×128",
            "signature": {},
            "constants": {},
            "aligned": frozenset(),
            "warps": 8,
            "stages": 3,
        }
        return Configuration(**fields | changes)  # type: ignore[arg-type]

    return make
