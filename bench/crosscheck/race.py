"""All tools on all cases, in random order, several times over: what each of them said."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from kerneldyno.kernels.registry import Device

from .. import stats
from ..instruments.clock import Clock
from . import nvbench, own, peers
from .own import OwnMethod
from .peers import Peer
from .subjects import Group, Subject, subjects


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What one tool said of one case in one repetition."""

    tool: str
    case: str
    repetition: int
    seconds: float
    """Per call: kerneldyno's latency, the median of the values of any other tool."""
    values_s: list[float]
    """All values, in the order in which they were taken."""
    rounds: list[int] = []
    """kerneldyno only: the round of each."""
    wall_s: float
    """How long the measurement took; kerneldyno's is the group's divided by its cases."""


class Said(NamedTuple):
    """What a tool says of one case: fields of a Figure."""

    seconds: float
    values_s: list[float]
    rounds: list[int]


class Task(NamedTuple):
    """One measurement that is due: a tool, and what it is to do."""

    tool: str
    work: Callable[[], Mapping[str, Said]]
    """Returns what the tool says, by case."""


class Race:
    """Runs the tasks of every repetition in an order of its own; a tool that fails leaves the race with its reason."""

    def __init__(self, device: Device, size: str, groups: list[Group], clock: Clock, *, seconds: float, seed: int) -> None:
        self.seconds = seconds
        self.cases: list[Subject] = [subject for group in groups for subject in subjects(group)]
        self.figures: list[Figure] = []
        self.absent: dict[str, str] = {}
        """Tool -> why it says nothing."""
        self._rng = np.random.default_rng(seed)
        self._own = [OwnMethod(group, device, clock, seed) for group in groups]
        self._peers = self._able(device, peers.in_process())
        self._external = self._able_external(device, size)

    def repeat(self, repetition: int) -> None:
        """One measurement of every case by every tool."""
        tasks = [Task(own.NAME, partial(self._by_own, method)) for method in self._own]
        tasks += [Task(peer.name, partial(self._by_peer, peer, case)) for peer in self._peers for case in self.cases]
        tasks += self._external
        for i in self._rng.permutation(len(tasks)):
            if tasks[i].tool not in self.absent:
                self._do(tasks[i], repetition)

    def _do(self, task: Task, repetition: int) -> None:
        started = time.perf_counter()
        try:
            found = task.work()
        except Exception as error:
            if task.tool == own.NAME:
                raise
            self.absent[task.tool] = f"{type(error).__name__}: {error}"
            self.figures = [figure for figure in self.figures if figure.tool != task.tool]
            return
        wall_s = (time.perf_counter() - started) / max(len(found), 1)
        for case, (seconds, values, rounds) in found.items():
            self.figures.append(
                Figure(tool=task.tool, case=case, repetition=repetition, seconds=seconds, values_s=values, rounds=rounds, wall_s=wall_s)
            )

    def _by_own(self, method: OwnMethod) -> dict[str, Said]:
        processes = method.measure(self.seconds)
        return {
            case.case: Said(stats.latency([process]).estimate, process.samples_s, process.rounds)
            for case in self.cases
            if case.group is method.group and (process := processes[case.kernel]).samples_s
        }

    def _by_peer(self, peer: Peer, case: Subject) -> dict[str, Said]:
        values = peer.measure(case, self.seconds)
        return {case.case: Said(statistics.median(values), values, [])}

    def _able(self, device: Device, candidates: list[Peer]) -> list[Peer]:
        reasons = {peer.name: peer.why_not(device.kind) for peer in candidates}
        self.absent |= {name: reason for name, reason in reasons.items() if reason}
        return [peer for peer in candidates if not reasons[peer.name]]

    def _able_external(self, device: Device, size: str) -> list[Task]:
        if reason := nvbench.why_not(device.kind):
            self.absent[nvbench.NAME] = reason
            return []

        def work() -> dict[str, Said]:
            found = nvbench.measure(device, size, self.seconds, len(self.cases))
            return {case: Said(statistics.median(values), values, []) for case, values in found.items()}

        return [Task(nvbench.NAME, work)]
