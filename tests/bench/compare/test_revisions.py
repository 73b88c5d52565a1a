from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kerneldyno.bench.compare import revisions
from kerneldyno.bench.plan import UsageError

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.c"}


def git(folder: Path, *arguments: str, **environment: str) -> str:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | IDENTITY | environment
    command = ["git", "-C", str(folder), "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout.strip()


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def commit(folder: Path, files: dict[str, str], message: str = "x") -> str:
    write(folder, **files)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def clone(tmp_path: Path) -> tuple[Path, str, str]:
    """A repository with two commits, and their hashes."""
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet")
    first = commit(root, {"kernels/registry.py": "A = 1\n", "kernels/attention/eager.py": "X = 1\n", "README": "r", "mine/k.py": "K = 1\n"})
    second = commit(root, {"kernels/attention/eager.py": "X = 2\n", "kernels/attention/new.py": "N = 1\n"})
    git(root, "tag", "v1", first)
    return root, first, second


class TestResolving:
    def test_names_become_full_hashes(self, clone: tuple[Path, str, str]) -> None:
        root, first, second = clone
        assert [revisions.resolve(root, name) for name in ("v1", "HEAD~1", first[:8], first)] == [first] * 4
        assert revisions.resolve(root, "main") == revisions.resolve(root / "kernels", "HEAD") == second

    @pytest.mark.parametrize(
        "name", ["nope", "origin/main", "--help", "-n", "--all", "HEAD:kernels", "v1..main", "HEAD^{tree}", "", "a\nb"]
    )
    def test_what_is_no_revision_is_unknown(self, clone: tuple[Path, str, str], name: str) -> None:
        with pytest.raises(UsageError) as caught:
            revisions.resolve(clone[0], name)
        assert str(caught.value) == f"revision {name!r} is unknown here: fetch it (git fetch origin), or give another branch, tag or commit"

    def test_a_shallow_clone_is_told_to_fetch_more(self, clone: tuple[Path, str, str], tmp_path: Path) -> None:
        git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{clone[0]}", "shallow")
        assert revisions.resolve(tmp_path / "shallow", "HEAD") == clone[2]
        with pytest.raises(UsageError, match=r"revision 'v1' is unknown here: this clone is shallow: .*fetch-depth: 0"):
            revisions.resolve(tmp_path / "shallow", "v1")

    def test_outside_a_repository(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"^compare --base needs the git history: run it inside a clone, .* is none$"):
            revisions.resolve(tmp_path, "HEAD")

    def test_without_git(self, clone: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
        with pytest.raises(UsageError, match="comparing revisions needs git, which was not found: install it"):
            revisions.resolve(clone[0], "HEAD")

    def test_a_hook_does_not_lead_to_its_own_repository(self, clone: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GIT_DIR", "/nowhere")
        monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
        assert revisions.resolve(clone[0], "v1") == clone[1]


class TestDescribing:
    def test_only_the_kernels_count(self, clone: tuple[Path, str, str]) -> None:
        root, _, second = clone
        write(root, **{"README": "changed", "notes.txt": "n"})
        assert revisions.describe(root) == (second, False)
        assert revisions.describe(root, ".") == (second, True)

    @pytest.mark.parametrize("file", ["kernels/attention/eager.py", "kernels/attention/untracked.py"])
    def test_changed_and_new_files_do(self, clone: tuple[Path, str, str], file: str) -> None:
        write(clone[0], **{file: "X = 3\n"})
        assert revisions.describe(clone[0]) == (clone[2], True)


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestExtracting:
    def test_the_folder_of_a_commit(self, clone: tuple[Path, str, str], tmp_path: Path) -> None:
        root, first, second = clone
        write(root, **{"kernels/attention/eager.py": "X = 3\n"})
        assert contents(revisions.extract(root, first, tmp_path / "1")) == {"attention/eager.py": "X = 1\n", "registry.py": "A = 1\n"}
        found = revisions.extract(root, second, tmp_path / "2")
        assert found == tmp_path / "2" / "kernels"
        assert contents(found) == {"attention/eager.py": "X = 2\n", "attention/new.py": "N = 1\n", "registry.py": "A = 1\n"}
        assert git(root, "status", "--porcelain") == "M kernels/attention/eager.py"

    def test_attributes_change_nothing(self, clone: tuple[Path, str, str], tmp_path: Path) -> None:
        text = "kernels/registry.py export-ignore\nkernels/attention/eager.py export-subst\n"
        last = commit(clone[0], {".gitattributes": text, "kernels/attention/eager.py": "X = '$Format:%H$'\n"})
        found = contents(revisions.extract(clone[0], last, tmp_path / "x"))
        assert found["attention/eager.py"] == "X = '$Format:%H$'\n"
        assert "registry.py" in found

    def test_in_a_folder_of_a_larger_repository(self, clone: tuple[Path, str, str], tmp_path: Path) -> None:
        last = commit(clone[0], {"sub/kernels/registry.py": "S = 1\n", "sub/kernels/a b/ü.py": "\n"})
        assert contents(revisions.extract(clone[0] / "sub", last, tmp_path / "x")) == {"registry.py": "S = 1\n", "a b/ü.py": "\n"}

    def test_a_commit_without_kernels(self, clone: tuple[Path, str, str], tmp_path: Path) -> None:
        git(clone[0], "rm", "--quiet", "-r", "kernels")
        last = commit(clone[0], {"kernels": "a file"})
        with pytest.raises(UsageError, match=f"revision {last[:12]} has no folder kernels/ with kernels: give a later one as --base"):
            revisions.extract(clone[0], last, tmp_path / "x")

    def test_links_that_lead_out_and_submodules_stay_out(self, clone: tuple[Path, str, str], tmp_path: Path) -> None:
        root = clone[0]
        (tmp_path / "secret.py").write_text("SECRET = 1\n")
        kernels = root / "kernels"
        for name, target in {
            "out.py": tmp_path / "secret.py",
            "up.py": "../README",
            "folder": tmp_path,
            "in.py": "registry.py",
            "no.py": "no",
        }.items():
            (kernels / name).symlink_to(target)
        git(root, "submodule", "--quiet", "add", f"file://{root}", "kernels/module")
        last = commit(root, {})
        wanted = {"registry.py": "A = 1\n", "in.py": "A = 1\n", "attention/eager.py": "X = 2\n", "attention/new.py": "N = 1\n"}
        found = revisions.extract(root, last, tmp_path / "x")
        assert contents(found) == wanted
        assert (found / "in.py").is_symlink()
        assert sorted(path.name for path in found.iterdir()) == ["attention", "in.py", "registry.py"]
        copied = revisions.worktree(root, tmp_path / "y")
        assert sorted(path.name for path in copied.iterdir()) == ["attention", "in.py", "module", "registry.py"]
        assert not (copied / "module" / ".git").exists()

    def test_never_over_something_else(self, clone: tuple[Path, str, str], tmp_path: Path) -> None:
        revisions.extract(clone[0], clone[1], tmp_path / "x")
        with pytest.raises(FileExistsError):
            revisions.extract(clone[0], clone[2], tmp_path / "x")

    def test_the_working_tree_with_its_edits(self, clone: tuple[Path, str, str], tmp_path: Path) -> None:
        write(clone[0], **{"kernels/attention/eager.py": "X = 3\n", "kernels/loose.py": "L\n", "kernels/__pycache__/a.pyc": "p"})
        os.mkfifo(clone[0] / "kernels" / "pipe")
        found = revisions.worktree(clone[0], tmp_path / "x")
        write(clone[0], **{"kernels/attention/eager.py": "X = 4\n"})
        wanted = {"attention/eager.py": "X = 3\n", "attention/new.py": "N = 1\n", "loose.py": "L\n", "registry.py": "A = 1\n"}
        assert contents(found) == wanted


class TestFilesFromOutside:
    def test_comes_with_its_neighbours(self, clone: tuple[Path, str, str], tmp_path: Path) -> None:
        root, first, _ = clone
        second = commit(root, {"mine/k.py": "K = 2\n", "mine/part.py": "P\n", "mine/deeper/x.py": "D\n"})
        path = root / "mine" / "k.py"
        assert revisions.repository_of(path) == root
        found = revisions.extract_file(root, first, path, tmp_path / "1")
        assert found == tmp_path / "1" / "mine" / "k.py"
        assert contents(tmp_path / "1") == {"mine/k.py": "K = 1\n"}
        revisions.extract_file(root, second, path, tmp_path / "2")
        assert contents(tmp_path / "2") == {"mine/k.py": "K = 2\n", "mine/part.py": "P\n"}

    def test_in_the_top_folder_and_in_one_like_an_option(self, clone: tuple[Path, str, str], tmp_path: Path) -> None:
        last = commit(clone[0], {"top.py": "T\n", "-r/k.py": "R\n", "-r/[k].py": "B\n"})
        assert revisions.extract_file(clone[0], last, clone[0] / "top.py", tmp_path / "1") == tmp_path / "1" / "top.py"
        assert contents(tmp_path / "1") == {"README": "r", "top.py": "T\n"}
        revisions.extract_file(clone[0], last, clone[0] / "-r" / "[k].py", tmp_path / "2")
        assert contents(tmp_path / "2") == {"-r/k.py": "R\n", "-r/[k].py": "B\n"}

    def test_one_that_was_not_there(self, clone: tuple[Path, str, str], tmp_path: Path) -> None:
        write(clone[0], **{"mine/later.py": "L\n", "elsewhere/x.py": "E\n"})
        for name in ("mine/later.py", "elsewhere/x.py"):
            assert revisions.extract_file(clone[0], clone[1], clone[0] / name, tmp_path / "x") is None
        assert not (tmp_path / "x").exists()

    def test_one_outside(self, clone: tuple[Path, str, str], tmp_path: Path) -> None:
        (tmp_path / "loose.py").write_text("")
        with pytest.raises(UsageError, match=r"--load loose.py lies outside the repository project"):
            revisions.extract_file(clone[0], clone[1], tmp_path / "loose.py", tmp_path / "x")
        with pytest.raises(UsageError, match=r"run it inside a clone"):
            revisions.repository_of(tmp_path / "loose.py")


class TestProject:
    def test_is_found_from_inside(self, clone: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(revisions.registry, "KERNELS", Path("/nowhere/kernels"))
        monkeypatch.chdir(clone[0] / "kernels" / "attention")
        assert revisions.project_root() == clone[0]

    def test_an_installed_copy_below_a_clone_is_not_it(self, clone: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Such as that of an environment of nox."""
        write(clone[0], **{".nox/kerneldyno/kernels/registry.py": "A = 1\n"})
        monkeypatch.setattr(revisions.registry, "KERNELS", clone[0] / ".nox" / "kerneldyno" / "kernels")
        monkeypatch.chdir(clone[0])
        assert revisions.project_root() == clone[0]

    def test_elsewhere_is_one_sentence(self, clone: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(revisions.registry, "KERNELS", tmp_path / "kernels")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError, match=r"^compare --base needs the git history: run it inside a clone, .* is none$"):
            revisions.project_root()
        git(clone[0], "rm", "--quiet", "-r", "--cached", "kernels")
        monkeypatch.chdir(clone[0])
        with pytest.raises(UsageError, match=r"^compare --base needs the git history of kernels/: run it inside a clone of the project$"):
            revisions.project_root()
