"""The compiled library of allocations whose size is known: built from `allocations.c` where there is a C compiler."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("allocations.c")
COMPILERS = ("cc", "gcc", "clang")


class NoLibrary(Exception):
    """There is no such library here; the message says why."""


@cache
def library() -> ctypes.CDLL:
    """Compile once per process, into a folder that is gone again, and load. Raises NoLibrary where that cannot be.

    Every function takes sizes in bytes (`many`: count, bytes) and returns nothing.
    """
    compiler = next((found for name in COMPILERS if (found := shutil.which(os.environ.get("CC") or name))), None)
    if compiler is None:
        raise NoLibrary(f"there is no C compiler ({', '.join(COMPILERS)}): install one")
    with tempfile.TemporaryDirectory(prefix="kerneldyno-") as folder:
        built = Path(folder) / "allocations.so"
        command = [compiler, "-shared", "-fPIC", "-O1", "-pthread", str(SOURCE), "-o", str(built), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoLibrary(f"{Path(compiler).name} cannot compile {SOURCE.name}: {(done.stderr.splitlines() or ['no message'])[-1]}")
        return ctypes.CDLL(str(built))


def call(name: str, *sizes: int) -> None:
    """Call one of its functions."""
    getattr(library(), name)(*(ctypes.c_size_t(size) for size in sizes))
