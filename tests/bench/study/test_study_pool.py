"""Measuring the pool: what counts as a whole process, going on after an interruption, and the real thing, very small."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest

from kerneldyno.bench import plan
from kerneldyno.bench.journal import JOURNAL, Run
from kerneldyno.bench.manifest import PROTOCOLS, Environment, Manifest, Settings
from kerneldyno.bench.plan import UsageError
from kerneldyno.bench.records import Measurement, Process
from kerneldyno.bench.study import pool
from kerneldyno.bench.study.pool import Asked, chosen, measure, require_new, whole
from kerneldyno.bench.study.rates import Study
from kerneldyno.bench.study.samples import load
from kerneldyno.bench.study.subjects import SUBJECTS, VARIANTS, planted
from kerneldyno.kernels import registry
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device

KERNEL = "attention/sdpa"
RATIOS = {variant: 1 + number / 10 for number, variant in enumerate(VARIANTS)}
MACHINE = Environment(
    device="cpu",
    device_name="x",
    os="x",
    python="3.11.0",
    versions={},
    cpu_name="x",
    cpu_cores=2,
    cpu_features=(),
    memory_bytes=1,
    threads=2,
)


def batch(workers, *, missing=(), environment=MACHINE, kernels=None):
    """A run in which each variant takes RATIOS times a base that differs from worker to worker."""
    found = registry.load([pool.PLUGIN], declarations_only=True)
    named = [found[planted(KERNEL, variant)] for variant in VARIANTS]
    made = plan.make(named, [Attention(q_len=SUBJECTS[KERNEL])], Device("cpu"), seed=0)
    manifest = Manifest(
        version="1",
        created="2026-01-01T00:00:00+00:00",
        settings=Settings(protocol=PROTOCOLS["paired"]),
        environment=environment,
        cases=made.cases,
    )
    run = Run("batch", manifest)
    for case, variant in zip(made.cases, VARIANTS, strict=True):
        processes = [
            Process(worker=worker, samples_s=[worker * RATIOS[variant] * factor for factor in (1.0, 1.01, 0.99)], rounds=[0, 1, 2])
            for worker in workers
            if (worker, variant) not in missing
        ]
        if processes:
            run.measurements[case.id] = Measurement(case=case.id, status="ok", processes=processes)
    return run


def test_a_process_is_whole_when_it_sampled_every_variant():
    assert len(whole(batch([2, 3, 4]), KERNEL)) == 3
    assert [one["base"].worker for one in whole(batch([2, 3, 4], missing={(3, "slower_by_5")}), KERNEL)] == [2, 4]
    assert whole(batch([]), KERNEL) == []
    assert whole(batch([2]), "attention/onnxrt") == []


def test_batches_are_joined_in_order_and_paired_within_a_process(monkeypatch, tmp_path):
    runs = [batch([2, 3], missing={(3, "copy")}), batch([2, 5])]
    monkeypatch.setattr(pool, "batches", lambda out: runs)
    found = pool.gathered(Asked(tmp_path, (KERNEL,), processes=9))
    assert found.log_ratios.shape == (1, len(VARIANTS) - 1, 3)
    assert np.exp(found.log_ratios[0]) == pytest.approx(np.array([[RATIOS[variant]] * 3 for variant in VARIANTS[1:]]))
    assert found.medians_s[0, 0].tolist() == [2.0, 2.0, 5.0]
    assert found.samples_s.shape[:3] == (1, len(VARIANTS), 3)
    assert found.about.left_out == {KERNEL: 1}
    assert found.about.labels == {KERNEL: "1×8×256×64 fp32"}
    assert pool.gathered(Asked(tmp_path, (KERNEL,), processes=2)).processes == 2


def test_nothing_measured_is_said_so(tmp_path):
    with pytest.raises(UsageError, match="holds no whole process of attention/sdpa"):
        pool.gathered(Asked(tmp_path, (KERNEL,), processes=2))


def test_batches_of_two_machines_are_refused(monkeypatch, tmp_path):
    other = msgspec.structs.replace(MACHINE, cpu_name="y")
    monkeypatch.setattr(pool, "batches", lambda out: [batch([2]), batch([2], environment=other)])
    with pytest.raises(UsageError, match="several machines"):
        measure(Asked(tmp_path, (KERNEL,), processes=9), print)


def test_a_kernel_that_cannot_be_measured_ends_the_study_with_its_reason(monkeypatch, tmp_path):
    empty = batch([])
    for case in empty.manifest.cases:
        empty.measurements[case.id] = Measurement(case=case.id, status="failed", reason="does not build")
    tried = []
    monkeypatch.setattr(pool, "_batch", lambda *_: tried.append(1) or empty)
    with pytest.raises(UsageError, match="attention/sdpa cannot be measured here: does not build; leave it out"):
        measure(Asked(tmp_path, (KERNEL,), processes=9), print)
    assert len(tried) == pool.FRUITLESS


def test_a_request_to_stop_is_heard_before_anything_is_measured(tmp_path):
    assert measure(Asked(tmp_path, (KERNEL,), processes=1), print, lambda: True) is False


def test_kernels_by_name():
    assert chosen(None) == tuple(SUBJECTS)
    assert chosen("layer/sdpa, attention/sdpa,layer/sdpa") == ("layer/sdpa", "attention/sdpa")
    with pytest.raises(UsageError, match="'attention/flex' is not part of the study"):
        chosen("attention/flex")


def test_a_study_that_was_begun_is_not_overwritten(tmp_path):
    require_new(tmp_path)
    (tmp_path / "batch-001").mkdir()
    with pytest.raises(UsageError, match="give --resume"):
        require_new(tmp_path)


def command(tmp_path, *more, **how):
    words = [sys.executable, "-P", "-m", "kerneldyno.bench.study", "--out", str(tmp_path / "study"), "--families", "2"]
    return subprocess.Popen([*words, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ), **how)


@pytest.mark.alone
@pytest.mark.slow
def test_a_tiny_study_is_measured_interrupted_and_gone_on_with(tmp_path):
    words = ("--kernels", "attention/onnxrt", "--processes", "2")
    first = command(tmp_path, *words)
    journal = tmp_path / "study" / "batch-001" / JOURNAL
    for _ in range(1200):  # until the first process has been measured
        if (journal.is_file() and b'"samples_s":[' in journal.read_bytes()) or first.poll() is not None:
            break
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate()
    assert first.returncode == 130, (out, err)
    assert "--resume" in err
    assert command(tmp_path, *words).communicate()[1].startswith("kerneldyno: --out")  # not without being told to

    again = command(tmp_path, *words, "--resume")
    out, err = again.communicate()
    assert again.returncode in (0, 5), err
    assert "batch 2" in out
    found = load(tmp_path / "study" / "pool.npz")
    assert found.log_ratios.shape == (1, len(VARIANTS) - 1, 2)
    assert np.isfinite(found.log_ratios).all()
    assert found.about.environment.threads >= 1
    slowest, fastest = np.median(found.of("slower_by_20")), np.median(found.copies)
    assert slowest - fastest > 0.05  # 20 %, unless the machine is very busy
    study = msgspec.json.decode((tmp_path / "study" / "study.json").read_bytes(), type=Study)
    assert study.pool == found.about
    assert "# How often a comparison is wrong" in out
