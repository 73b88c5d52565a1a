"""Models of the `transformers` library, small and random, that several tests read."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
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
