"""The project's chores: bench, compare, report, tests, selftest, codegen, crosscheck, study, growth, lint, types, dev. CI calls a few."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint", "types"]
nox.options.error_on_missing_interpreters = True
nox.needs_version = ">=2024.10"

SOURCES = ("bench", "kernels", "reports", "tests", "noxfile.py")
PACKAGES = ("kerneldyno.bench", "kerneldyno.kernels", "kerneldyno.reports")
# a file stays in one process, whose tests share what takes long to make; in their own order, since few tests may take long
TWO_PROCESSES = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
CONSTRAINTS = str(Path(__file__).with_name("constraints.txt"))


def install(session: nox.Session, *what: str) -> None:
    """Install with the exact versions that the project is tested with."""
    session.install("--constraint", CONSTRAINTS, *what)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure: `nox -s bench`, or with options of `kerneldyno run`: `nox -s bench -- --preset smoke`."""
    install(session, "--editable", ".[run]")  # editable, so that the run can name the commit that it measured
    # a run that found wrong kernels exits with 5 and one that was stopped with 130: nox says so, and ends with 1 itself
    session.run("kerneldyno", "run", *session.posargs)


@nox.session
def report(session: nox.Session) -> None:
    """Write tables and page of a stored run again, without torch: `nox -s report -- runs/…`, with `--png DIR` its pictures."""
    install(session, ".[pictures]")
    session.run("kerneldyno", "report", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite: `nox -s tests`, or a part of it: `nox -s tests -- tests/bench -k journal`."""
    install(session, "--editable", ".[run,jax,test]")
    if session.posargs:
        session.run("pytest", *session.posargs)
    else:
        session.run("pytest", "-m", "alone and not exhaustive")  # they judge real times, and want the machine for themselves
        session.run("pytest", *TWO_PROCESSES, "-m", "not alone and not exhaustive")


@nox.session
def crosscheck(session: nox.Session) -> None:
    """Do other tools measure the same? `nox -s crosscheck`, on a machine that does nothing else; --help explains it."""
    extras = "run,crosscheck,crosscheck-gpu" if shutil.which("nvidia-smi") else "run,crosscheck"
    install(session, "--editable", f".[{extras}]")
    session.run("python", "-P", "-m", "kerneldyno.bench.crosscheck", *session.posargs)


@nox.session
def selftest(session: nox.Session) -> None:
    """Plant faults and count what is caught: `nox -s selftest`, or quickly: `nox -s selftest -- --short`."""
    install(session, "--editable", ".[run]")
    session.run("kerneldyno", "selftest", *session.posargs)


@nox.session
def compare(session: nox.Session) -> None:
    """Did it get slower, hungrier or wrong? `nox -s compare -- origin/main`, then options of `kerneldyno compare`."""
    install(session, "--editable", ".[run]")
    base, *more = session.posargs or ["origin/main"]
    # nox ends with 1 for every exit code but 0; which one it was is told at the end, and in verdict.json
    session.run("kerneldyno", "compare", "--base", base, *more)


@nox.session
def growth(session: nox.Session) -> None:
    """How do reports grow with a run? `nox -s growth`, on a machine that does nothing else; --help explains it."""
    install(session, "--editable", ".", "playwright")  # which drives an installed Chromium
    session.run("python", "-P", "-m", "kerneldyno.reports.growth", *session.posargs)


@nox.session
def codegen(session: nox.Session) -> None:
    """Do our Triton kernels compile to what they should, for other GPUs? `nox -s codegen`; in minutes: `nox -s codegen -- --few`."""
    install(session, "--editable", ".[run]")
    session.run("kerneldyno", "codegen", *session.posargs)


@nox.session
def study(session: nox.Session) -> None:
    """How often is a comparison wrong? `nox -s study`, on a machine that does nothing else; --help explains it."""
    install(session, "--editable", ".[run,crosscheck]", "pytest-benchmark")  # the other tools' own code is asked, too
    session.run("python", "-P", "-m", "kerneldyno.bench.study", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format and rules; `nox -s lint -- --fix` mends what can be mended."""
    install(session, "ruff")
    fix = "--fix" in session.posargs
    session.run("ruff", "format", *([] if fix else ["--check", "--diff"]), *SOURCES)
    session.run("ruff", "check", *(["--fix"] if fix else []), *SOURCES)


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly. The project is installed normally: checkers do not see through an editable mapping."""
    install(session, ".[run,jax,test]", "mypy", "nox", "pandas-stubs", "scipy-stubs", "types-psutil")
    session.chdir(session.create_tmp())  # away from the folders of the same name as the packages
    root = Path(__file__).parent
    config = ["--config-file", str(root / "pyproject.toml")]
    session.run("mypy", *config, *(option for package in PACKAGES for option in ("-p", package)))
    session.run("mypy", *config, str(root / "noxfile.py"))


@nox.session(venv_backend="venv")
def dev(session: nox.Session) -> None:
    """Make an environment to work in, at .venv: project editable, with everything that tests, lint and types need."""
    folder = Path(session.posargs[0] if session.posargs else ".venv")
    session.run("python", "-m", "venv", str(folder), external=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    wanted = ("--editable", ".[run,jax,test]", "ruff", "mypy", "pandas-stubs", "scipy-stubs", "types-psutil")
    session.run(str(python), "-m", "pip", "install", "--constraint", CONSTRAINTS, *wanted, external=True)
    session.log(f"activate it with: source {folder}/bin/activate")
