"""From a pool to rates: false alarms of families, detection of known slowdowns, and the same for other rules. No torch."""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from scipy import stats as distributions

from ..comparison import Terms
from ..stats import mean_interval
from . import alarms, families, peers
from .families import CANARIES, CELLS, Slowed, depth
from .judging import exit_code, judge
from .rates import BOUND, Codes, Detection, Disjoint, FalseAlarms, Kernel, Peer, Rate, Study
from .subjects import COPY, SLOWER

if TYPE_CHECKING:
    from .samples import Array, Pool

REPLICATES = 200
"""Pools drawn anew for the upper bound …"""
PEER_FAMILIES = 600
SLOWED: tuple[Slowed, ...] = ("one", "all")
Say = Callable[[str], None]


def analyse(
    pool: Pool, wanted: int, seed: int, say: Say = lambda _: None, terms: Terms | None = None, replicates: int = REPLICATES
) -> Study:
    """Everything that the study tells: `wanted` families of CELLS cells for each condition, which has random numbers of its own."""
    rule, began = terms or Terms(), time.monotonic()
    say(f"{wanted} families of {CELLS} cells under no change; {replicates} pools drawn anew")
    false = false_alarms(pool, wanted, seed, rule, replicates)
    found: list[Detection] = []
    seen: list[Detection] = []
    codes: list[Codes] = []
    for number, variant in enumerate(SLOWER):
        for slowed in SLOWED:
            say(f"{wanted} families with {slowed} of {CELLS} cells {variant.replace('_', ' ')} %")
            by_kernel, by_spread, told = detection(pool, variant, slowed, wanted, [seed, 1, number, slowed == "all"], rule)
            found += by_kernel
            seen += by_spread
            codes.append(told)
    say("other rules on the same processes")
    return Study(
        version=importlib.metadata.version("kerneldyno"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        pool=pool.about,
        processes=pool.processes,
        kernels=[_kernel(pool, number) for number in range(len(pool.kernels))],
        terms=rule,
        seed=seed,
        families=wanted,
        cells=CELLS,
        false_alarms=false,
        detection=found,
        by_seen_spread=seen,
        codes=codes,
        peers=[peer(rule, pool, min(wanted, PEER_FAMILIES), [seed, 2, number]) for number, rule in enumerate(peers.RULES)],
        agreement=peers.agreement(pool, np.random.default_rng([seed, 3])),
        analysed_s=time.monotonic() - began,
    )


def _kernel(pool: Pool, number: int) -> Kernel:
    """What the pool says of one kernel."""
    copies = pool.copies[number]
    mean = mean_interval(copies.tolist())
    return Kernel(
        name=pool.kernels[number],
        label=pool.about.labels.get(pool.kernels[number], ""),
        median_s=float(np.median(pool.medians_s[number, 0])),
        between_processes=_spread(np.log(pool.medians_s[number, 0])),
        spread=_spread(copies),
        copy_ratio=math.exp(mean.estimate),
        copy_low=math.exp(mean.low),
        copy_high=math.exp(mean.high),
        kurtosis=_or_none(distributions.kurtosis(copies)) if len(copies) > 3 else None,
        autocorrelation=_or_none(_lag_1(copies)),
        ratios={variant: math.exp(float(pool.of(variant)[number].mean())) for variant in SLOWER},
        spreads={variant: _spread(pool.of(variant)[number]) for variant in SLOWER},
    )


def _spread(values: Array) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _or_none(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _lag_1(values: Array) -> float:
    """Correlation of each process with the next one: near 0 where the order of time does not matter."""
    centred = values - values.mean()
    total = float((centred**2).sum())
    return float((centred[1:] * centred[:-1]).sum()) / total if total else math.nan


def false_alarms(pool: Pool, wanted: int, seed: int, terms: Terms, replicates: int) -> FalseAlarms:
    """What is said where nothing changed: a copy of the base against the base."""
    drawn = families.draw(pool.copies, np.random.default_rng([seed, 0]), wanted, terms)
    words: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    codes_of_all: Counter[str] = Counter()
    alarmed = improved = differing = canary_families = first = moved = 0
    for family in range(wanted):
        one = judge(drawn, family, terms)
        words.update(one.words)
        codes[str(one.exit_code)] += 1
        alarmed += one.calls("REGRESSED")
        improved += one.calls("IMPROVED")
        first += any(decision.word == "REGRESSED" for decision in one.first.values())
        differing += one.differs
        canary_families += one.differs > 0
        if any(decision.word == "IMPROVED" for decision in one.first.values()):  # else nothing is looked at again for --all
            one = judge(drawn, family, terms, unchanged=True)
        moved += one.calls("REGRESSED", "IMPROVED")
        codes_of_all[str(exit_code(one.final, one.watched, terms, unchanged=True))] += 1
    rates = alarms.resampled(pool.copies, np.random.default_rng([seed, 4]), replicates, wanted, terms)
    return FalseAlarms(
        families=Rate(alarmed, wanted),
        first_look=Rate(first, wanted),
        improved=Rate(improved, wanted),
        improved_cells=Rate(words["IMPROVED"], wanted * CELLS),
        upper=float(np.quantile(rates, BOUND)) if replicates else 1.0,
        resampled=Rate(round(float(rates.sum()) * wanted), replicates * wanted),
        replicates=replicates,
        disjoint=[_disjoint(pool, terms, count) for count in (terms.more_processes, depth(terms))],
        words=dict(words),
        exit_codes=dict(sorted(codes.items())),
        canaries=Rate(differing, wanted * CANARIES),
        canary_families=Rate(canary_families, wanted),
        unchanged=Rate(moved, wanted),
        unchanged_exit_codes=dict(sorted(codes_of_all.items())),
    )


def _disjoint(pool: Pool, terms: Terms, processes: int) -> Disjoint:
    found = alarms.disjoint(pool.copies, terms, processes)
    return Disjoint(
        processes=processes,
        looks=1 if processes < depth(terms) else 2,
        families=Rate(found.alarms, found.families),
        cells=Rate(found.slower, found.cells),
    )


def detection(
    pool: Pool, variant: str, slowed: Slowed, wanted: int, seeds: list[int], terms: Terms
) -> tuple[list[Detection], list[Detection], Codes]:
    """How often cells that are slower are called so: by kernel, and by the spread that the comparison itself saw; and exit codes."""
    drawn = families.draw(pool.copies, np.random.default_rng(seeds), wanted, terms, pool.named(variant), slowed)
    counted: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    codes: Counter[str] = Counter()
    canary_families = 0
    for family in range(wanted):
        one = judge(drawn, family, terms)
        codes[str(one.exit_code)] += 1
        canary_families += one.differs > 0
        for cell in np.flatnonzero(drawn.slower[family]).tolist():
            first, final = one.first[str(cell)], one.final[str(cell)]
            called = (first.word == "REGRESSED", final.word == "REGRESSED")
            counted.setdefault(("kernel", pool.kernels[drawn.kernels[family, cell]]), []).append(called)
            if first.reading is not None:
                counted.setdefault(("spread", spread_class(first.reading.spread)), []).append(called)
    classes = {kernel: spread_class(_spread(pool.copies[number])) for number, kernel in enumerate(pool.kernels)}
    spreads = {kernel: _spread(pool.of(variant)[number]) for number, kernel in enumerate(pool.kernels)}

    def made(by: str, name: str) -> Detection:
        calls = counted[by, name]
        return Detection(
            slowdown=SLOWER[variant],
            slowed=slowed,
            what=name,
            spread=spreads[name] if by == "kernel" else None,
            spread_class=classes[name] if by == "kernel" else name,
            first_look=Rate(sum(one for one, _ in calls), len(calls)),
            final=Rate(sum(two for _, two in calls), len(calls)),
        )

    told = Codes(
        slowdown=SLOWER[variant], slowed=slowed, exit_codes=dict(sorted(codes.items())), canary_families=Rate(canary_families, wanted)
    )
    by_kernel = [made("kernel", kernel) for kernel in pool.kernels if ("kernel", kernel) in counted]
    return by_kernel, [made("spread", name) for name in CLASSES if ("spread", name) in counted], told


CLASSES = ("≤ 1 %", "≤ 2 %", "> 2 %")
"""Of spreads: cells of the first need 8 processes, of the second 12; nothing is promised for the third."""


def spread_class(spread: float) -> str:
    """The class that a spread between processes belongs to."""
    return CLASSES[0] if spread <= 0.01 else CLASSES[1] if spread <= 0.02 else CLASSES[2]


def peer(rule: peers.Rule, pool: Pool, wanted: int, seeds: list[int]) -> Peer:
    """False alarms and detection of another rule."""
    told = Peer(rule=rule.name, of=rule.of, processes=rule.processes, placement=rule.placement)
    if not peers.possible(rule, pool):
        return msgspec.structs.replace(told, reason=f"the pool of {pool.processes} processes is too small for it")
    null = peers.ask(rule, pool, COPY, np.random.default_rng([*seeds, 0]), wanted)
    detected, by_kernel = {}, {}
    for number, (variant, share) in enumerate(SLOWER.items(), 1):
        asked = peers.ask(rule, pool, variant, np.random.default_rng([*seeds, number]), wanted)
        detected[f"{share:.2f}"] = _rate(asked.said.slower)
        by_kernel[f"{share:.2f}"] = {name: _rate(asked.said.slower[asked.kernels == k]) for k, name in enumerate(pool.kernels)}
    return msgspec.structs.replace(
        told,
        cells=_rate(null.said.slower),
        different=_rate(null.said.different),
        families=_rate(null.families.any(axis=1)),
        cells_by_kernel={name: _rate(null.said.slower[null.kernels == k]) for k, name in enumerate(pool.kernels)},
        detection=detected,
        detection_by_kernel=by_kernel,
    )


def _rate(flags: Any) -> Rate:
    return Rate(int(np.count_nonzero(flags)), int(np.size(flags)))
