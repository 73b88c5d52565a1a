"""Threads of this process: who started them, and which are busy when nobody should be."""

from __future__ import annotations

import os
import time
from pathlib import Path

TASKS = Path("/proc/self/task")
WAIT_S = 0.012
SETTLE_S = 0.003
"""Idle threads of OpenMP spin for about a third of a millisecond in workers."""
BUSY_SHARE = 0.4
LOOKS = 4
UNKNOWN = -1


class Threads:
    """Notes after whose leg a thread was first seen. Without /proc nothing is seen, nor outside of a worker, where OpenMP's
    idle threads spin as long as they like."""

    def __init__(self) -> None:
        self._owners: dict[int, int] = dict.fromkeys(_running(), UNKNOWN)

    def note(self, owner: int) -> None:
        """Threads that are new now were started by `owner`, a contender's index."""
        for thread in _running():
            self._owners.setdefault(thread, owner)

    def busy(self) -> dict[int, float]:
        """Wait a moment; owner (UNKNOWN: started before the first note) -> share of a processor its threads used meanwhile.

        Whoever is busy is looked at some more times: a thread that has just been started may be finishing.
        """
        if "GOMP_SPINCOUNT" not in os.environ:
            return {}
        found = self._look()
        for _ in range(LOOKS - 1):
            if not found:
                break
            again = self._look()
            found = {owner: min(share, again[owner]) for owner, share in found.items() if owner in again}
        return found

    def _look(self) -> dict[int, float]:
        time.sleep(SETTLE_S)
        before = {thread: _seconds(thread) for thread in _running()}
        started = time.perf_counter()
        time.sleep(WAIT_S)
        elapsed = time.perf_counter() - started
        used: dict[int, float] = {}
        for thread, seconds in before.items():
            owner = self._owners.get(thread, UNKNOWN)
            used[owner] = used.get(owner, 0.0) + (_seconds(thread) - seconds) / elapsed
        return {owner: share for owner, share in used.items() if share > BUSY_SHARE}


def _running() -> list[int]:
    """Native ids of all threads but the one that asks."""
    try:
        found = [int(path.name) for path in TASKS.iterdir()]
    except OSError:
        return []
    return [thread for thread in found if thread != os.getpid()]


def _seconds(thread: int) -> float:
    """Processor time of a thread so far, to the nanosecond; 0 when it has ended."""
    try:
        return int((TASKS / str(thread) / "schedstat").read_text().split()[0]) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0
