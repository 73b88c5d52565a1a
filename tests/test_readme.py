"""README and docs tell the truth: the table of columns is the code's, presets exist, options are options."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kerneldyno.kernels import presets
from kerneldyno.reports.columns import COLUMNS

README = (Path(__file__).parent.parent / "README.md").read_text()
COMPARING = (Path(__file__).parent.parent / "docs" / "comparing.md").read_text()
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


@pytest.mark.parametrize("command", ["run", "compare", "check", "report", "history", "export", "tune", "codegen"])
def test_every_option_exists(command):
    told = subprocess.run(
        [sys.executable, "-m", "kerneldyno.bench", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "PATH": ""},
    )
    fences = [fence for text in (README, COMPARING) for fence in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    lines = [line.split("#")[0] for fence in fences for line in fence.splitlines() if f"kerneldyno {command}" in line]
    assert lines
    for option in {word for line in lines for word in re.findall(r"--[a-z-]+", line)}:
        assert option in told.stdout


def test_every_exit_status_of_a_comparison_is_told():
    table = dict(re.findall(r"^\| (\d+) \| (.*) \|$", COMPARING, re.MULTILINE))
    assert sorted(map(int, table)) == [0, 1, 2, 3, 4, 5, 130]


if __name__ == "__main__":
    path = Path(__file__).parent.parent / "README.md"
    path.write_text(COLUMNS_BLOCK.sub(lambda _: columns_block(), README))
