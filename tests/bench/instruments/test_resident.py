"""The rise of resident memory, on calls that touch what they take."""

from __future__ import annotations

import sys

import pytest
import torch

from kerneldyno.bench.instruments import resident
from kerneldyno.bench.instruments.resident import rise_of

MIB = 2**20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


def test_memory_that_is_touched_is_seen_although_it_is_freed_and_was_warm():
    def call():
        torch.ones(48 * MIB, dtype=torch.uint8)

    call()
    assert rise_of(call) == pytest.approx(48 * MIB, abs=2 * MIB)
    assert rise_of(call) == pytest.approx(48 * MIB, abs=2 * MIB)


def test_memory_that_is_not_touched_is_not_seen():
    assert rise_of(lambda: torch.empty(512 * MIB, dtype=torch.uint8)) < 2 * MIB


def test_where_the_system_does_not_tell_there_is_no_number_and_no_call(tmp_path, monkeypatch):
    monkeypatch.setattr(resident, "PROCESS", tmp_path / "nothing")
    assert rise_of(lambda: pytest.fail("called")) is None
    monkeypatch.setattr(resident, "PROCESS", tmp_path)
    (tmp_path / "status").write_text("Name:\tpython\n")
    assert rise_of(lambda: pytest.fail("called")) is None
