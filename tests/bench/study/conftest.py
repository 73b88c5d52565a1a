"""Pools whose truth is known: normal or heavy-tailed differences between processes, with or without effects of a process."""

from __future__ import annotations

import numpy as np
import pytest

from kerneldyno.bench.study.samples import KEPT, About, Pool
from kerneldyno.bench.study.subjects import SLOWER, SUBJECTS, VARIANTS


def made(spreads, *, processes=120, tails=None, of_process=0.05, within=0.02, ratio=1.0, seed=0):
    """A pool with one kernel for each spread; `tails` are degrees of freedom of Student's t, scaled to the spread.

    Every variant is slower by its share, and all by `ratio` besides.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.normal if tails is None else lambda size: rng.standard_t(tails, size) / np.sqrt(tails / (tails - 2))
    shares = np.log(ratio) + np.log1p([0.0, *SLOWER.values()])
    log_ratios = np.stack([shares[:, None] + spread * drawn(size=(len(shares), processes)) for spread in spreads])
    base = np.log(1e-3) + of_process * rng.normal(size=(len(spreads), 1, processes))
    medians = np.exp(np.concatenate([base, base + log_ratios], axis=1))
    samples = (medians[..., None] * np.exp(within * rng.normal(size=(len(spreads), len(VARIANTS), processes, KEPT)))).astype(np.float32)
    names = tuple(SUBJECTS)[: len(spreads)]
    about = About(version="0", created="2026-01-01T00:00:00+00:00", environment=None, labels={}, measured_s=60.0)
    return Pool(about, names, log_ratios, medians, samples)


@pytest.fixture
def simulated():
    return made
