"""The README tells the truth: its table of columns is the code's, its presets exist, its options are options."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from kerneldyno.kernels import presets
from kerneldyno.reports.columns import COLUMNS

README = (Path(__file__).parent.parent / "README.md").read_text()
COLUMNS_BLOCK = re.compile(r"(?<=<!-- columns -->\n).*?(?=<!-- /columns -->)", re.DOTALL)


def columns_block() -> str:
    """What stands between the marks; to renew it: `python tests/test_readme.py`."""
    lines = [f"| `{name}` | {meaning.replace('|', '/')} |" for name, meaning in COLUMNS.items()]
    return "\n".join(["| column | meaning |", "|---|---|", *lines, ""])


def test_the_columns_are_those_of_the_results():
    found = COLUMNS_BLOCK.search(README)
    assert found
    assert found.group() == columns_block(), "renew it with: python tests/test_readme.py"


def test_every_preset_is_named():
    for name in presets.names():
        assert f"`{name}`" in README


def test_every_option_exists():
    told = subprocess.run(
        [sys.executable, "-m", "kerneldyno.bench", "run", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "PATH": ""},
    )
    fences = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    used = {
        word
        for fence in fences
        for line in fence.splitlines()
        if "kerneldyno run" in line
        for word in re.findall(r"--[a-z-]+", line.split("#")[0])
    }
    assert used
    for option in used:
        assert option in told.stdout


if __name__ == "__main__":
    path = Path(__file__).parent.parent / "README.md"
    path.write_text(COLUMNS_BLOCK.sub(lambda _: columns_block(), README))
