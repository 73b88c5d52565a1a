"""What every section of the self-test is given: where, how thoroughly, and whom to tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kerneldyno.kernels.registry import Device

    from .examining import Look


def _nothing(*_: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Context:
    """One self-test."""

    device: Device
    seed: int = 0
    short: bool = False
    blind: bool = False
    """The gate is switched off: everything must then be missed."""
    stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = _nothing
    """Told what is tried now."""
    tick: Callable[[], None] = _nothing
    """Called about once a second during long runs."""

    @property
    def look(self) -> Look:
        """What kernels that go through the gate are asked."""
        return "nothing" if self.blind else "gate"

    @property
    def parallel(self) -> int:
        """How many problems may be examined at a time."""
        from ..instruments import processor

        return processor.cores() if self.device.kind == "cpu" else 1
