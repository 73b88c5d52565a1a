"""What a kernel offers to be tuned: candidates for a choice, why some cannot be, what each would be compiled to. No torch, no Triton."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._code import Configuration
    from ._tuned import Key


@dataclass(frozen=True)
class Task:
    """One choice that a kernel takes when it is built for a problem."""

    key: Key
    default: Any
    """The tile that is taken where nobody measured: a frozen dataclass of numbers and truth values, whose text is for people."""
    candidates: tuple[Any, ...]
    """Others of the same kind, the default not among them."""
    why_not: Callable[[Any], str | None]
    """(candidate) -> why arithmetic says that it cannot run or is not worth while, in a sentence; None when it may be."""
    forms: Callable[[Any], Iterable[Configuration]]
    """(candidate) -> what it would be compiled to: for this problem, and for the one with the same key that takes the most registers."""
