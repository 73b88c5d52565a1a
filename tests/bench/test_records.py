"""Ids and fingerprints say "the same" exactly when they must, and every record survives JSON."""

from __future__ import annotations

import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.entries import Record
from kerneldyno.bench.manifest import PROTOCOLS, Environment, Manifest, Settings
from kerneldyno.bench.records import STATUSES, Case, Ceilings, Measurement, Process, Status

CASE = Case(
    kernel="attention/eager", family="eager", operator="attention", problem={"batch": 1, "q_len": 128, "causal": False, "dtype": "float32"},
    label="1x8x128x64", batch=1, seq_len=128, tokens=128, dtype="float32", direction="forward", device="cpu", seed=0, flops=1000,
    min_bytes=100, approximate=False, baseline="attention/sdpa",
)  # fmt: skip
MACHINE = Environment(
    device="cuda:0", device_name="NVIDIA H100", os="Linux", python="3.11.7", versions={"torch": "2.13.0", "triton": "3.7.1"},
    cpu_name="Some CPU", cpu_cores=8, cpu_features=("avx2",), memory_bytes=1 << 36, threads=8,
    gpu={"driver_major": 570, "cuda": "12.8", "power_limit_w": 700, "clock_mhz": 1980, "temperature_c": 41},
    worker_settings={"MALLOC_TRIM_THRESHOLD_": "1"},
)  # fmt: skip


def changed(struct: msgspec.Struct, **changes: object) -> msgspec.Struct:
    return msgspec.structs.replace(struct, **changes)


def test_ids_are_the_same_on_every_machine_and_in_every_run() -> None:
    """Written down: were they to change, stored runs could no longer be resumed or joined."""
    assert CASE.id == "55c16a4cc0ea0e9d"
    assert CASE.group == "6a28b2e30c8770c8"


def test_the_id_depends_on_what_is_measured_and_on_nothing_else() -> None:
    for change in ({"kernel": "attention/sdpa"}, {"seed": 1}, {"device": "cuda:0"}, {"problem": {**CASE.problem, "causal": True}}):
        assert changed(CASE, **change).id != CASE.id
    for change in ({"label": "x"}, {"flops": 1}, {"baseline": "x"}, {"problem": dict(reversed(CASE.problem.items()))}):
        assert changed(CASE, **change).id == CASE.id


def test_a_group_is_the_kernels_of_one_problem_on_one_device() -> None:
    assert changed(CASE, kernel="attention/sdpa", family="sdpa", approximate=True).group == CASE.group
    for change in ({"seed": 1}, {"device": "cuda:0"}, {"problem": {**CASE.problem, "batch": 2}}, {"operator": "layer"}):
        assert changed(CASE, **change).group != CASE.group


def test_an_id_that_was_asked_for_is_kept_and_is_no_field() -> None:
    fresh, asked = (msgspec.json.decode(msgspec.json.encode(CASE), type=Case) for _ in range(2))
    assert asked.id is asked.id
    assert asked == fresh
    assert msgspec.json.encode(asked) == msgspec.json.encode(fresh)
    assert pickle.loads(pickle.dumps(asked)) == fresh


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(0, 99), st.booleans(), st.text(max_size=4), st.none()), max_size=4))
def test_the_id_survives_being_written(problem: dict[str, object]) -> None:
    case = changed(CASE, problem=problem)
    again = msgspec.json.decode(msgspec.json.encode(case), type=Case)
    assert again == case
    assert (again.id, again.group) == (case.id, case.group)


@pytest.mark.parametrize(
    "change",
    [
        {"device_name": "NVIDIA L4"}, {"versions": {"torch": "2.14.0"}}, {"threads": 4}, {"python": "3.12.7"}, {"cpu_features": ()},
        {"gpu": {**MACHINE.gpu, "driver_major": 580}}, {"gpu": {**MACHINE.gpu, "power_limit_w": 500}}, {"gpu": None},
        {"worker_settings": {}},
    ],
)  # fmt: skip
def test_the_fingerprint_tells_machines_apart(change: dict[str, object]) -> None:
    assert changed(MACHINE, **change).fingerprint != MACHINE.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"gpu": {**MACHINE.gpu, "clock_mhz": 1410, "temperature_c": 80}}, {"memory_bytes": 1}, {"python": "3.11.9"},
        {"commit": "abc-dirty"}, {"versions": dict(reversed(MACHINE.versions.items()))},
    ],
)  # fmt: skip
def test_the_fingerprint_holds_nothing_that_was_measured(change: dict[str, object]) -> None:
    assert changed(MACHINE, **change).fingerprint == MACHINE.fingerprint


def test_the_limit_is_the_slower_of_arithmetic_and_memory() -> None:
    ceilings = Ceilings(matmul_flops_per_s={"float32": 1e12, "float16": 0.0}, copy_bytes_per_s=1e11)
    assert ceilings.limit_s(2 * 10**12, 10**11, "float32") == pytest.approx(2.0)
    assert ceilings.limit_s(10**12, 3 * 10**11, "float32") == pytest.approx(3.0)
    assert ceilings.limit_s(10**12, 10**11, "bfloat16") is None  # not measured is not unlimited
    assert ceilings.limit_s(10**12, 10**11, "float16") is None


def test_all_samples_are_those_of_all_processes_in_order() -> None:
    processes = [Process(samples_s=[1.0, 2.0], rounds=[0, 1]), Process(samples_s=[3.0], rounds=[0])]
    assert Measurement(case="x", status="ok", processes=processes).samples_s == [1.0, 2.0, 3.0]


def test_measurements_do_not_share_their_lists() -> None:
    first, second = (Measurement(case=name, status="ok") for name in "ab")
    first.warnings.append("x")
    first.phases_s["build"] = 1.0
    assert second.warnings == []
    assert second.phases_s == {}


def test_every_status_and_only_these_can_be_read() -> None:
    assert set(STATUSES) == set(Status.__args__)
    for status in STATUSES:
        assert msgspec.json.decode(f'{{"case":"x","status":"{status}"}}', type=Measurement).status == status
    with pytest.raises(msgspec.ValidationError, match="fine"):
        msgspec.json.decode('{"case":"x","status":"fine"}', type=Measurement)


def test_protocols_are_named_by_their_key_and_grow_stricter() -> None:
    assert [name for name, protocol in PROTOCOLS.items() if protocol.name == name] == ["smoke", "default", "full", "paired"]
    for loose, strict in (("smoke", "default"), ("default", "full")):
        a, b = PROTOCOLS[loose], PROTOCOLS[strict]
        assert a.target > b.target
        assert a.warmup_agreement > b.warmup_agreement
        assert (a.min_samples, a.min_total_s, a.cap_s, a.warmup_cap_s) < (b.min_samples, b.min_total_s, b.cap_s, b.warmup_cap_s)
        assert b.min_samples >= 6  # fewer give no interval of the median at 95 %


def test_every_kind_of_record_has_a_tag_of_its_own() -> None:
    tags = [info.tag for info in msgspec.inspect.type_info(Record).types]
    assert sorted(tags) == ["attempt", "ceilings", "end", "extended", "group", "look", "measured", "session"]


def test_a_manifest_of_an_older_form_can_be_read_without_the_fields_added_since() -> None:
    manifest = Manifest(version="0.1.0", created="now", settings=Settings(protocol=PROTOCOLS["smoke"]), environment=MACHINE, cases=[CASE])
    plain = msgspec.to_builtins(manifest)
    mandatory = {"version", "created", "settings", "environment", "cases"}
    assert msgspec.convert({key: plain[key] for key in mandatory}, Manifest) == manifest
