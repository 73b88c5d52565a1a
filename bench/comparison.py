"""Cell, Terms, Side, Comparison: what a comparison is going to do, declared before anything is measured. No torch, no kernels."""

from __future__ import annotations

from typing import Literal

import msgspec

Form = Literal["kernels", "commits", "runs"]
Quantity = Literal["latency", "memory", "errors", "energy"]
QUANTITIES: tuple[Quantity, ...] = ("latency", "memory", "errors", "energy")
GATES: tuple[Quantity, ...] = ("latency", "memory", "errors")
"""What fails a comparison unless something else is asked for."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two things that are compared."""

    label: str
    """What the user called it: "attention/sdpa", "origin/main", "worktree", the name of a run folder."""
    commit: str | None = None
    """Full hash of the revision, "-dirty" appended for a worktree with changes; None where there is none."""
    fingerprint: str | None = None
    """Of the environment in which it was measured."""
    created: str | None = None
    """When it was measured: ISO 8601, UTC."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel of each side at one problem: what gets a verdict."""

    id: str
    operator: str
    base_kernel: str
    candidate_kernel: str
    """The same name, unless two kernels are compared."""
    label: str
    """The problem in a few characters."""
    device: str
    base: str | None = None
    """Id of the base's case; None where the base has none."""
    candidate: str | None = None
    """Id of the candidate's case; None where the candidate has none."""
    copy: str | None = None
    """Id of the case of a second copy of the base: this cell is a canary, too."""
    reason: str | None = None
    """Why a side has no case, in a sentence."""
    broken: bool = False
    """True where the candidate has none because its file does not load."""
    source: str | None = None
    """The candidate's file, relative to the repository; None for a file of --load."""
    compared: bool = True
    """False: it is a canary only."""
    unchanged: bool = False
    """True where everything that the kernel is made of is the same on both sides: a difference would not be its doing."""
    adjacent: str | None = None
    """Why the two sides cannot live in one process and are measured in adjacent ones; None: in one process."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """By which rule it is decided. All of it is fixed before the first number is known."""

    margin: float = 0.02
    """A ratio this close to 1 is no change."""
    alpha: float = 0.05
    """Chance of a false alarm in all cells together, were every kernel slower by exactly the margin."""
    first_look: float = 0.5
    """Share of alpha that is spent at the first look; the second look has the rest."""
    processes: int = 8
    """Fresh processes of each cell."""
    more_processes: int = 12
    """So many where the pairs scatter by more than `restless`."""
    second_look: int = 8
    """Further processes for a cell that is regressed or inconclusive at the first look. There is no third look."""
    restless: float = 0.01
    """Standard deviation between processes of the log ratio from which on `more_processes` are measured …"""
    noisy: float = 0.03
    """… and from which on a cell is advisory: a change counts only beyond `noisy_margin`. (Of cells that scatter by 2 % hardly
    one looks like this by chance.)"""
    noisy_margin: float = 0.05
    canary_margin: float = 0.01
    """A base that differs from its own copy by more than this makes the comparison invalid …"""
    canary_alpha: float = 0.01
    """… with this chance of a false alarm in all canaries together."""
    too_many_inconclusive: float = 0.25
    """With a larger share of inconclusive cells the comparison is too noisy."""
    gates: tuple[Quantity, ...] = GATES


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of a comparison: part of the manifest of its run."""

    form: Form
    base: Side
    candidate: Side
    cells: list[Cell]
    terms: Terms = Terms()
    changed: dict[str, str] = {}
    """Kernel -> what of it differs between the two commits, in a few words."""
    unchanged: tuple[str, ...] = ()
    """Kernels that were left out because nothing that they are made of differs."""
    warnings: tuple[str, ...] = ()
    """What was known before anything was measured: sentences."""
