"""What tests of all folders share: small models of the `transformers` library, and places of their own for parallel runs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a directory for each of them; see small_models.py. Written in a process of its own: the library warns at will."""
    for package in ("transformers", "safetensors"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the Python package {package}: pip install 'kerneldyno[test]'")
    folder = tmp_path_factory.mktemp("models")
    script = Path(__file__).with_name("small_models.py")
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True, timeout=300)
    return folder


def pytest_configure() -> None:
    """Give each process of a parallel run one thread, and a place for temporary files of its own: a run locks its device there."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        own = Path(tempfile.gettempdir(), f"kerneldyno-tests-{os.getuid()}", worker)
        own.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(own)
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # the other cores have tests of their own
