"""How long groups take, and whether another one fits into the budget."""

from __future__ import annotations

import time

GROUP_GUESS_S = 30.0


class Pace:
    """The clock of a run: counts from when it is made."""

    def __init__(self, budget_s: float | None) -> None:
        self.budget_s = budget_s
        self._began = time.monotonic()
        self._groups_s: list[float] = []

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def left_s(self) -> float | None:
        """Of the budget; None when there is none."""
        return None if self.budget_s is None else max(self.budget_s - self.spent_s, 0.0)

    def took(self, seconds: float) -> None:
        """Take note of a group."""
        self._groups_s.append(seconds)

    def is_over(self, *, started_group: bool = False) -> bool:
        """Whether another group would not fit; one that has started may use what is left."""
        left = self.left_s
        return left is not None and left <= (1.0 if started_group else 0.5 * self._usual_s(0.0))

    def expected_s(self, groups: int) -> float:
        """For so many more groups, as long as the budget lasts."""
        expected = self._usual_s(GROUP_GUESS_S) * groups
        return expected if self.left_s is None else min(expected, self.left_s)

    def _usual_s(self, guess: float) -> float:
        return sum(self._groups_s) / len(self._groups_s) if self._groups_s else guess
