"""Stored benchmarks of another machine are refused, with what differs; those of this one are not."""

from __future__ import annotations

import json
from copy import deepcopy

import msgspec
import pytest

from kerneldyno.bench import environment, pytest_json
from kerneldyno.bench.stored_benchmarks import StoredBenchmarks, why_elsewhere

HERE = environment.describe(environment.choose("cpu"), 1)


def changed(**fields):
    return msgspec.structs.replace(HERE, **fields)


def file(*environments, tests=()):
    info = {"node": "secret"}
    pytest_json.complete(info, environments)
    benchmarks = [{"fullname": name, "extra_info": {"fingerprint": one.fingerprint} if one else {}} for name, one in tests]
    return json.loads(json.dumps({"machine_info": info, "benchmarks": benchmarks, "datetime": "2025-01-01T00:00:00"}))


def test_the_same_machine_is_accepted_and_the_session_is_described_alike():
    stored, info = StoredBenchmarks(), {"node": "secret", "system": "Linux"}
    content = file(HERE, tests=[("test_a", HERE)])
    stored.add(content, info)
    assert info == {"system": "Linux", "kerneldyno": content["machine_info"]["kerneldyno"]}
    assert stored.why_foreign("test_a", HERE) is None
    assert stored.why_foreign("test_new", HERE) is None


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"versions": {**HERE.versions, "torch": "1.0"}}, "torch: 1.0 there"),
        ({"cpu_name": "Abacus"}, "cpu_name: Abacus there"),
        ({"cpu_features": (*HERE.cpu_features, "amx")}, "cpu_features: amx"),
        ({"device": "cuda:99", "device_name": "Some GPU"}, "on Some GPU; here device 'cuda:99'"),
    ],
)
def test_another_machine_is_refused_with_what_differs(fields, told):
    assert told in why_elsewhere(changed(**fields))
    with pytest.raises(ValueError, match=r"^the stored benchmarks of 2025-01-01T00:00:00 were measured elsewhere \(") as caught:
        StoredBenchmarks().add(file(HERE, changed(**fields)), {})
    assert told in str(caught.value)


def test_what_is_no_part_of_the_fingerprint_does_not_matter():
    assert why_elsewhere(changed(commit="another", os="Other", memory_bytes=1)) is None


def test_files_in_which_kerneldyno_has_no_part_are_left_alone():
    info = {"node": "mine"}
    stored = StoredBenchmarks()
    stored.add({"machine_info": {"node": "other"}, "benchmarks": [{"fullname": "test_a"}]}, info)
    assert info == {"node": "mine"}
    assert "test_a were not measured by kerneldyno" in stored.why_foreign("test_a", HERE)


def test_a_test_that_was_measured_otherwise_is_told():
    stored, other = StoredBenchmarks(), changed(threads=HERE.threads + 1)
    stored.fingerprints["test_a"] = {other.fingerprint}
    assert f"fingerprint {other.fingerprint}" in stored.why_foreign("test_a", HERE)
    stored.environments[other.fingerprint] = other
    assert "threads: 2 there, 1 here" in stored.why_foreign("test_a", HERE)


def test_a_description_that_cannot_be_read_is_refused():
    content = deepcopy(file(HERE))
    del content["machine_info"]["kerneldyno"][0]["cpu_name"]
    with pytest.raises(ValueError, match=r"cannot be read \(.*cpu_name.*\): store new ones"):
        StoredBenchmarks().add(content, {})
