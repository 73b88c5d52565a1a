"""One configuration compiled to machine code for a GPU that is not there. Triton is imported inside functions only.

Whether Triton compiles or interprets is decided by TRITON_INTERPRET before it is imported: `pool` does this in processes of its own.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerneldyno.kernels.registry import plugin_module

from . import facts

if TYPE_CHECKING:
    from types import ModuleType

    from kerneldyno.kernels._code import Configuration

    from .facts import Facts

KERNELS = "kerneldyno.kernels"
FILES = "kerneldyno_codegen_"
"""Modules of files given from outside are named so."""


class Mismatch(Exception):
    """A configuration does not fit its kernel; the message says which argument."""


def prepare() -> None:
    """Import what takes seconds, once in a process. Raises ImportError where it is not installed."""
    for name in ("triton", "torch"):
        importlib.import_module(name)


def compiled(configuration: Configuration, package: str = KERNELS) -> Facts:
    """Compile and read the binary. Raises what `binary` raises."""
    made = binary(configuration, package)
    code, usage = (dumped(made.asm["cubin"], option) for option in ("-sass", "-res-usage"))
    return facts.read(
        code,
        usage,
        configuration,
        shared_bytes=int(made.metadata.shared),
        tensor_columns=int(getattr(made.metadata, "tmem_size", 0)),
        # some warps are added where a loop is specialized
        threads=32 * int(made.metadata.num_warps),
    )


def binary(configuration: Configuration, package: str = KERNELS) -> Any:
    """What Triton makes of it, with its cache; `package` holds the kernels, of whichever revision.

    Raises Mismatch for a configuration that leaves out an argument, and whatever Triton raises for what it cannot compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function, signature, constants, hints = _asked(configuration, package)
    source = _in_gluon(function, signature, constants, hints) if function.is_gluon() else ASTSource(function, signature, constants, hints)
    major, minor = configuration.capability
    options = {"num_warps": configuration.warps, "num_stages": configuration.stages}
    options |= {"maxnreg": configuration.registers} if configuration.registers else {}
    return triton.compile(source, target=GPUTarget("cuda", 10 * major + minor, 32), options=options)


def _asked(configuration: Configuration, package: str) -> tuple[Any, dict[str, str], dict[str, Any], dict[tuple[int], Any]]:
    """The function, its signature, constants and what is known of its arguments, as Triton's ASTSource takes them."""
    module, _, name = configuration.function.rpartition(":")
    function = getattr(_module(module, package), name)
    signature: dict[str, str] = {}
    hints: dict[tuple[int], Any] = {}
    for place, argument in enumerate(function.arg_names):
        if (argument in configuration.constants) == (argument in configuration.signature):
            raise Mismatch(f"{name}: argument {argument} has to be either among the constants or in the signature of the configuration")
        signature[argument] = configuration.signature.get(argument, "constexpr")
        if argument in configuration.aligned:
            hints[(place,)] = [["tt.divisibility", 16]]
    if unknown := (set(configuration.constants) | set(configuration.signature)) - set(function.arg_names):
        raise Mismatch(f"{name} has no argument {min(unknown)}")
    return function, signature, dict(configuration.constants), hints


def _in_gluon(function: Any, signature: dict[str, str], constants: dict[str, Any], hints: dict[tuple[int], Any]) -> Any:
    """What Triton compiles of a function in Gluon, whose descriptors lie in shared memory as products of warp groups want them."""
    from triton.experimental.gluon import language
    from triton.experimental.gluon._runtime import GluonASTSource

    types = {"bf16": language.bfloat16, "fp16": language.float16, "fp32": language.float32, "i8": language.int8}
    full = dict(signature)
    for name, kind in signature.items():
        if found := re.fullmatch(r"tensordesc<(\w+)\[([\d, ]+)\]>", kind):
            block = [int(size) for size in found[2].split(",")]
            full[name] = f"{kind[:-1]},{language.NVMMASharedLayout.get_default_for(block, types[found[1]])!r}>"
    return GluonASTSource(function, full, constants, hints)


def _module(name: str, package: str) -> ModuleType:
    """A module of the package, or a file that was given from outside."""
    if not name.endswith(".py"):
        return importlib.import_module(f"{package}.{name}")
    known = sys.modules.get(f"{FILES}{Path(name).stem}")
    return known if known is not None and known.__file__ == name else plugin_module(Path(name), prefix=FILES)


def dumped(cubin: bytes, option: str) -> str:
    """What cuobjdump writes of a binary: "-sass" its instructions, "-res-usage" its registers and memory."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
