"""The compiled library: built where there is a compiler, and a sentence where there is none."""

from __future__ import annotations

import os
import stat
import tempfile

import pytest

from kerneldyno.bench.selftest import library
from kerneldyno.bench.selftest.library import NoLibrary


@pytest.fixture
def uncached():
    library.library.cache_clear()
    yield
    library.library.cache_clear()


def test_it_is_built_once_and_leaves_no_file(uncached, tmp_path, monkeypatch):
    try:
        library.library()
    except NoLibrary as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have a C compiler: {error}")
        pytest.skip(str(error))
    library.library.cache_clear()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert library.library() is library.library()
    library.call("within_call", 1000)
    assert list(tmp_path.iterdir()) == []


def test_without_a_compiler_it_says_what_is_missing(uncached, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(NoLibrary, match="no C compiler"):
        library.library()


def test_a_compiler_that_fails_is_quoted(uncached, tmp_path, monkeypatch):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(NoLibrary, match=r"cc cannot compile allocations.c: no space left"):
        library.library()
