"""Warnings, throttling and implausible rates, on contenders made by hand."""

from __future__ import annotations

import pytest

from kerneldyno.bench import judge
from kerneldyno.bench.contender import Contender, Sample
from kerneldyno.bench.instruments.watch import Reading
from kerneldyno.bench.manifest import PROTOCOLS
from kerneldyno.bench.records import Case, Ceilings, Measurement
from kerneldyno.bench.stopping import StoppingRule, WarmUp

PROTOCOL = PROTOCOLS["default"]


def case(**changes):
    plain = {
        "kernel": "attention/x", "family": "x", "operator": "attention", "problem": {}, "label": "", "batch": 1, "seq_len": 1, "tokens": 1,
        "dtype": "float32", "direction": "forward", "device": "cpu", "seed": 0, "flops": 10**9, "min_bytes": 10**6, "approximate": False,
        "baseline": "",
    }  # fmt: skip
    return Case(**{**plain, **changes})


def contender(samples_s, *, warm=(0.001, 0.001, 0.001)):
    found = Contender(
        index=0, case=case(), kernel=None, problem=None, setup=None, measurement=Measurement(case="c", status="ok"),
        rule=StoppingRule(PROTOCOL), warm=WarmUp(PROTOCOL),
    )  # fmt: skip
    for window in warm:
        found.warm.add(window, 1.0)
    for i, seconds in enumerate(samples_s):
        found.samples.append(Sample(i, seconds, None, None))
        found.rule.add(seconds, seconds)
    return found


def codes(found, *, stopped=False):
    return [warning.code for warning in judge.warnings(found, PROTOCOL, stopped=stopped)]


def test_a_quiet_measurement_has_no_warnings():
    assert codes(contender([0.01] * 30)) == []


def test_each_weakness_is_named():
    assert codes(contender([0.01] * 30, warm=(0.001, 0.002, 0.003))) == ["unstable"]
    assert codes(contender([0.01] * 5)) == ["few-samples"]
    assert codes(contender([0.01, 0.02] * 15)) == ["wide-interval"]


def test_a_stopped_run_says_so():
    (warning,) = judge.warnings(contender([0.01] * 5), PROTOCOL, stopped=True)
    assert "stopped" in warning.text
    assert "5 of 20" in warning.text


def test_many_throttled_rounds_make_a_measurement_invalid():
    assert judge.throttled(contender([0.01] * 10), 2) is None
    assert "3 of 13" in judge.throttled(contender([0.01] * 10), 3)


def test_what_others_took_is_a_warning_with_its_share():
    def told(stolen_s, others_s):
        before, after = Reading(at_s=0.0, stolen_s=1.0, others_s=2.0), Reading(at_s=10.0, stolen_s=1.0 + stolen_s, others_s=2.0 + others_s)
        return [(warning.code, warning.text.split(" during")[0]) for warning in judge.disturbances(before, after)]

    assert told(0.1, 0.4) == []
    assert told(0.5, 0.4) == [("disturbed", "5.0% of the processors' time went to other virtual machines")]
    assert told(0.1, 3.0) == [("disturbed", "30% of the processors' time went to other processes")]
    assert told(0.5, 3.0) == [
        ("disturbed", "5.0% of the processors' time went to other virtual machines and 30% of it went to other processes")
    ]
    assert judge.disturbances(Reading(), Reading()) == []


CEILINGS = Ceilings(matmul_flops_per_s={"float32": 1e11}, copy_bytes_per_s=1e10, last_level_cache_bytes=10**7)


@pytest.mark.parametrize(
    ("changes", "seconds", "said"),
    [
        ({}, 0.0101, None),
        ({}, 0.005, "GFLOP/s"),
        ({"approximate": True}, 0.005, None),
        ({"dtype": "bfloat16"}, 0.005, None),
        ({"flops": 10, "min_bytes": 10**9}, 0.05, "GB/s"),
        ({"flops": 10, "min_bytes": 10**9}, 0.11, None),
        ({"flops": 10, "min_bytes": 3 * 10**7}, 0.0001, None),
    ],
    ids=["fine", "too many flops", "approximate", "unmeasured dtype", "too many bytes", "fine bytes", "fits the cache"],
)
def test_rates_above_the_ceilings_are_implausible(changes, seconds, said):
    found = judge.implausible(case(**changes), [seconds] * 5, CEILINGS)
    assert (found is None) if said is None else (said in found)


def test_without_ceilings_nothing_is_implausible():
    assert judge.implausible(case(), [1e-12], None) is None
