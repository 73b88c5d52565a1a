"""One configuration compiled to machine code for a GPU that is not there. Triton is imported inside functions only.

Whether Triton compiles or interprets is decided by TRITON_INTERPRET before it is imported: `pool` does this in processes of its own.
"""

from __future__ import annotations

import importlib
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
    """Compile, with Triton's cache, and read the binary; `package` holds the kernels, of whichever revision.

    Raises Mismatch for a configuration that leaves out an argument, and whatever Triton raises for what it cannot compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(*_asked(configuration, package))
    major, minor = configuration.capability
    options = {"num_warps": configuration.warps, "num_stages": configuration.stages}
    made = triton.compile(source, target=GPUTarget("cuda", 10 * major + minor, 32), options=options)
    code, usage = (_dumped(made.asm["cubin"], option) for option in ("-sass", "-res-usage"))
    return facts.read(
        code,
        usage,
        configuration,
        shared_bytes=int(made.metadata.shared),
        tensor_columns=int(getattr(made.metadata, "tmem_size", 0)),
        # some warps are added where a loop is specialized
        threads=32 * int(made.metadata.num_warps),
    )


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


def _module(name: str, package: str) -> ModuleType:
    """A module of the package, or a file that was given from outside."""
    if not name.endswith(".py"):
        return importlib.import_module(f"{package}.{name}")
    known = sys.modules.get(f"{FILES}{Path(name).stem}")
    return known if known is not None and known.__file__ == name else plugin_module(Path(name), prefix=FILES)


def _dumped(cubin: bytes, option: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
