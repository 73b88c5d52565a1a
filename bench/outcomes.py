"""What an error that a kernel raised, or the gate on its behalf, means for its case: status and reason."""

from __future__ import annotations

import torch

from kerneldyno.kernels.registry import NotAsNamed

from .gate.errors import Misconduct, WrongOutput
from .privacy import scrub
from .records import Status


def outcome(error: BaseException, phase: str) -> tuple[Status, str]:
    """The status of a case that ended with this error, and the reason, which names the phase where that says something."""
    if isinstance(error, WrongOutput):
        return "wrong", str(error) if phase == "check" else f"{phase}: {error}"
    if isinstance(error, Misconduct):
        return "invalid", str(error) if phase == "check" else f"{phase}: {error}"
    if isinstance(error, NotAsNamed):
        return "invalid", f"not as named: {error}"
    return "failed", f"{phase}: {sentence(error)}"


def sentence(error: BaseException) -> str:
    """The first line of what was raised, with its type; out of memory is named as such."""
    text = str(error).encode(errors="replace").decode().strip().splitlines()
    head = scrub(text[0])[:400] if text else "no message"  # in this order: half a name is not known as one
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return f"out of memory: {head}"
    return f"{type(error).__name__}: {head}"
