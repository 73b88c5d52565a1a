"""The pool of inputs that calls are given: addresses of their own, and other contents in every round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kerneldyno.kernels.registry import Problem

from .gate.conduct import copy_into


def _as_it_is(answer: Any) -> Any:
    return answer


@dataclass(frozen=True)
class Answered:
    """What a kernel returned for what lay in a slot of the pool."""

    answer: Any
    inputs: Any
    """The slot, which holds the question until the pool is refreshed."""
    variant: int
    """Which variant of the inputs the slot held …"""
    back: Callable[[Any], Any] = _as_it_is
    """… and what turns an answer for its disguise into one for the variant itself."""

    def plain(self) -> Any:
        """The answer for the variant."""
        return self.back(self.answer)


class Pool:
    """Input slots whose contents change from round to round.

    Two variants of the inputs take turns in the slots, in other numbers or another order each time where the problem has a
    symmetry (`Problem.disguised`): what was computed in an earlier round answers nothing, and yet the right answer is
    known. Without one (a single token, a single row under a mask) the two variants repeat.
    """

    def __init__(self, variants: Sequence[Any], slots: int, problem: Problem | None = None) -> None:
        self.variants = variants
        self.round = -1  # no round yet: what is prepared for the warm-up is prepared again for the first
        self.slots = [variants[self.variant(i)].map(torch.clone) for i in range(slots)]
        self._problem = problem
        self._back: list[Callable[[Any], Any]] = [_as_it_is] * slots
        self._next = 0

    def refresh(self, round_number: int) -> None:
        """Put the next variant into every slot, in numbers of this round."""
        self.round = round_number
        for i, slot in enumerate(self.slots):
            fresh = self.variants[self.variant(i)]
            if self._problem is not None:
                fresh, self._back[i] = self._problem.disguised(fresh, 1 + round_number * len(self.slots) + i)
            copy_into(slot, fresh)

    def take(self, count: int) -> list[int]:
        """The numbers of the next `count` slots in rotation."""
        chosen = [(self._next + i) % len(self.slots) for i in range(count)]
        self._next = (chosen[-1] + 1) % len(self.slots)
        return chosen

    def variant(self, slot: int) -> int:
        """Which variant a slot holds in this round."""
        return (slot + self.round) % len(self.variants)

    def answered(self, slot: int, answer: Any) -> Answered:
        """An answer for what a slot holds in this round."""
        return Answered(answer, self.slots[slot], self.variant(slot), self._back[slot])
