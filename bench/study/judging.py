"""One family decided as a comparison decides it: how many processes its cells get, both looks, canaries, exit code. No torch."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..compare import outcome
from ..compare.decide import Decision, Evidence, canaries, cut, decide, first_look_at, look, restless, unsettled
from ..compare.pairs import recorded
from ..compare.verdicts import FAILING
from ..verdict import Canary, Verdict, Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..comparison import Terms
    from .families import Drawn


@dataclass
class Judged:
    """One family, decided."""

    first: dict[str, Decision]
    final: dict[str, Decision]
    watched: list[Canary]
    exit_code: int

    def calls(self, *words: Word) -> bool:
        """Whether any cell is called one of these in the end."""
        return any(one.word in words for one in self.final.values())

    @property
    def words(self) -> Counter[str]:
        """How often each word was said in the end."""
        return Counter(one.word for one in self.final.values())

    @property
    def differs(self) -> int:
        """Canaries that say that equal kernels are not equal."""
        return sum(one.word == "DIFFERS" for one in self.watched)


def judge(drawn: Drawn, family: int, terms: Terms, *, unchanged: bool = False) -> Judged:
    """What a comparison would say of this family at the first look, in the end, and by its exit code.

    `unchanged`: what `--all` compares besides: sides of the same source, so that an improvement, too, gets its second look, and
    what remains of either is no word on a kernel but on the machine.
    """
    every = drawn.evidence(family)
    begun = processes_begun(every, drawn.canaries, terms)
    firsts = {name: cut(one, first_look_at(one, terms)) for name, one in every.items()}
    first = look(firsts, terms, terms.alpha * terms.first_look)
    again = {name for name, one in first.items() if unsettled(one, doubted=unchanged)}
    cells = {name: cut(one, begun[name] + (terms.second_look if name in again else 0)) for name, one in every.items()}
    deeper = any(len(cells[name].differences) > len(firsts[name].differences) for name in again)
    final = decide(cells, terms, doubted=cells if unchanged else ()) if deeper else first
    watched = _watched(cells, drawn.canaries, terms)
    return Judged(first, final, watched, exit_code(final, watched, terms, unchanged=unchanged))


def processes_begun(every: Mapping[str, Evidence], watched: Iterable[str], terms: Terms) -> dict[str, int]:
    """How many processes each cell has before the second look: more where they scatter, or where a canary is not clear.

    The latter count for the canary, and for the cell at its second look if it gets one: as `Contest` has it.
    """
    said = canaries({name: cut(every[name], terms.processes).copies for name in watched}, terms)
    unclear = {name for name, (word, _) in said.items() if word == "INCONCLUSIVE"}
    return {name: terms.more_processes if name in unclear or restless(one, terms) else terms.processes for name, one in every.items()}


def _watched(cells: Mapping[str, Evidence], watched: Iterable[str], terms: Terms) -> list[Canary]:
    said = canaries({name: cells[name].copies for name in watched}, terms)
    return [Canary(cell=name, kernel="", label="", ratio=None, word=word, reason=reason) for name, (word, reason) in said.items()]


def exit_code(decisions: Mapping[str, Decision], watched: list[Canary], terms: Terms, *, unchanged: bool = False) -> int:
    """What CI would be told of times alone, by the comparison's own rule."""
    return outcome.exit_code([_verdict(name, one, unchanged=unchanged) for name, one in decisions.items()], watched, terms)


def _verdict(name: str, decision: Decision, *, unchanged: bool) -> Verdict:
    """The least of a verdict that an exit code is made of."""
    moved = unchanged and decision.word in ("REGRESSED", "IMPROVED")
    word: Word = "INVALID" if moved else decision.word
    return Verdict(
        cell=name,
        operator="",
        kernel="",
        base_kernel="",
        label="",
        device="cpu",
        problem={},
        word=word,
        fails=word in FAILING,
        reason=decision.why,
        latency=recorded(decision.reading, math.nan, math.nan) if decision.reading else None,
        latency_word=decision.word,
        unchanged=unchanged,
        looks=decision.looks,
    )
