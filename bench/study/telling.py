"""The study as Markdown: tables for people, on the terminal and in study.md. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..compare.outcome import MEANINGS as MEANINGS_BY_CODE
from .rates import BOUND, LEAST_SEEN, MOST_FALSE, PROMISED
from .subjects import SLOWER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .rates import Codes, Detection, FalseAlarms, Kernel, Peer, Rate, Study

SHARES = tuple(SLOWER.values())
MEANINGS = {str(code): meaning for code, meaning in MEANINGS_BY_CODE.items()}
WORDS = ("REGRESSED", "IMPROVED", "SAME", "INCONCLUSIVE")


def markdown(study: Study) -> str:
    """The whole study."""
    machine = study.pool.environment
    where = f"{machine.device_name}, {machine.threads} threads, torch {machine.versions.get('torch', '-')}" if machine else "simulated"
    lines = [
        "# How often a comparison is wrong",
        "",
        f"{study.processes} fresh processes of each of {len(study.kernels)} kernels ({where}; measured in {study.pool.measured_s / 60:.0f} "
        f"min, analysed in {study.analysed_s / 60:.1f} min). Each measured a kernel, a second copy of it and copies slowed by "
        f"{', '.join(f'{share:.0%}' for share in SHARES)} in the same rounds. {study.families} families of {study.cells} cells per "
        "condition were drawn from them; each cell is a kernel drawn at random, its processes drawn without replacement. The rule is "
        f"that of `kerneldyno compare`: margin {study.terms.margin:.0%}, α = {study.terms.alpha:.0%}, "
        f"{study.terms.processes} or {study.terms.more_processes} processes, {study.terms.second_look} more for a second look.",
        "",
        "What was planted came out a little larger or smaller than its name (the first table has what was measured). In all that "
        "follows the log ratios of each kernel's variant are shifted by a constant, and for rules over samples its samples "
        "multiplied by the same factor, so that its mean ratio is exactly its name; copies are taken as they are.",
        "",
        *_kernels(study.kernels),
        *_false(study.false_alarms, study.cells),
        *_detection(study),
        *_peers(study.peers, study),
        "## Goals",
        "",
    ]
    promised = ", ".join(f"{least:.0%} at +{slowdown:.0%}" for slowdown, least in LEAST_SEEN.items())
    lines += [
        f"At most {MOST_FALSE:.0%} of families with a false alarm, the bound too (the greater of that of the bootstrap and Clopper and "
        f"Pearson's, here {study.false_alarms.bound:.2%}); {promised} seen at the first look of kernels whose copies scatter by "
        f"{' or '.join(PROMISED)}.",
        "",
    ]
    lines += [f"- missed: {sentence}" for sentence in study.missed] or ["All reached."]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table in aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if not place else cell.rjust(width) for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (width + 2) if not place else "-" * (width + 1) + ":" for place, width in enumerate(widths))
    return [line(head), f"|{rule}|", *(line(row) for row in rows), ""]


def _share(rate: Rate | None) -> str:
    return "–" if rate is None or not rate.of else f"{rate.share:.1%}"


def _bounded(rate: Rate) -> str:
    return f"{rate.count} of {rate.of} (at most {rate.upper:.2%})"


def _exits(codes: Mapping[str, int], when: str) -> list[list[str]]:
    total = sum(codes.values())
    return [[f"{when}exit code {code} ({MEANINGS.get(code, '')})", f"{count} of {total}"] for code, count in codes.items()]


def _kernels(kernels: Sequence[Kernel]) -> list[str]:
    head = ("kernel", "ms", "median between processes", "pair spread", "copy / base", *(f"+{share:.0%}" for share in SHARES), "lag 1")
    rows = []
    for one in kernels:
        slower = [f"{one.ratios[variant] - 1:+.1%} ± {one.spreads[variant]:.1%}" for variant in SLOWER]
        copy = f"{one.copy_ratio:.4f} [{one.copy_low:.4f}, {one.copy_high:.4f}]"
        lag = "–" if one.autocorrelation is None else f"{one.autocorrelation:+.2f}"
        rows.append(
            [
                f"{one.name} {one.label}",
                f"{one.median_s * 1e3:.2f}",
                f"{one.between_processes:.1%}",
                f"{one.spread:.2%}",
                copy,
                *slower,
                lag,
            ]
        )
    said = (
        "Between processes: standard deviation of the logarithm, of a kernel's own median and of its ratio to its copy (pair spread). "
        "Lag 1: correlation of a process with the next."
    )
    return ["## The pool", "", *_table(head, rows), said, ""]


def _false(false: FalseAlarms, cells: int) -> list[str]:
    total = sum(false.words.values())
    rows = [
        ["families with a cell called regressed", f"{false.families.count} of {false.families.of}"],
        ["… at the first look", f"{false.first_look.count} of {false.first_look.of}"],
        [f"{BOUND:.0%} upper bound, bootstrap over processes ({false.replicates} pools)", f"{false.upper:.2%}"],
        ["… were the families independent of each other (Clopper–Pearson)", f"{false.families.upper:.2%}"],
        ["families with an alarm in all those pools", f"{false.resampled.count} of {false.resampled.of}"],
    ]
    for one in false.disjoint:
        looks = "first look" if one.looks == 1 else "both looks"
        rows.append([f"disjoint families, {one.processes} consecutive processes a cell, {looks}", _bounded(one.families)])
        rows.append([f"disjoint cells, likewise, families of up to {cells}", _bounded(one.cells)])
    rows += [
        ["families with a cell called improved", _bounded(false.improved)],
        ["cells called improved", _bounded(false.improved_cells)],
    ]
    rows += [[f"cells called {word}", f"{false.words.get(word, 0) / total:.2%}"] for word in WORDS]
    rows += _exits(false.exit_codes, "")
    rows += [
        ["canaries called different", _bounded(false.canaries)],
        ["families with such a canary", _bounded(false.canary_families)],
        ["nothing changed, --all: families with a cell called regressed or improved in the end", _bounded(false.unchanged)],
        *_exits(false.unchanged_exit_codes, "nothing changed, --all: "),
    ]
    return ["## Nothing changed", "", *_table(("what", "how often"), rows)]


def _detection(study: Study) -> list[str]:
    said = (
        "Share of slowed cells called regressed: at the first look → in the end, and in brackets the spread of the slowed kernel "
        "itself. Whether a kernel counts for the goals is decided by the spread of its copy in the pool. A single slowed cell is a canary "
        "as well in half of the families."
    )
    lines = ["## Something is slower", "", said, ""]
    for title, found in (("kernel (pair spread of its copy)", study.detection), ("spread seen at the first look", study.by_seen_spread)):
        head = (title, "slowed", *(f"+{share:.0%}" for share in SHARES))
        keys = list(dict.fromkeys((one.what, one.slowed) for one in found))
        by_key = {(one.what, one.slowed, one.slowdown): one for one in found}
        classes = {one.what: "" if one.spread is None else f" ({one.spread_class})" for one in found}
        rows = [[what + classes[what], slowed, *(_seen(by_key.get((what, slowed, share))) for share in SHARES)] for what, slowed in keys]
        lines += _table(head, rows)
    return [*lines, *_codes(study.codes)]


def _codes(codes: Sequence[Codes]) -> list[str]:
    """What CI is told of families in which something is slower."""
    every = sorted({code for one in codes for code in one.exit_codes})
    head = ("slower", "slowed", *(f"exit {code}: {MEANINGS.get(code, '')}" for code in every), "families with a canary called different")
    rows = [
        [f"+{one.slowdown:.0%}", one.slowed]
        + [f"{one.exit_codes.get(code, 0)} of {sum(one.exit_codes.values())}" for code in every]
        + [f"{one.canary_families.count} of {one.canary_families.of}"]
        for one in codes
    ]
    return _table(head, rows)


def _seen(one: Detection | None) -> str:
    if one is None:
        return "–"
    spread = "" if one.spread is None else f" ({one.spread:.1%})"
    cells = "" if one.spread is not None else f" of {one.final.of}"
    return f"{_share(one.first_look)} → {_share(one.final)}{cells}{spread}"


def _peers(peers: Sequence[Peer], study: Study) -> list[str]:
    head = ("rule", "processes", "false: cells", "different", f"families of {study.cells}", *(f"+{share:.0%} seen" for share in SHARES))
    rows = [_ours(study)]
    rows += [
        [
            f"{one.rule} ({one.of})",
            f"{one.processes} {one.placement}",
            _share(one.cells),
            _share(one.different),
            _share(one.families),
            *(_share(one.detection.get(f"{share:.2f}")) for share in SHARES),
        ]
        for one in peers
    ]
    said = (
        "False: equal kernels called slower (“different”: slower or faster). In turn: the candidate's processes were measured right "
        "after the base's, as these tools are commonly used, wherever in the pool they begin; apart: base and candidate in any "
        "different processes, so that an hour may lie between them; same: both in the same processes. What kerneldyno sees is "
        f"what it says in the end, with one of {study.cells} cells slower. {study.agreement}."
    )
    return ["## Other rules on the same processes", "", *_table(head, rows), said, ""]


def _ours(study: Study) -> list[str]:
    false = study.false_alarms
    total = sum(false.words.values())
    cells = false.words.get("REGRESSED", 0) / total
    different = cells + false.words.get("IMPROVED", 0) / total
    seen = []
    for share in SHARES:
        mine = [one.final for one in study.detection if one.slowdown == share and one.slowed == "one"]
        seen.append(f"{sum(one.count for one in mine) / max(sum(one.of for one in mine), 1):.1%}")
    processes = f"{study.terms.processes}–{study.terms.more_processes + study.terms.second_look} same"
    return ["kerneldyno compare", processes, f"{cells:.1%}", f"{different:.1%}", _share(false.families), *seen]
