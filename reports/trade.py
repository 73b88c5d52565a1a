"""The trade of speed against error: which shapes are drawn, what came out in a sentence, and the table that says the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import units
from .figures import error_of
from .names import marked, short
from .tables import Listing, Text

Row = Mapping[str, Any]

DECODE = 16
"""At most so many queries against a longer cache are a decode step; more are prefill."""
STRUCTURED = "structured"
INPUTS = ("random", STRUCTURED)
"""What inputs may be drawn like, in the order of the page."""
SMALL_ERROR = 0.1
"""An approximation within this relative error is called close in the sentence above the figures."""


@dataclass(frozen=True)
class Panel:
    """One small figure: the kernels at one shape, on inputs drawn in one way."""

    stage: str
    """prefill or decode; empty where the operator has no such stages."""
    shape: str
    inputs: str
    """random or structured; empty where all are random."""
    rows: list[Row]

    @property
    def title(self) -> str:
        """What distinguishes it, for a caption."""
        return " · ".join(word for word in (self.stage, self.shape, f"{self.inputs} inputs" if self.inputs else "") if word)


def tradable(row: Row) -> bool:
    """The row has both numbers: a speedup and an error."""
    return row["status"] == "ok" and bool(row["speedup"]) and error_of(row) is not None


def drawn_like(row: Row) -> str:
    """How the inputs of the row's problem were drawn."""
    return STRUCTURED if row.get(STRUCTURED) else INPUTS[0]


def shape_of(row: Row) -> str:
    """The label of the problem, whichever way its inputs were drawn."""
    return " ".join(word for word in str(row["label"]).split() if word != STRUCTURED)


def stage_of(row: Row) -> str:
    """Prefill or decode, for attention."""
    if row["operator"] != "attention" or row.get("q_len") is None:
        return ""
    return "decode" if row["q_len"] <= DECODE and row["q_len"] < (row.get("kv_len") or 0) else "prefill"


def kinds_of(rows: Iterable[Row]) -> list[str]:
    """The ways in which the inputs of these rows were drawn."""
    found = {drawn_like(row) for row in rows}
    return [kind for kind in INPUTS if kind in found]


def panels(rows: Sequence[Row]) -> list[Panel]:
    """What is drawn of one operator: of each stage the shape that says most, once for each way in which inputs were drawn.

    Nothing where no approximate kernel has a speedup and an error.
    """
    rows = [row for row in rows if tradable(row)]
    told = kinds_of(rows) != [INPUTS[0]]
    made = []
    for stage in ("prefill", "decode", ""):
        shapes: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            if stage_of(row) == stage:
                shapes.setdefault((shape_of(row), row["device"]), []).append(row)
        own = max(shapes.values(), key=_says, default=[])
        if not any(row["approximate"] for row in own):
            continue
        for kind in kinds_of(own):
            inside = [row for row in own if drawn_like(row) == kind]
            made.append(Panel(stage, shape_of(inside[0]), kind if told else "", inside))
    return made


def _says(own: Sequence[Row]) -> tuple[int, int, int]:
    """How much a shape has to say: first on as many kinds of inputs as any, then many approximations, then large."""
    return len(kinds_of(own)), len({row["kernel"] for row in own if row["approximate"]}), own[0]["flops"]


def takeaway(drawn: Sequence[Panel]) -> str:
    """A sentence or two for each shape drawn: which approximation is worth it, and which is merely fast."""
    told = []
    for shape in dict.fromkeys((panel.stage, panel.shape) for panel in drawn):
        at = {panel.inputs: panel.rows for panel in drawn if (panel.stage, panel.shape) == shape}
        told.append(_told(f"{shape[0].capitalize()} at {shape[1]}" if shape[0] else f"At {shape[1]}", at))
    return " ".join(told)


def _told(place: str, at: Mapping[str, Sequence[Row]]) -> str:
    kind = STRUCTURED if STRUCTURED in at else next(iter(at))
    loose = sorted((row for row in at[kind] if row["approximate"]), key=lambda row: -row["speedup"])
    if not loose:
        return f"{place}: no approximation was measured on {kind} inputs."
    base = short(loose[0]["baseline"])
    close = [row for row in loose if (error_of(row) or 0) <= SMALL_ERROR]
    faster = [row for row in close if row["speedup"] > 1]
    where = f" on {kind} inputs" if kind else ""
    first = (faster or close or [min(loose, key=lambda row: error_of(row) or 0)])[0]
    within = f"within {units.error(SMALL_ERROR)} error{where}"
    if faster:
        said = f"{place}: {within}, {short(first['kernel'])} is the fastest"
    elif close:
        said = f"{place}: {within}, nothing is faster than {base}; {short(first['kernel'])} comes next"
    else:
        said = f"{place}: nothing stays {within}; {short(first['kernel'])} is the closest"
    said += f", {_speed(first, base)} at {_errors(first, at, kind)}"
    if loose[0]["kernel"] != first["kernel"] and loose[0]["speedup"] > 1:
        said += f"; {short(loose[0]['kernel'])} is the fastest of all, {_speed(loose[0], base)} at {_errors(loose[0], at, kind)}"
    return said + "."


def _errors(row: Row, at: Mapping[str, Sequence[Row]], kind: str) -> str:
    """The error of a kernel on each kind of inputs: "6 % error (31 % on random inputs)"."""
    own = f"{units.error(error_of(row))} error"
    others = [
        f"{units.error(error_of(other))} on {inputs} inputs"
        for inputs, rows in at.items()
        for other in rows
        if inputs != kind and other["kernel"] == row["kernel"]
    ]
    return f"{own} ({', '.join(others)})" if others else own


def _speed(row: Row, base: str) -> str:
    return f"{units.times(row['speedup'])} the speed of {base}"


def listing(rows: Sequence[Row]) -> Listing:
    """Speedup and error of every kernel at every shape of one operator, once for each way in which inputs were drawn; fastest first."""
    rows = [row for row in rows if tradable(row)]
    kinds = kinds_of(rows)
    shapes: dict[tuple[str, str], dict[str, dict[str, Row]]] = {}
    for row in sorted(rows, key=lambda row: (("prefill", "decode", "").index(stage_of(row)), -row["flops"], shape_of(row))):
        shapes.setdefault((row["device"], shape_of(row)), {}).setdefault(row["kernel"], {})[drawn_like(row)] = row
    bodies = []
    for (_, shape), kernels in shapes.items():
        order = sorted(kernels.values(), key=lambda own: -max(row["speedup"] for row in own.values()))
        stage = stage_of(next(iter(order[0].values())))
        bodies.append((f"{stage} · {shape}" if stage else shape, [_line(own, kinds) for own in order]))
    told = kinds != [INPUTS[0]]
    numbers = [
        (heading, f"{kind} inputs" if told else below, True)
        for kind in kinds
        for heading, below in (("speedup", "× baseline"), ("error", "relative rms"))
    ]
    return Listing("speed against error", [("kernel", "", False), *numbers, ("ran as", "", False)], bodies)


def _line(own: Mapping[str, Row], kinds: Sequence[str]) -> tuple[Row, list[Text]]:
    """One kernel at one shape, its rows given by how their inputs were drawn."""
    some = next(iter(own.values()))
    cells: list[Text] = [marked(some["kernel"], some["approximate"])]
    for kind in kinds:
        row = own.get(kind)
        cells += [(units.times(row["speedup"]), row["case"]), units.error(error_of(row))] if row else ["–", "–"]
    return some, [*cells, some["identity"] or "–"]
