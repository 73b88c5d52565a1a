"""What distinguishes problems beside batch and sequence length, in words; and the grid that kernels and shapes span."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kerneldyno.bench.variants import Variant, variants

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Columns", "Grid", "Row", "Variant", "grids", "titles", "variants"]

SHORT_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
WORDS = {("causal", False): "not causal", ("direction", "backward"): "forward + backward"}
COLUMNS_PER_GRID = 12

Row = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """The columns of a grid that belong to one variant."""

    title: str
    """How it differs from the operator's other variants; empty when there are none."""
    dtype: str
    shapes: list[tuple[int, int]]
    """(batch, seq_len), ascending."""


@dataclass
class Grid:
    """One table of an operator: kernels downwards, and across the shapes of one or more variants."""

    operator: str
    common: str
    """What all shapes of the operator share, in words."""
    columns: list[Columns] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    cells: dict[tuple[str, str, int, int], Row] = field(default_factory=dict)
    """(kernel, variant's title, batch, seq_len) -> row of the results."""

    @property
    def width(self) -> int:
        return sum(len(columns.shapes) for columns in self.columns)


def titles(found: Iterable[Variant]) -> tuple[dict[Variant, str], str]:
    """A title for each variant of one operator that says how it differs from the others, and what all have in common."""
    unique = list(dict.fromkeys(found))
    facts = {variant: _facts(variant) for variant in unique}
    names = list(dict.fromkeys(name for fact in facts.values() for name in fact))
    shared = [name for name in names if all(name in fact and fact[name] == facts[unique[0]][name] for fact in facts.values())]
    named = {}
    for variant, fact in facts.items():
        words = {name: _word(name, value) for name, value in fact.items() if name not in shared}
        positive = [word for name, word in words.items() if word and fact[name] is not False]
        named[variant] = " · ".join(positive or [word for word in words.values() if word] or ["plain"])
    for title in [title for title in named.values() if list(named.values()).count(title) > 1]:
        same = [variant for variant in unique if named[variant] == title]
        named |= {variant: f"{title} ({number})" for number, variant in enumerate(same, 1) if len(same) > 1}
    named = dict(sorted(named.items(), key=lambda item: _depth(item[0])))
    common = [word for name in shared if (word := _word(name, facts[unique[0]][name])) and facts[unique[0]][name] is not False]
    return named, " · ".join(common)


def grids(rows: Sequence[Row], by_case: Mapping[str, Variant]) -> list[Grid]:
    """Tables of the rows, operator by operator, with few enough columns to be read; a long variant stays in one piece."""
    made: list[Grid] = []
    for operator in dict.fromkeys(row["operator"] for row in rows):
        own = [row for row in rows if row["operator"] == operator]
        rows_of: dict[Variant, list[Row]] = {}
        for row in own:
            rows_of.setdefault(by_case[row["case"]], []).append(row)
        named, common = titles(rows_of)
        grid = None
        for variant, title in named.items():
            inside = rows_of[variant]
            shapes = sorted({(row["batch"], row["seq_len"]) for row in inside})
            if grid is None or grid.width + len(shapes) > COLUMNS_PER_GRID:
                grid = Grid(operator, common)
                made.append(grid)
            columns = Columns(title if len(named) > 1 else "", variant.dtype, shapes)
            grid.columns.append(columns)
            grid.kernels = list(dict.fromkeys([*grid.kernels, *(row["kernel"] for row in inside)]))
            grid.cells |= {(row["kernel"], columns.title, row["batch"], row["seq_len"]): row for row in inside}
    return made


def _depth(variant: Variant) -> int:
    """Where in its model a layer lies; 0 for problems of no model, which keep the order of the plan."""
    layer = str(dict(variant.fields).get("given") or "").partition("@")[0].rpartition("/")[2]
    return int(layer) if layer.isdigit() else 0


def _facts(variant: Variant) -> dict[str, Any]:
    return dict(variant.fields) | {"dtype": variant.dtype, "device": variant.device}


def _word(name: str, value: Any) -> str:
    """A field of a problem in words; nothing for what is not remarkable."""
    if (name, value) in WORDS:
        return WORDS[name, value]
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if name == "dtype":
        return SHORT_DTYPES.get(value, str(value))
    if isinstance(value, str):
        if name == "given":  # NAME/LAYER@DIGEST of a model
            model, _, layer = value.partition("@")[0].rpartition("/")
            return f"{model} layer {layer}"
        if name in {"bias", "mask"}:
            return f"{value} {name}" if value != "none" else ""
        return "" if value in {"none", "forward"} else value
    return "" if value is None else f"{name} {value}"
