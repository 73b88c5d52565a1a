"""The pool of processes as numbers, and the small file that holds them: the study can be told again without measuring."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..manifest import Environment
from ..plan import UsageError
from .subjects import COPY, OTHERS, SLOWER, VARIANTS

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1
KEPT = 60
"""Samples of each process and variant that are stored: what the rules of other tools look at."""

Array = np.ndarray[Any, np.dtype[np.float64]]


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pool comes from."""

    schema: int = SCHEMA_VERSION
    version: str
    """Of kerneldyno."""
    created: str
    """When the first process was measured: ISO 8601, UTC."""
    environment: Environment | None
    """None for a pool that was simulated."""
    labels: dict[str, str]
    """Kernel -> its problem in a few characters."""
    measured_s: float
    """Seconds that measuring took, all batches together."""
    left_out: dict[str, int] = {}
    """Kernel -> processes that lack a variant and were left out."""


@dataclass(frozen=True)
class Pool:
    """For several kernels, what each of many fresh processes measured of every variant in the same rounds."""

    about: About
    kernels: tuple[str, ...]
    log_ratios: Array
    """float64 [kernel, other variant, process]: median over rounds of ln t_variant - ln t_base, processes in order of time."""
    medians_s: Array
    """float64 [kernel, variant, process]: seconds per call."""
    samples_s: np.ndarray[Any, np.dtype[np.float32]]
    """float32 [kernel, variant, process, KEPT]: samples evenly spread over the rounds, in order."""

    @property
    def processes(self) -> int:
        """Of each kernel."""
        return int(self.log_ratios.shape[2])

    def of(self, variant: str) -> Array:
        """[kernel, process]: the log ratios of a variant to the base."""
        found: Array = self.log_ratios[:, OTHERS.index(variant)]
        return found

    @property
    def copies(self) -> Array:
        """[kernel, process]: the log ratios of equal kernels."""
        return self.of(COPY)

    def correction(self, variant: str) -> Array:
        """[kernel]: ln of the constant factor that makes a slowed variant's mean ratio exactly its name; 0 for the copy."""
        found = self.of(variant)
        if variant not in SLOWER:
            return np.zeros(len(found))
        correction: Array = np.log1p(SLOWER[variant]) - found.mean(axis=1)
        return correction

    def named(self, variant: str) -> Array:
        """[kernel, process]: the log ratios of a variant to the base, by its `correction`."""
        found: Array = self.of(variant) + self.correction(variant)[:, None]
        return found

    def save(self, path: Path) -> None:
        """Write the compact file, whole or not at all."""
        content = io.BytesIO()
        np.savez_compressed(
            content,
            about=np.frombuffer(msgspec.json.encode(self.about), dtype=np.uint8),
            kernels=np.array(self.kernels),
            variants=np.array(VARIANTS),
            log_ratios=self.log_ratios,
            medians_s=self.medians_s,
            samples_s=self.samples_s,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        temporary.write_bytes(content.getvalue())
        temporary.replace(path)


def load(path: Path) -> Pool:
    """The pool of a file. Raises UsageError, with one sentence, for a file that is none."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            about = msgspec.json.decode(stored["about"].tobytes(), type=About)
            variants = tuple(stored["variants"].tolist())
            found = Pool(about, tuple(stored["kernels"].tolist()), stored["log_ratios"], stored["medians_s"], stored["samples_s"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, msgspec.DecodeError) as error:
        raise UsageError(f"{path.name} is not a pool of the study: give the pool.npz that an earlier study wrote ({error})") from error
    if about.schema != SCHEMA_VERSION or variants != VARIANTS:
        raise UsageError(f"{path.name} holds schema {about.schema} with {', '.join(variants)}: measure again with this version")
    return found


def evenly(values: Any, count: int = KEPT) -> np.ndarray[Any, np.dtype[np.float32]]:
    """So many of a sequence, evenly spread and in order; some of them repeatedly where there are fewer."""
    places = np.linspace(0, len(values) - 1, count).round().astype(int)
    found: np.ndarray[Any, np.dtype[np.float32]] = np.asarray(values, dtype=np.float32)[places]
    return found
