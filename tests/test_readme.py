"""README and docs tell the truth: the table of columns is the code's, presets exist, options are options."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from kerneldyno.kernels import presets
from kerneldyno.reports import frame, pictures
from kerneldyno.reports.columns import COLUMNS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMPARING = (ROOT / "docs" / "comparing.md").read_text()
REPORT = (ROOT / "docs" / "report.md").read_text()
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
    fences = [fence for text in (README, COMPARING, REPORT) for fence in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    lines = [line.split("#")[0] for fence in fences for line in fence.splitlines() if f"kerneldyno {command}" in line]
    assert lines
    for option in {word for line in lines for word in re.findall(r"--[a-z-]+", line)}:
        assert option in told.stdout


def test_every_picture_is_one_that_a_command_beside_it_makes():
    """By its name, and by the words in it: a picture of charts that look otherwise by now has to be made again."""
    shown = [ROOT / path for path in re.findall(r"!\[.*?\]\((reports/published/pictures/.*?)\)", README)]
    folders = re.findall(r"^kerneldyno report (reports/published/\S+) --svg pictures", README, re.MULTILINE)
    assert len(shown) == len(folders) == len(list((ROOT / "reports/published/pictures").iterdir())) == 3
    for path, folder in zip(shown, folders, strict=True):  # in the same order
        figure = pictures.figures(frame.load(ROOT / folder))[path.stem]
        text = " ".join("".join(found.itertext()) for found in ET.parse(path).getroot().iter("{http://www.w3.org/2000/svg}text"))
        named = [trace["name"] for trace in figure["data"] if trace["showlegend"]]
        for words in [figure["layout"]["title"]["text"], *figure["layout"]["title"]["subtitle"]["text"].split("<br>"), *named]:
            assert html.unescape(words) in text, f"renew {path.name} with the command in the README"
        assert path.stat().st_size < 200_000


def test_every_exit_status_of_a_comparison_is_told():
    table = dict(re.findall(r"^\| (\d+) \| (.*) \|$", COMPARING, re.MULTILINE))
    assert sorted(map(int, table)) == [0, 1, 2, 3, 4, 5, 130]


if __name__ == "__main__":
    path = Path(__file__).parent.parent / "README.md"
    path.write_text(COLUMNS_BLOCK.sub(lambda _: columns_block(), README))
