"""A run by kernels that say all about where they are: nothing of it is in what may be shared."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

PLUGIN = Path(__file__).with_name("private_kernels.py")
LEAKS = runpy.run_path(str(Path(__file__).parents[1] / "leaks.py"))
KNOWN = runpy.run_path(str(PLUGIN), run_name="read")
KERNELS = ("talks", "raises", "unbuildable", "dies", "refuses", "identified", "attention/sdpa")
TINY = ("--operator", "attention", "--batch", "1", "--seq-len", "32", "--set", "heads=2", "--set", "head_dim=16", "--device", "cpu")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Somebody's machine, on which every folder and name is a secret."""
    root = tmp_path_factory.mktemp("moth-cellar7")
    folders = {name: root / name for name in ("zelda-home4", "wombat-project5", "badger-tmp8", "quill-plugins3")}
    for folder in folders.values():
        folder.mkdir()
    home, work, tmp, plugins = folders.values()
    shutil.copy(PLUGIN, plugins / "mine.py")
    environment = {"HOME": home, "USER": "zelda42", "LOGNAME": "zelda42", "HOSTNAME": "vault-9x.lab.example", "TMPDIR": tmp}
    secrets = ["zelda42", "vault-9x", *folders, root.name, socket.gethostname(), str(Path(sys.prefix))]
    secrets += [KNOWN[name] for name in ("UUID", "SERIAL", "ATTIC")]

    def cli(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "kerneldyno.bench", *words], cwd=work, capture_output=True, text=True, check=False, timeout=500,
            env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return SimpleNamespace(work=work, plugin=plugins / "mine.py", secrets=[secret for secret in secrets if len(secret) > 4], cli=cli)


@pytest.fixture(scope="module")
def shared(place: SimpleNamespace) -> list[Path]:
    """Everything that this person may send around."""
    common = ("--load", str(place.plugin), "--protocol", "smoke", "--energy", "off", "--kernels", ",".join(KERNELS))
    place.cli("run", *TINY, *common, "--out", str(place.work / "runs" / "one"), code=5)
    again = Path(shutil.copytree(place.work / "runs" / "one", place.work / "runs" / "two"))
    manifest = json.loads((again / "manifest.json").read_text())
    (again / "manifest.json").write_text(json.dumps(manifest | {"created": "2025-01-01T00:00:00+00:00"}))
    (place.work / "runs" / "broken").mkdir()
    (place.work / "runs" / "broken" / "manifest.json").write_text("{")
    place.cli("report", str(again))
    runs = str(place.work / "runs")
    place.cli("report", str(again), "runs/one", runs)
    place.cli("history", runs, "--csv", "runs/history.csv")
    place.cli("export", "--format", "pytest-benchmark", str(again))
    place.cli("compare", str(place.work / "runs" / "one"), runs + "/two", "--out", "runs/compared")
    load = ("--load", str(place.plugin), "--kernels", "talks,raises,unbuildable,attention/sdpa", "--device", "cpu", "--seq-len", "32")
    place.cli("explain", "attention", *load, "--out", "runs/explain.html", "--json", "runs/explain.json", code=5)
    return sorted(path for path in Path(runs).rglob("*") if path.is_file() and path.parent.name != "broken")


def test_every_kernel_spoke_and_was_recorded(place: SimpleNamespace, shared: list[Path]) -> None:
    """Otherwise the next test would find nothing because there is nothing."""
    journal = (place.work / "runs" / "one" / "journal.jsonl").read_text()
    for told in ("No such file or directory", "library at <", "its table is not at <", "last words: <"):
        assert told in journal, told
    assert journal.count("<user>@<host>") >= 4
    assert journal.count("<uuid>") >= 4
    assert journal.count("error:<path>/x.cpp:12") >= 4
    written = {
        "report.html", "results.csv", "results.parquet", "samples.parquet", "together.html", "history.html", "history.csv",
        "pytest-benchmark.json", "explain.html", "explain.json", "verdict.json", "junit.xml",
    }  # fmt: skip
    assert written <= {path.name for path in shared}


def test_nothing_tells_who_ran_it_and_where(place: SimpleNamespace, shared: list[Path]) -> None:
    assert LEAKS["leaks"](shared, place.secrets) == {}
