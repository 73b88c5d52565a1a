"""What is written of a stored run tells neither where it lies nor which piece of hardware measured it; pictures likewise."""

from __future__ import annotations

import base64
import gzip
import json
import os
import runpy
import shutil
import socket
from pathlib import Path

import msgspec
import pytest

from kerneldyno.bench import export
from kerneldyno.bench.manifest import Environment
from kerneldyno.reports import frame, history, history_page, page, pictures, together, together_page

LEAKS = runpy.run_path(str(Path(__file__).parents[1] / "leaks.py"))
UUID, SERIAL, BUS = "GPU-1234abcd-12ab-34cd-56ef-123456abcdef", "1320221012345", "00000000:9B:00.0"
GPU = {
    "driver": "570.86", "cuda": "12.8", "uuid": UUID, "serial": SERIAL, "pci_bus_id": BUS, "board": f"slot of {UUID}", "mig": True,
}  # fmt: skip


@pytest.fixture
def secrets() -> list[str]:
    known = [UUID, SERIAL, BUS, "moth-cellar", socket.gethostname(), str(Path.cwd()), f"{Path.home()}/"]
    return [secret for secret in known if len(secret) > 4]


@pytest.fixture
def runs(rich_folder: Path, tmp_path: Path) -> Path:
    """A folder that nobody should know of, with two runs on a GPU that its file names, and one that cannot be read."""
    folder = tmp_path / "moth-cellar"
    for name, day in (("one", "01"), ("two", "02")):
        shutil.copytree(rich_folder, folder / name)
        manifest = json.loads((folder / name / "manifest.json").read_text())
        manifest["created"] = f"2026-11-{day}T00:00:00+00:00"
        manifest["environment"] |= {"gpu": GPU}
        (folder / name / "manifest.json").write_text(json.dumps(manifest))
    (folder / "broken").mkdir()
    (folder / "broken" / "manifest.json").write_text("{")
    return folder


def written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name not in {"manifest.json", "journal.jsonl"}]


def test_no_page_table_or_export_names_the_machine(runs: Path, secrets: list[str]) -> None:
    page.render(runs / "one", plain=True).rename(runs / "plain.html")
    for name in ("one", "two"):
        frame.write_tables(runs / name)
        page.render(runs / name)
        export.export(runs / name)
    history_page.write(history.read([runs]), runs / "history.html")
    history.read([runs]).frame.to_csv(runs / "history.csv")
    together_page.write(together.read([runs]), runs / "together.html")
    made = written(runs)
    assert len(made) == 2 * 5 + 4
    assert LEAKS["leaks"](made, secrets) == {}
    assert "570.86" in (runs / "plain.html").read_text()


def test_no_picture_names_the_machine(runs: Path, secrets: list[str]) -> None:
    told = json.dumps(pictures.figures(frame.load(runs / "one"))).lower()
    assert not [secret for secret in secrets if secret.lower() in told]


def test_a_description_of_hardware_keeps_what_its_equals_share() -> None:
    machine = Environment(
        device="cuda:0", device_name="NVIDIA H200", os="Linux", python="3.12", versions={}, cpu_name="", cpu_cores=1, cpu_features=(),
        memory_bytes=1, threads=1, gpu=GPU,
    )  # fmt: skip
    assert machine.gpu == {"driver": "570.86", "cuda": "12.8", "board": "slot of <uuid>", "mig": True}
    other = msgspec.structs.replace(machine, gpu=GPU | {"uuid": UUID.replace("1", "2")})
    assert other == machine


def test_what_looks_for_leaks_finds_them(tmp_path: Path) -> None:
    packed = base64.b64encode(gzip.compress(b"x" * 100 + b"Secret" + os.urandom(40)))
    (tmp_path / "a.html").write_bytes(b"<script>" + packed + b"</script>")
    (tmp_path / "b.txt").write_bytes(b"nothing")
    assert LEAKS["leaks"]([tmp_path / "a.html", tmp_path / "b.txt"], ["sEcret"]) == {"a.html": ["sEcret"]}
