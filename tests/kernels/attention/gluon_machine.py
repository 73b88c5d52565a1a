"""A small machine that runs Gluon kernels for Hopper on the CPU, line by line as they stand, since Triton's interpreter has none for Gluon.

Partitions are threads of which one runs at a time; a seed decides which, and when loads and stores by TMA and asynchronous products
take place: at once or as late as they may, loads in any order. So a buffer that is given back or read too early shows as a wrong result,
a barrier nobody arrives at as a Stuck, and both are the same every time for one seed.
Registers, layouts, the memory model's fences and speed are not in it: codegen looks at those.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any, Protocol

LATE = 0.3
"""Share of the copies that end only when nobody can go on without them."""
DELAYS = (0, 0, 0, 1, 5, 20)
"""How much longer others run than a partition that has handed on: drawn each time."""


class Stuck(Exception):
    """Nobody can go on; the message says who waits for which barrier."""


class Misuse(Exception):
    """What would be undefined on a GPU; the message says what."""


class Machine:
    """One program at a time: its shared memory, its partitions, and what is under way."""

    def __init__(self, seed: int, programs: int) -> None:
        self.random = random.Random(seed)
        self.programs = programs
        self.program = 0
        self.partitions: list[Partition] = []
        self.running: Partition | None = None
        self.copies: list[tuple[bool, Callable[[], None]]] = []
        """Loads and stores by TMA that have begun, and whether each takes as long as it may."""
        self.failed: BaseException | None = None
        self.rings = 0
        """Of barriers, so far."""

    def fork(self, functions: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
        """Run partitions side by side to their ends. Raises what the first of them raised, or Stuck."""
        self.partitions = [Partition(self, function, args, i) for i, (function, args) in enumerate(functions)]
        self.running = self._chosen()
        assert self.running is not None
        for partition in self.partitions:
            partition.thread.start()
        self.running.go.set()
        for partition in self.partitions:
            partition.thread.join()
        self.running = None
        if self.failed is not None:
            raise self.failed
        while self.copies:
            self.copies.pop(0)[1]()

    @property
    def partition(self) -> Partition:
        """The one that is running."""
        if self.running is None:
            raise Misuse("products and copies belong into a partition")
        return self.running

    def copy(self, done: Callable[[], None]) -> None:
        """Begin a copy that ends by calling `done`, some time."""
        self.copies.append((self.random.random() < LATE, done))

    def switch(self, until: Callable[[], bool], what: str) -> None:
        """Let others run, and come back when `until` holds. Raises Stuck where that will never be."""
        me = self.running
        if me is None:  # before or after the partitions: nobody else could change anything
            if not until():
                raise Stuck(f"the kernel waits for {what}, and nothing else runs")
            return
        me.until, me.what = until, what
        me.delay = self.random.choice(DELAYS)
        self._hand_on(me)
        if self.failed is not None:
            raise SystemExit  # somebody else's failure is the one to tell

    def ended(self, me: Partition, error: BaseException | None) -> None:
        me.alive = False
        if error is not None and self.failed is None and not isinstance(error, SystemExit):
            self.failed = error
        self._hand_on(me)

    def _hand_on(self, me: Partition) -> None:
        other = None if self.failed else self._chosen()
        if other is None:
            alive = [partition for partition in self.partitions if partition.alive]
            if alive and self.failed is None:
                waits = "; ".join(f"partition {partition.number} waits for {partition.what}" for partition in alive)
                self.failed = Stuck(waits)
            for partition in alive:
                partition.go.set()
            return
        if other is not me:
            me.go.clear()
            self.running = other
            other.go.set()
            if me.alive:
                me.go.wait()

    def _chosen(self) -> Partition | None:
        """Somebody who can go on; copies end in between, at random, and all of them before nobody can."""
        while True:
            ready = [partition for partition in self.partitions if partition.alive and partition.until()]
            soon = [copy for copy in self.copies if not ready or not copy[0]]
            if soon and (not ready or self.random.random() < 0.5):
                copy = self.random.choice(soon)
                self.copies.remove(copy)
                copy[1]()
                continue
            prompt = [partition for partition in ready if not partition.delay]
            if prompt or not ready:
                return self.random.choice(prompt) if prompt else None
            for partition in ready:
                partition.delay -= 1


class Product(Protocol):
    """An asynchronous product that has begun."""

    def take_place(self) -> None: ...


class Partition:
    """Some warps with a task of their own."""

    def __init__(self, machine: Machine, function: Callable[..., None], args: tuple[Any, ...], number: int) -> None:
        self.number = number
        self.alive = True
        self.until: Callable[[], bool] = lambda: True
        self.what = ""
        self.delay = 0
        """How much longer others run before it does, where they can."""
        self.products: list[Product] = []
        """Not waited for, the oldest first."""
        self.stores = 0
        self.go = threading.Event()
        self._machine, self._function, self._args = machine, function, args
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.go.wait()
        error: BaseException | None = None
        try:
            if self._machine.failed is None:
                self._function(*self._args)
                error = Misuse(f"partition {self.number} ends with products that nobody waited for") if self.products else None
        except BaseException as raised:  # noqa: BLE001 - it is told by the thread that waits
            error = raised
        self._machine.ended(self, error)

    def finish(self, outstanding: int) -> None:
        """Let products take place, the oldest first, until so many are left."""
        while len(self.products) > outstanding:
            self.products.pop(0).take_place()
