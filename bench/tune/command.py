"""What `kerneldyno tune` does: goal by goal prune, heat, check, finals, and store what wins. No torch."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kerneldyno.kernels import _sources

from .. import environment, launch
from ..plan import UsageError
from . import book, decide, goals, prune, records, telling
from .card import card_of
from .contest import CHECK, HEAT, PAIRED, Arena, Stage
from .folder import CANDIDATES, OUTCOME, Left, Outcome, Planned, TuneFolder, load, save

if TYPE_CHECKING:
    from rich.console import Console

    from kerneldyno.kernels._cards import Card
    from kerneldyno.kernels.registry import Device

    from ..records import Measurement
    from ..run import Progress
    from .goals import Asked, Goal, Goals

EXIT_OK, EXIT_FAULTS, EXIT_INTERRUPTED = 0, 5, 130


class Stopped(Exception):
    """A goal was not brought to its end: somebody asked to stop, or the budget is used up."""


class Stalled(Exception):
    """A goal cannot be brought to its end; the message says why."""


def tune(console: Console, asked: Asked, progress: Progress, stop: Callable[[], bool]) -> int:
    """Make every choice that is asked for; the exit code. Raises UsageError and the like before anything is measured."""
    launch.require_torch()
    if asked.run.processes < goals.FEWEST_PROCESSES:
        raise UsageError(
            f"--processes {asked.run.processes} is too few: a choice rests on at least {goals.FEWEST_PROCESSES} fresh processes"
        )
    device, card = _device(asked)
    found = goals.goals(asked, device, card)
    where = book.place(asked.book, card, simulated=bool(asked.simulated))
    settings = launch.settings_of(asked.run, (), device)
    machine = environment.describe(device, settings.threads)
    folder = TuneFolder(asked.folder or Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-tune")
    arena = Arena(device, machine, settings, asked.run.load, progress, stop, asked.simulated)
    arena.until = None if asked.run.budget_s is None else time.monotonic() + asked.run.budget_s
    outcomes: list[Outcome] = []
    stalled = 0
    with launch.only_one(device):
        folder.begin(_planned(asked, found, machine.fingerprint), resumed=asked.resumed)
        telling.begin(console, found, folder.path)
        try:
            for number, goal in enumerate(found.found, start=1):
                if arena.over():
                    raise Stopped  # noqa: TRY301 - as when a race ends early
                telling.goal(console, goal, number, len(found.found))
                try:
                    outcomes.append(_Tuning(console, asked, arena, where, card).bring(folder.of(number, goal.key), goal))
                except Stalled as error:
                    stalled += 1
                    console.print(f"left open: {error}", markup=False)
                    continue
                telling.outcome(console, outcomes[-1])
        except Stopped:
            pass
    telling.table(console, outcomes)
    telling.end(console, where, folder.path, open_goals=len(found.found) - len(outcomes), asked=asked)
    if stop():
        return EXIT_INTERRUPTED
    return EXIT_FAULTS if stalled or any(outcome.entry is None for outcome in outcomes) else EXIT_OK


def preview(console: Console, asked: Asked, stop: Callable[[], bool]) -> int:
    """Show the candidates for a card that need not be there, pruned with reasons, and what would be measured."""
    device, card = goals.card_named(asked.arch)
    if importlib.util.find_spec("triton") is None:
        raise UsageError("tune needs the Python package triton, which is not installed: pip install 'kerneldyno[run]' on Linux")
    found = goals.goals(asked, device, card)
    for number, goal in enumerate(found.found, start=1):
        telling.goal(console, goal, number, len(found.found))
        with telling.compiling(console) as tick:
            sieved = prune.sieve(goal, jobs=asked.jobs, stop=stop, tick=tick)
        if sieved is None:
            return EXIT_INTERRUPTED
        telling.candidates(console, goal, sieved)
    return EXIT_OK


def _device(asked: Asked) -> tuple[Device, Card]:
    """Where it is measured. Raises UsageError where there is no GPU."""
    if asked.simulated:
        if asked.simulated not in {path.name for path in asked.run.load}:
            raise UsageError(f"--simulated {asked.simulated}: name one of the files of --load, which has a `clock`")
        return environment.choose("cpu"), goals.card_named(asked.arch)[1]
    device = environment.choose(asked.run.device)
    if device.kind != "cuda":
        why = environment.why_no_gpu() or f"--device {asked.run.device} is none"
        raise UsageError(f"tune needs a GPU ({why}): what would be measured on one is shown by kerneldyno tune --compile-only --arch sm_90")
    return device, card_of(device)


def _planned(asked: Asked, found: Goals, fingerprint: str) -> Planned:
    kernels = {goal.kernel.name: goal.kernel for goal in found.found}
    digests = {
        name: _sources.digest(Path(kernel.source), kernel.folder, kernel.operator, tuned=False) for name, kernel in sorted(kernels.items())
    }
    listed = [f"{goal.kernel.name} {goal.key} at {goal.problem.label}" for goal in found.found]
    return Planned(fingerprint=fingerprint, sources=digests, goals=listed, options=records.options(asked))


class _Tuning:
    """One goal on its way."""

    def __init__(self, console: Console, asked: Asked, arena: Arena, where: Path, card: Card) -> None:
        self.console = console
        self.asked = asked
        self.arena = arena
        self.where = where
        self.card = card

    def bring(self, folder: Path, goal: Goal) -> Outcome:
        """What comes of a goal, or came of it before. Raises Stopped where it does not come to its end."""
        if (known := load(folder, OUTCOME, Outcome)) is not None:
            if known.entry is not None and not book.holds(self.where, known.entry.key):  # another --out than before
                book.add(self.where, known.entry)
            return known
        left = self._left(folder, goal)
        usual = left.kept[0]
        heat = self._race(folder / "heat", goal, left.kept, HEAT)
        if heat[usual].status != "ok":
            return self._kept(folder, records.failed(goal, heat[usual], heat))
        names, checked = self._finalists(folder, goal, usual, heat)
        if checked[usual].status != "ok":
            return self._kept(folder, records.failed(goal, checked[usual], {**heat, **checked}))
        telling.heat(self.console, left, heat, names)
        final = self._race(folder / "final", goal, [usual, *names], Stage(PAIRED, self.asked.run.processes)) if names else heat
        return self._kept(folder, self._decided(goal, records.Measured(heat, checked, final, left), names))

    def _finalists(self, folder: Path, goal: Goal, usual: str, heat: dict[str, Measurement]) -> tuple[list[str], dict[str, Measurement]]:
        """(who goes on to the finals, what the whole gate said of them, of the default and of those whom they follow).

        In the place of one that does not pass others may come, which were slower than it alone.
        """
        checked: dict[str, Measurement] = {}
        while True:
            out = {usual, *(name for name, one in checked.items() if one.status != "ok")}
            names = decide.finalists(heat[usual], {name: one for name, one in heat.items() if name not in out})
            asked = [name for name in (usual, *names) if name not in checked]
            if not asked:
                return names, checked
            checked |= self._race(folder / f"check-{len(checked)}", goal, asked, CHECK)

    def _decided(self, goal: Goal, measured: records.Measured, names: list[str]) -> Outcome:
        default = measured.final[measured.left.kept[0]]
        if default.status != "ok":
            return records.failed(goal, default, {**measured.heat, **measured.final})
        verdict = decide.verdict(default, {name: measured.final[name] for name in names})
        entry = records.entry(goal, measured, verdict, self.arena.environment, self.card, simulated=bool(self.asked.simulated))
        return records.outcome(goal, measured, verdict, entry)

    def _kept(self, folder: Path, outcome: Outcome) -> Outcome:
        """Store the choice, then that it was made: whoever goes on after a crash in between stores it once more."""
        if outcome.entry is not None:
            book.add(self.where, outcome.entry)
        save(folder, OUTCOME, outcome)
        return outcome

    def _left(self, folder: Path, goal: Goal) -> Left:
        """The candidates that are worth measuring, found once for a tuning."""
        if (known := load(folder, CANDIDATES, Left)) is not None:
            return known
        with telling.compiling(self.console) as tick:
            sieved = prune.sieve(goal, jobs=self.asked.jobs, stop=self.arena.over, tick=tick)
        if sieved is None:
            raise Stopped
        found = Left(kept=sieved.kept, left_out=sieved.left_out)
        save(folder, CANDIDATES, found)
        return found

    def _race(self, folder: Path, goal: Goal, names: list[str], stage: Stage) -> dict[str, Measurement]:
        """What came of a race that came to its end; it is gone on with while a worker that gave up on the rest had something to say.

        Raises Stalled where nothing more comes.
        """
        known = -1
        while True:
            race = self.arena.race(folder, goal, names, stage)
            if race.ended != "finished":
                raise Stopped
            if not (missing := [name for name in names if name not in race.measured]):
                return race.measured
            if len(race.measured) == known:
                raise Stalled(f"{goal.key}: {len(missing)} of {len(names)} candidates crash their workers again and again: see {folder}")
            known = len(race.measured)
