"""What is taken out of recorded texts, and what must survive."""

from __future__ import annotations

import getpass
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kerneldyno.bench.privacy import Identity, identity, scrub, scrub_of

ANN = Identity(
    paths=(
        ("/home/ann/venv/lib/python3.12/site-packages", "<site-packages>"),
        ("/home/ann/project", "<cwd>"),
        ("/home/ann/venv", "<python>"),
        ("/tmp", "<tmp>"),
        ("/home/ann", "~"),
    ),
    users=("ann",),
    hosts=("gpu-node-07.lab.example.org", "gpu-node-07"),
)
ROOT = Identity(paths=(("/root/project", "<cwd>"), ("/root", "~")), users=("root",), hosts=("a", "pc"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('File "/home/ann/project/my.py", line 3', 'File "<cwd>/my.py", line 3'),
        ("/home/ann/venv/lib/python3.12/site-packages/torch/__init__.py", "<site-packages>/torch/__init__.py"),
        ("/home/ann/venv/bin/python -m x", "<python>/bin/python -m x"),
        ("see /home/ann.", "see ~."),
        ("cd /home/ann && ls", "cd ~ && ls"),
        ("-I/home/ann/include -L/home/ann/project", "-I~/include -L<cwd>"),
        ("file:///home/ann/a.txt", "file://~/a.txt"),
        ("--out=/home/ann/project/runs", "--out=<cwd>/runs"),
        ("/home/annabel/x", "~/x"),  # somebody else, nobody's business either
        ("/Users/bob/x and /home/bob: no", "~/x and ~: no"),
        ("/tmp/torchinductor_ann/fx", "<tmp>/torchinductor_<user>/fx"),
        ("/scratch/ann/data", "<path>/data"),
        ("/scratch/x/ann", "<path>/<user>"),
        ("cannot open '/srv/secret/plan.bin'", "cannot open '<path>/plan.bin'"),
        ("ann@gpu-node-07: denied", "<user>@<host>: denied"),
        ("user=ann, LOGNAME: ann", "user=<user>, LOGNAME: <user>"),
        ("gpu-node-07 went down; GPU-NODE-07 too", "<host> went down; <host> too"),
        ("http://gpu-node-07.lab.example.org:8080/x", "http://<host>:8080/x"),
        ("GPU-aaaa1111-2222-3333-4444-555566667777 fell off the bus", "<uuid> fell off the bus"),
        ("MIG-aaaa1111-2222-3333-4444-555566667777", "<uuid>"),
        ("MIG-GPU-aaaa1111-2222-3333-4444-555566667777/1/0", "<uuid>"),
        ("id aaaa1111-2222-3333-4444-555566667777.", "id <uuid>."),
        ("Serial Number : 1320221012345", "Serial Number : <serial>"),
        # ordinary words, and words that hold the name
        ("annotate the channel, ann.", "annotate the channel, ann."),
        ("attention/fused on cuda:0", "attention/fused on cuda:0"),
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("torch 2.10.0+cu128, NVIDIA H100 80GB HBM3", "torch 2.10.0+cu128, NVIDIA H100 80GB HBM3"),
        ("https://example.org/home/page", "https://example.org/home/page"),
        ("the serial version is slower", "the serial version is slower"),
    ],
)
def test_a_user_with_a_home(text, expected) -> None:
    assert scrub_of(ANN, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/root/project/x.py", "<cwd>/x.py"),
        ("/root/.cache/y", "~/.cache/y"),
        ("-I/root/inc -I /root/inc", "-I/root/inc -I ~/inc"),
        ("cc -I/root/inc", "cc -I~/inc"),
        ("the root of a tree, a rootkit, /rootkit, /a/root/b", "the root of a tree, a rootkit, /rootkit, <path>/b"),
        ("square root of pc.overcommit in a pc", "square root of pc.overcommit in a pc"),
        ("root@pc and ray://a:10001", "<user>@<host> and ray://<host>:10001"),
        ("mail to x@a-b.org", "mail to x@a-b.org"),
    ],
)
def test_names_that_are_ordinary_words(text, expected) -> None:
    assert scrub_of(ROOT, text) == expected


NAMES = st.text("abcdeghrtu01_-", min_size=1, max_size=9).filter(lambda name: name[0].isalpha() and name[-1].isalnum())
PIECES = st.sampled_from(
    [
        " ",
        "/",
        "@",
        ":",
        ".",
        "-",
        "_",
        "\n",
        "=",
        "<",
        ">",
        "~",
        "user",
        "host",
        "cwd",
        "root",
        "tmp",
        "/home/",
        "/tmp",
        "//",
        "a",
        "serial: ",
        "1",
    ]
)


def person(user: str, host: str) -> Identity:
    return Identity(paths=((f"/home/{user}/work", "<cwd>"), (f"/home/{user}", "~"), ("/tmp", "<tmp>")), users=(user,), hosts=(host,))


@settings(deadline=None)
@given(NAMES, NAMES, st.data())
def test_scrubbing_twice_changes_nothing_more(user: str, host: str, data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(PIECES | st.just(user) | st.just(host) | st.just(f"/home/{user}/work"), max_size=12)))
    once = scrub_of(person(user, host), text)
    assert scrub_of(person(user, host), once) == once


@settings(deadline=None)
@given(NAMES, NAMES, st.lists(st.text("xyzqvw", min_size=1, max_size=6), max_size=4))
def test_paths_below_home_lose_the_user_and_keep_the_rest(user: str, host: str, parts: list[str]) -> None:
    assume(user != host)
    rest = "".join(f"/{part}" for part in parts)
    assert scrub_of(person(user, host), f"/home/{user}{rest}") == f"~{rest}"
    assert scrub_of(person(user, host), f"in '/home/{user}/work{rest}'") == f"in '<cwd>{rest}'"
    assert scrub_of(person(user, host), f"{user}@{host}:{rest}") == f"<user>@<host>:{rest}"


@settings(deadline=None)
@given(st.sampled_from(["a", "ann", "torch", "fused", "lib", "root", "pc", "linux", "cuda"]), st.lists(st.sampled_from(
    ["torch", "fused", "a", "the", "root", "attention/fused", "linux", "pc", "cuda:0", "lib", "RuntimeError:", "ann", "x = a / b", "-a"]
)))  # fmt: skip
def test_sentences_survive_whatever_people_and_machines_are_called(name: str, words: list[str]) -> None:
    sentence = " ".join(words)
    assert scrub_of(person(name, name), sentence) == sentence


def test_this_machine_is_known() -> None:
    who = identity()
    assert getpass.getuser() in who.users
    assert socket.gethostname() in who.hosts
    assert all(path.startswith("/") and path not in ("/", "/usr") for path, _ in who.paths)
    text = f"{Path.home()}/x {tempfile.gettempdir()}/y {pytest.__file__} {getpass.getuser()}@{socket.gethostname()}"
    cleaned = scrub(text)
    assert cleaned.endswith("<user>@<host>")
    for told in (f"{Path.home()}/", f"{tempfile.gettempdir()}/", str(Path(pytest.__file__).parents[1])):
        assert told not in cleaned


def test_a_working_directory_that_is_gone(tmp_path, monkeypatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert scrub("fine") == "fine"
