"""Results as text for other programs: the table of a run as CSV, or as JSON with one object for each case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from .frame import replacing, rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pandas as pd

FORMATS = ("csv", "json")


def as_json(results: Iterable[Mapping[str, Any]]) -> str:
    """A JSON list with an object for each row, each on a line of its own, so that two files differ where two rows do.

    Keys are the columns in their order, quantities are in SI units. What was not measured is null, and so is a number that
    JSON does not have, such as the end of an interval that is not known.
    """
    return "[\n" + ",\n".join(msgspec.json.encode(row).decode() for row in results) + "\n]\n"


def write(results: pd.DataFrame, path: Path, form: str) -> Path:
    """Write `frame.results` to a file as `form`, one of FORMATS, replacing what is there; the path. Raises OSError where it cannot be."""
    if form == "csv":
        return replacing(path, lambda partial: results.to_csv(partial, index=False))
    return replacing(path, lambda partial: partial.write_text(as_json(rows(results)), encoding="utf-8"))
