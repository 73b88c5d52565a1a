"""What each of several calls held at most and left behind on the CPU: every allocation of every thread, as memray saw it.

Sizes are those asked for. A realloc that moves counts as its new size, although both may be there for a moment.
"""

from __future__ import annotations

import mmap
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from memray import AllocationRecord

MARK_BYTES = 8191
"""A mapping of this size separates two calls in the trace: nobody else maps a prime number of bytes."""
ARENA_BYTES = 2**20
"""Python takes memory for its small objects in pieces of this size."""
ROOM_ARENAS = 8
SMALL_BYTES = 400


@dataclass(frozen=True)
class Traced:
    """One call, in bytes."""

    peak_bytes: int
    """Most that this call had allocated and not yet freed, its output included; freeing older memory does not lower it."""
    kept_bytes: int
    """Allocated by this and the traced calls before it, and still there when the output of the call is gone."""


def can_trace() -> bool:
    """Whether there is a memray here."""
    try:
        import memray  # noqa: F401 - asked for, not used
    except ImportError:
        return False
    return True


def trace(
    call: Callable[[], object], fewest: int, most: int, budget_s: float, afterwards: Callable[[int], object] | None = None
) -> list[Traced]:
    """Make `most` calls, or as many as fit into `budget_s` but at least `fewest`.

    `afterwards` is told the number of each, from 0, when its output is gone and before what it kept is counted. Needs
    memray (`can_trace`). Raises RuntimeError when the trace cannot be taken apart, and whatever the call raises.
    """
    import memray

    made = 0
    with tempfile.TemporaryDirectory(prefix="kerneldyno-") as folder:
        path = Path(folder) / "trace"
        held = _room_for_small_objects()
        with memray.Tracker(path, native_traces=False):
            started = time.perf_counter()
            while made < most and (made < fewest or time.perf_counter() - started < budget_s):
                _mark()
                output = call()
                _mark()
                del output
                if afterwards:
                    afterwards(made)
                _mark()
                made += 1
        del held
        with memray.FileReader(path) as reader:
            traced = list(replay(reader.get_allocation_records()))
    if len(traced) != made:
        raise RuntimeError(f"the trace holds {len(traced)} calls, not {made}: something in the call maps {MARK_BYTES} bytes itself")
    return traced


def _mark() -> None:
    mmap.mmap(-1, MARK_BYTES).close()


def _room_for_small_objects() -> list[bytes]:
    """Let Python's own allocator have free room, so that it does not fetch another arena in the middle of a call.

    Such an arena would be counted as a mebibyte of the kernel's. A few objects stay, spread over the arenas, so that these
    are not given back before.
    """
    filled = [bytes(SMALL_BYTES) for _ in range(ROOM_ARENAS * ARENA_BYTES // SMALL_BYTES)]
    return filled[:: ARENA_BYTES // SMALL_BYTES // 8]


@dataclass
class _Heap:
    """Blocks and mappings that are there, by address, and their sum."""

    blocks: dict[int, int] = field(default_factory=dict)
    mappings: dict[int, int] = field(default_factory=dict)
    total: int = 0
    peak: int = 0

    def take(self, address: int, size: int, *, mapped: bool) -> None:
        where = self.mappings if mapped else self.blocks
        self.total += size - where.pop(address, 0)
        where[address] = size
        self.peak = max(self.peak, self.total)

    def free(self, address: int) -> None:
        self.total -= self.blocks.pop(address, 0)

    def unmap(self, address: int, size: int) -> None:
        """A whole mapping, a part of one, or several at once: the kernel of the system takes any range."""
        if self.mappings.get(address) == size:
            self.total -= self.mappings.pop(address)
            return
        end = address + size
        for start, length in [item for item in self.mappings.items() if item[0] < end and item[0] + item[1] > address]:
            del self.mappings[start]
            if start < address:
                self.mappings[start] = address - start
            if start + length > end:
                self.mappings[end] = start + length - end
            self.total -= min(start + length, end) - max(start, address)


def replay(records: Iterable[AllocationRecord]) -> Iterator[Traced]:
    """Go through what was recorded, in order. Three marks make a call: it begins, it has returned, its output is gone."""
    from memray import AllocatorType

    mapping, unmapping = int(AllocatorType.MMAP), int(AllocatorType.MUNMAP)
    freeing = {int(AllocatorType.FREE), int(AllocatorType.PYMALLOC_FREE)}
    whole, own, marks, peak = _Heap(), _Heap(), 0, 0
    for record in records:
        kind, address, size = record.allocator, record.address, record.size
        if kind == mapping and size == MARK_BYTES:
            marks += 1
            if marks % 3 == 1:
                own = _Heap()  # what was alive before this call is not its own
            elif marks % 3 == 2:
                peak = own.peak
            else:
                yield Traced(peak, whole.total)
        elif kind in freeing:
            whole.free(address)
            own.free(address)
        elif kind == unmapping:
            whole.unmap(address, size)
            own.unmap(address, size)
        else:
            whole.take(address, size, mapped=kind == mapping)
            own.take(address, size, mapped=kind == mapping)
