"""The model that --model, --weights, --inputs and --layers name, in every command that has them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ..models import Chosen


def model(folder: Path | None, weights: Path | None, inputs: Path | None, layers: str | None, option: str = "--layers") -> Chosen | None:
    """The model, checked; None when none is named. What is not its own of the numbers to come is said on standard error."""
    from .. import models, options

    found = models.chosen(folder, weights, inputs, options.words(layers, option), option)
    for note in found.notes() if found is not None else ():
        print(f"kerneldyno: {note}", file=sys.stderr)
    return found
