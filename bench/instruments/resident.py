"""How far a call makes the process's resident memory rise, whoever took it: a lower bound, since only touched memory is resident."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PROCESS = Path("/proc/self")
FORGET_THE_PEAK = "5"


def rise_of(call: Callable[[], object]) -> int | None:
    """Bytes between the resident memory before and its highest during one call; None where the system does not tell.

    Only Linux tells. Other threads of the process count too. What malloc keeps of earlier calls is given back first, where
    there is glibc: otherwise the call would find it and nothing would rise.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (PROCESS / "clear_refs").write_text(FORGET_THE_PEAK)
        before = _status("VmRSS")
    except (OSError, LookupError):
        return None
    output = call()
    highest = _status("VmHWM")
    del output
    return max(highest - before, 0)


def _status(name: str) -> int:
    """One of the sizes in /proc/self/status, in bytes. Raises LookupError when it is not there."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", (PROCESS / "status").read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(name)
    return int(found.group(1)) * 1024
