"""How far one tensor is from the right one, where it is worst, and the two ways in which a kernel fails the gate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ..records import Distance, Errors

AXES = {4: ("batch", "head", "row", "feature"), 3: ("batch", "row", "feature"), 2: ("row", "column"), 1: ("place",)}


class WrongOutput(Exception):
    """The output is not what the problem defines; the message says in which probe, where, what was expected and what came."""


class Misconduct(Exception):
    """The kernel cheats, or behaves so that its number could not be trusted, or would harm the others'."""


@contextmanager
def named(probe: str) -> Iterator[None]:
    """Begin the complaints about a kernel with the name of the probe in which they came up."""
    try:
        yield
    except WrongOutput as error:
        raise WrongOutput(f"{probe}: {error}") from error.__cause__
    except Misconduct as error:
        raise Misconduct(f"{probe}: {error}") from error.__cause__


def measured(name: str, got: torch.Tensor, right: torch.Tensor, yardstick: tuple[float, float]) -> Errors:
    """The errors of one tensor, against the (largest, rms) error of the textbook formula."""
    error = got.double() - right
    largest, square = float(error.abs().max()), rms(error)
    scale = rms(right)
    return Errors(
        max_ratio=largest / yardstick[0],
        rms_ratio=square / yardstick[1],
        max_abs=largest,
        relative_rms=square / scale if scale else 0.0,
        tensor=name,
    )


def distance(got: torch.Tensor, exact: torch.Tensor) -> Distance:
    """How far an approximate output is from the exact one: relative rms, cosine and the largest error."""
    approximate = got.double()
    error = approximate - exact
    scale = rms(exact)
    norms = float(approximate.norm() * exact.norm())
    return Distance(
        relative_rms=rms(error) / scale if scale else 0.0,
        cosine=float((approximate * exact).sum()) / norms if norms else 0.0,
        max_abs=float(error.abs().max()),
    )


def worst_place(got: torch.Tensor, right: torch.Tensor, rows: torch.Tensor | None = None) -> str:
    """Where the largest error lies, and both numbers: "batch 0, head 3, row 128, feature 5: expected 0.25, got 0.5".

    `rows` are the positions that the tensors' rows stand for, where they are not all; the numbers of a vector are its rows.
    """
    error = (got.double() - right).abs()
    flat = int(torch.where(error.isnan(), torch.inf, error).argmax())
    index = [int(i) for i in np.unravel_index(flat, tuple(error.shape))]
    wanted, found = float(right[tuple(index)]), float(got[tuple(index)])
    if rows is not None:
        axis = max(len(index) - 2, 0)
        index[axis] = int(rows[index[axis]])
    names = AXES.get(len(index), tuple(f"axis {i}" for i in range(len(index))))
    place = ", ".join(f"{name} {i}" for name, i in zip(names, index, strict=True))
    return f"{place}: expected {wanted:.6g}, got {found:.6g}"


def rms(tensor: torch.Tensor) -> float:
    """The root of the mean square."""
    return float(tensor.double().square().mean().sqrt())
