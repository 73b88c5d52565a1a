"""The compact file of a pool: what is stored comes back, it is small, and what is none is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from kerneldyno.bench.plan import UsageError
from kerneldyno.bench.study import samples
from kerneldyno.bench.study.samples import KEPT, Pool, evenly, load
from kerneldyno.bench.study.subjects import COPY, SLOWER


def test_a_pool_is_read_as_it_was_written(simulated, tmp_path):
    pool = simulated([0.005, 0.01])
    pool.save(tmp_path / "folder" / "pool.npz")
    found = load(tmp_path / "folder" / "pool.npz")
    assert found.about == pool.about
    assert found.kernels == pool.kernels
    for name in ("log_ratios", "medians_s", "samples_s"):
        assert np.array_equal(getattr(found, name), getattr(pool, name)), name
        assert getattr(found, name).dtype == getattr(pool, name).dtype
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["pool.npz"]


def test_the_file_of_a_whole_study_is_small_enough_to_be_published(simulated, tmp_path):
    simulated([0.005] * 4).save(tmp_path / "pool.npz")
    assert (tmp_path / "pool.npz").stat().st_size < 1.5e6


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 torn"])
def test_what_is_no_pool_is_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.npz is not a pool of the study"):
        load(tmp_path / "x.npz")


def test_a_file_that_is_missing_or_holds_something_else_is_refused(tmp_path, simulated):
    with pytest.raises(UsageError, match="is not a pool"):
        load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(UsageError, match="is not a pool"):
        load(tmp_path / "other.npz")
    pool = simulated([0.01])
    newer = Pool(msgspec.structs.replace(pool.about, schema=99), pool.kernels, pool.log_ratios, pool.medians_s, pool.samples_s)
    newer.save(tmp_path / "newer.npz")
    with pytest.raises(UsageError, match="schema 99"):
        load(tmp_path / "newer.npz")


def test_the_stored_samples_are_spread_over_all_rounds():
    kept = evenly(list(range(300)))
    assert len(kept) == KEPT
    assert kept.dtype == np.float32
    assert (kept[0], kept[-1]) == (0, 299)
    assert (np.diff(kept) > 0).all()
    assert evenly([1.0, 2.0]).tolist() == [1.0] * (KEPT // 2) + [2.0] * (KEPT // 2)


def test_a_variant_s_ratios_are_its_own(simulated):
    pool = simulated([0.0])
    assert pool.copies[0] == pytest.approx(0.0)
    assert np.expm1(pool.of("slower_by_20")[0]) == pytest.approx(0.20)
    assert pool.processes == 120
    assert pool.about.schema == samples.SCHEMA_VERSION


def test_a_variant_is_taken_for_exactly_what_its_name_says_and_a_copy_for_what_it_is(simulated):
    pool = simulated([0.005, 0.02], processes=40, ratio=1.008)
    for variant, share in SLOWER.items():
        assert pool.named(variant).mean(axis=1) == pytest.approx(np.log1p(share), abs=1e-12)
        assert np.abs(pool.of(variant).mean(axis=1) - np.log1p(share)).min() > 1e-3  # else there was nothing to mend
        assert pool.named(variant).std(axis=1) == pytest.approx(pool.of(variant).std(axis=1))
    assert np.array_equal(pool.named(COPY), pool.copies)
    assert pool.correction(COPY).tolist() == [0.0, 0.0]
