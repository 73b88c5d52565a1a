"""The workflows: they call nox, may do no more than they need, and run nothing that a stranger wrote where it could do harm."""

from __future__ import annotations

import html
import json
import re
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import playwright
import pytest
import yaml
from markdown_it import MarkdownIt

from kerneldyno.reports.markdown import markdown

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
sample = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "reports" / "outcomes.py")))
NODE = Path(playwright.__file__).parent / "driver" / "node"

COMMANDS = re.compile(r"nox -s \w+( -- [^;&|`<>]*)?|python -m pip install --constraint constraints\.txt nox|bash \.ci/run")
STRANGERS = re.compile(r"\$\{\{[^}]*(github\.event|github\.head_ref|github\.base_ref|github\.ref_name|inputs)\b")
"""Expressions whose value somebody else chooses: pasted into a script, they would be executed."""


def workflow(name: str) -> dict[Any, Any]:
    loaded = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return {("on" if key is True else key): value for key, value in loaded.items()}  # YAML 1.1 reads "on" as true


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


@pytest.fixture(params=[path.name for path in FILES])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_there_are_four() -> None:
    assert [path.name for path in FILES] == ["comment.yml", "compare-gpu.yml", "compare.yml", "tests.yml"]


def test_every_workflow_has_its_limits(name: str) -> None:
    whole = workflow(name)
    assert set(whole) == {"name", "on", "permissions", "concurrency", "jobs"}
    assert whole["name"] == name.removesuffix(".yml")
    assert whole["permissions"] in ({}, {"contents": "read"})
    assert "group" in whole["concurrency"]
    for job in whole["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 120
        may_write = {what for what, access in job.get("permissions", {}).items() if access == "write"}
        assert may_write == ({"pull-requests"} if name == "comment.yml" else set())


def test_steps_run_nox_and_what_it_needs_and_nothing_else(name: str) -> None:
    for step in steps(name):
        assert ("run" in step) != ("uses" in step)
        if "run" in step:
            assert COMMANDS.fullmatch(step["run"].strip()), step["run"]


def test_sessions_that_are_called_exist(name: str) -> None:
    called = [found[1] for step in steps(name) for found in re.finditer(r"nox -s (\w+)", step.get("run", ""))]
    source = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert [session for session in called if f"\ndef {session}(" not in source] == []


def test_nothing_that_a_stranger_chose_is_pasted_into_a_script(name: str) -> None:
    for step in steps(name):
        for script in (step.get("run", ""), step.get("with", {}).get("script", "")):
            assert "${{" not in script
    assert STRANGERS.search("run: echo ${{ github.event.pull_request.title }}")  # the eye sees


def test_actions_are_github_s_own_and_pinned(name: str) -> None:
    for step in steps(name):
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@(v\d+|[0-9a-f]{40})", step["uses"])
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_code_from_outside_never_meets_a_token_or_a_machine_of_ours(name: str) -> None:
    whole = workflow(name)
    triggers = set(whole["on"])
    assert "pull_request_target" not in triggers
    assert not any("secrets." in json.dumps(step) for step in steps(name))
    if any("self-hosted" in job["runs-on"] for job in whole["jobs"].values()):
        assert triggers == {"push", "workflow_dispatch"}
        assert whole["on"]["push"]["branches"] == ["main"]
    if "workflow_run" in triggers:
        assert [step["uses"].partition("@")[0] for step in steps(name)] == ["actions/download-artifact", "actions/github-script"]


def test_a_pull_request_is_compared_with_exactly_what_it_is_merged_into() -> None:
    checkout, *_ = steps("compare.yml")
    assert checkout["with"]["fetch-depth"] == 0
    assert "ref" not in checkout["with"]
    assert workflow("comment.yml")["on"]["workflow_run"]["workflows"] == [workflow("compare.yml")["name"]]
    [uploaded] = [step["with"] for step in steps("compare.yml") if "upload" in step.get("uses", "")]
    [fetched] = [step["with"] for step in steps("comment.yml") if "download" in step.get("uses", "")]
    assert uploaded["name"] == fetched["name"]
    names = [Path(line).name for line in uploaded["path"].split()]
    assert names == ["verdict.json", "junit.xml", "summary.md", "comparison.html"]
    assert {Path(line).parent.as_posix() for line in uploaded["path"].split()} == {"runs/compare"}


# ---------------------------------------------------------------- the script that comments, run by node with a stand-in for GitHub


HARNESS = """
const [script, pulls, comments] = JSON.parse(require("fs").readFileSync(0, "utf8"));
const asked = [];
const call = (name, value) => async (given) => { asked.push([name, given]); return value; };
const rest = {
  pulls: { list: call("pulls", pulls) },
  issues: { listComments: call("comments", comments), updateComment: call("update"), createComment: call("create") },
};
const github = { rest, paginate: (list, given) => list(given) };
const context = { repo: { owner: "us", repo: "kerneldyno" }, payload: { workflow_run: {
  head_repository: { id: 7, owner: { login: "stranger" } }, head_branch: "patch", head_sha: "c0ffee",
  html_url: "https://github.com/us/kerneldyno/actions/runs/1",
} } };
const core = { info: (text) => asked.push(["info", text]) };
const run = Object.getPrototypeOf(async () => {}).constructor;
new run("github", "context", "core", "require", script)(github, context, core, require).then(() => console.log(JSON.stringify(asked)));
"""
PULL = {"number": 12, "head": {"sha": "c0ffee", "repo": {"id": 7}}}


def commented(
    folder: Path, summary: str | Path | None, pulls: list[Any] | None = None, comments: list[Any] | None = None
) -> dict[str, Any]:
    """What the script asked of GitHub; a summary that is a path is a link to it."""
    [script] = [step["with"]["script"] for step in steps("comment.yml") if "script" in step.get("with", {})]
    place = folder / "compare" / "summary.md"
    place.parent.mkdir(parents=True)
    if isinstance(summary, Path):
        place.symlink_to(summary)
    elif summary is not None:
        place.write_text(summary, encoding="utf-8")
    given = json.dumps([script, [PULL] if pulls is None else pulls, comments or []])
    environment = {"RUNNER_TEMP": str(folder)}
    done = subprocess.run([NODE, "-e", HARNESS], input=given, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def rendered(text: str) -> str:
    return str(MarkdownIt("gfm-like").render(text)).replace("\u200b", "")


def test_our_own_summary_is_posted_as_it_is(tmp_path: Path) -> None:
    summary = markdown(sample.rich(command="kerneldyno compare --base origin/main"))
    asked = commented(tmp_path, summary)
    assert asked["pulls"]["head"] == "stranger:patch"
    posted = asked["create"]
    assert posted["issue_number"] == 12
    head, _, text = posted["body"].partition("\n\n")
    assert rendered(text).strip() == rendered(summary).strip()
    assert head.startswith(
        "<!-- kerneldyno compare -->\nMeasured in [this run](https://github.com/us/kerneldyno/actions/runs/1) at c0ffee."
    )
    assert "written by the code of the pull request" in head  # above everything that could hide it
    assert text.startswith("### ❌")


def test_an_older_comment_of_ours_is_replaced_and_nobody_else_s(tmp_path: Path) -> None:
    marked = "<!-- kerneldyno compare -->\nold"
    others = [{"id": 1, "user": {"login": "stranger"}, "body": marked}, {"id": 2, "user": {"login": "github-actions[bot]"}, "body": "x"}]
    own = {"id": 3, "user": {"login": "github-actions[bot]"}, "body": marked}
    assert commented(tmp_path, "text", comments=[*others, own])["update"]["comment_id"] == 3
    assert "create" in commented(tmp_path / "again", "text", comments=others)


@pytest.mark.parametrize(
    "pulls",
    [
        [],
        [{"number": 12, "head": {"sha": "another", "repo": {"id": 7}}}],
        [{"number": 12, "head": {"sha": "c0ffee", "repo": {"id": 8}}}],
        [{"number": 12, "head": {"sha": "c0ffee", "repo": None}}],
        [PULL, {**PULL, "number": 13}],
    ],
)
def test_nothing_is_posted_where_it_is_not_sure_which_pull_request_it_was(tmp_path: Path, pulls: list[Any]) -> None:
    assert set(commented(tmp_path, "text", pulls)) == {"pulls", "info"}


def test_nothing_is_posted_without_a_proper_summary(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret of the machine")
    for number, summary in enumerate((None, tmp_path / "secret", "x" * 1_100_000)):
        assert set(commented(tmp_path / str(number), summary)) == {"info"}


def test_a_forged_summary_pings_nobody_and_embeds_nothing(tmp_path: Path) -> None:
    forged = (
        "@octocat &#64;octocat &commat;octocat #12 #&#49;2 &#35;12 GH-12 gh-&#49; us/kerneldyno#3 http://e.vil www.e.vil www&#46;e.vil "
        "http:&#47;/e.vil ![i](//e.vil/i.png) [l](//e.vil) [r][r]\n\n[r]: //e.vil\n\n<img src=x> <a href='//e.vil'>a</a> "
        "<!-- <script> --> \x1b[31m \u202e <mailto:a@e.vil> <https://e.vil>\n"
    )
    body = commented(tmp_path, forged + "x" * 200_000)["create"]["body"]
    assert len(body) < 65_536
    text = body.partition("\n\n")[2]
    shown = MarkdownIt("gfm-like").render(text)
    assert set(re.findall(r"<(\w+)", shown)) == {"p"}  # no link, no image
    read = html.unescape(shown)
    assert not re.search(r"@\w|#\d|GH-\d|https?:/|www\.\w", read, flags=re.IGNORECASE)
    assert "octocat" in read
    assert not {"\x1b", "\u202e"} & set(read)
