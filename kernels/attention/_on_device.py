"""Triton kernels of ours as what a build returns: on the device that their inputs lie on, and compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..registry import Run


def started(attend: Run, first: Any) -> Run:
    """`attend` as a kernel's run, compiled by a call for the inputs `first`, which have a q, as all have that it is called for."""

    def run(inputs: Any) -> Any:
        with torch.cuda.device_of(inputs.q):  # type: ignore[no-untyped-call] # Triton launches on the current device
            return attend(inputs)

    run(first)
    return run
