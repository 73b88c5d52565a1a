"""Takes out of a text what it says about who ran it and where: hosts, users, paths, serials. Run folders are shared."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
import sys
import sysconfig
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")

PUBLIC_PATHS = frozenset(
    {"", "/", "/usr", "/usr/local", "/opt", "/bin", "/lib", "/lib64", "/var", "/etc", "/home", "/Users", "/mnt", "/srv"}
)
"""They are on every machine and say nothing about anybody."""
PUBLIC_NAMES = frozenset({"root", "user", "users", "admin", "ubuntu", "debian", "runner", "docker", "nobody", "localhost", "localdomain"})
"""Accounts and hosts of which everybody has one: replaced only where they stand as user@host."""
UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
SERIALS = re.compile(rf"\b(?:MIG-)?GPU-{UUID}(?:/\d+){{0,2}}|\bMIG-{UUID}|(?<![\w-]){UUID}(?![\w-])")
SERIAL_NUMBERS = re.compile(r"(?i)(?<!\w)(serial(?:[ _]?(?:number|no\.?))?\s*[:=]\s*)(?!<serial>)\w[\w-]*")
PLACEHOLDERS = ("path", "cwd", "tmp", "python", "kerneldyno", "site-packages", "user", "host", "uuid", "serial")
AFTER_SIGN = rf"(?<![\w./~>-])|(?<=>){''.join(f'(?<!<{name}>)' for name in PLACEHOLDERS)}|(?<=\A-)|(?<=[^\w~>]-)"
AFTER_SCHEME = r"(?<=://)|(?<=file://localhost)"
AFTER_FLAG = r"(?<=\A-[A-Za-z])|(?<=[^\w<>~/-]-[A-Za-z])|(?<=-isystem)|(?<=-iquote)|(?<=-include)"
START = rf"(?!(?<=:)//)(?:{AFTER_SIGN}|{AFTER_SCHEME}|{AFTER_FLAG})"
"""Where an absolute path may begin: not within another, not before the host of a URL, not after what stands for folders already."""
HOMES = rf"{START}/(?:home|Users)/(?:\\ |[^/\s'\":;,<>()~])++"
SPACED_HOMES = "|".join(rf"(?<={quote})/(?:home|Users)/[^/\s:;{quote}]++(?: (?![/-])[^/\s:;{quote}]*+)++(?=[/{quote}])" for quote in "'\"`")
"""Unquoted, nobody can tell where a name with spaces ends."""
NAMES_OF_A_PIECE = re.compile(r"(?i)uuid|serial|pci|bus_?id|mac_?address")
"""Fields of a description of hardware that tell one piece from its equals."""
PATH_TOKEN = re.compile(r"(?<![\w.-])/[^\s'\":;,()<>]+")
EVERYWHERE = r"(?!(?:usr|lib|lib64|bin|sbin|etc|proc|sys|dev|opt|var|snap|nix)/)"
PART = r"(?:[\w.+@%=~#$!{}^-]|,(?!/)|\\ |<[a-z-]+>)"
ELSEWHERE = re.compile(rf"{START}/++{EVERYWHERE}(?:(?:{PART}++/++){{2,}}+|{PART}++/++(?={PART}))")
"""The folders of an absolute path that is not the same on every machine."""
SPACED = re.compile(
    "|".join(
        rf"(?<={quote})/++{EVERYWHERE}(?:(?:[^/\s:;{quote}]| (?![/-]))++/++)++(?=(?:[^/\s:;{quote}]| (?![/-]))*+{quote})"
        for quote in "'\"`"
    )
)
"""The same in quotes, where spaces belong to names; options and further paths do not."""


@dataclass(frozen=True)
class Identity:
    """What must not be recorded."""

    paths: tuple[tuple[str, str], ...] = ()
    """(folder, what to write instead)."""
    users: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


def scrub(text: str) -> str:
    """`text` with this machine's host, user, folders and serials replaced by "<host>", "<user>", "~", "<cwd>" and so on.

    Of a path somewhere else the last part stays, "<path>/x.py", unless the path is one that every machine has. Names with
    spaces are known as such where a path stands in quotes, or its spaces have backslashes.

    Ordinary words survive, also where a user or a host is called by one: such a name is replaced only in user@host, in
    URLs and in absolute paths. Scrubbing twice changes nothing more.
    """
    return scrub_of(identity(), text)


def scrub_of(who: Identity, text: str) -> str:
    """`scrub` for a given identity."""
    text = SERIALS.sub("<uuid>", text)
    text = SERIAL_NUMBERS.sub(r"\1<serial>", text)
    folders, instead = _folders(who.paths)
    text = folders.sub(lambda found: instead.get(found.group(), "~"), text)
    text = ELSEWHERE.sub("<path>/", SPACED.sub("<path>/", text))
    for host in who.hosts:
        text = _host_pattern(host).sub("<host>", text)
    for user in who.users:
        text = _scrub_user(user, text)
    return text


def scrubbed(value: T) -> T:
    """A record with every text in it scrubbed, however deep: structs, lists, tuples and the values of dicts; keys stay.

    For records of free texts: of a name by which records are joined, `scrub` may make another one.
    """
    who = identity()

    def clean(inner: Any) -> Any:
        if isinstance(inner, str):
            return scrub_of(who, inner)
        if isinstance(inner, dict):
            return {key: clean(part) for key, part in inner.items()}
        if isinstance(inner, list | tuple):
            return inner if inner and isinstance(inner[0], int | float) else type(inner)([clean(part) for part in inner])
        if isinstance(inner, msgspec.Struct):
            return msgspec.structs.replace(inner, **{name: clean(getattr(inner, name)) for name in inner.__struct_fields__})
        return inner

    cleaned: T = clean(value)
    return cleaned


def of_hardware(described: Mapping[str, Any]) -> dict[str, Any]:
    """A description of a device without what names this one piece: UUIDs, serial numbers, addresses on a bus."""
    kept = {name: value for name, value in described.items() if not NAMES_OF_A_PIECE.search(name)}
    return {name: SERIALS.sub("<uuid>", value) if isinstance(value, str) else value for name, value in kept.items()}


def hashed(uuid: str) -> str | None:
    """A short hash of a device's UUID: tells two boards of one model apart and names neither. None without a UUID.

    A UUID is too long to be guessed back from it; a serial number is not, so none is ever hashed.
    """
    return hashlib.sha256(f"kerneldyno {uuid}".encode()).hexdigest()[:8] if uuid else None


def identity() -> Identity:
    """Who runs this process, and where."""
    paths = [
        *((path, "<site-packages>") for path in _installed()),
        (_here(), "<cwd>"),
        (str(Path(__file__).parents[1]), "<kerneldyno>"),
        (sys.prefix, "<python>"),
        (sys.base_prefix, "<python>"),
        (tempfile.gettempdir(), "<tmp>"),
        (os.environ.get("TMPDIR", ""), "<tmp>"),
        (str(Path("~").expanduser()), "~"),
    ]
    resolved = [(os.path.realpath(path), instead) for path, instead in paths if path]
    named = {socket.gethostname(), os.environ.get("HOSTNAME", "")}
    return Identity(
        paths=_distinct((path.rstrip("/"), instead) for path, instead in [*paths, *resolved]),
        users=tuple(sorted({*_users()} - {""}, key=len, reverse=True)),
        hosts=tuple(sorted({name for full in named for name in (full, full.split(".")[0])} - {""}, key=len, reverse=True)),
    )


def _installed() -> list[str]:
    return [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]


def _here() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was deleted under us
        return ""


def _users() -> Iterable[str]:
    with suppress(OSError, KeyError, ImportError):
        yield getpass.getuser()
    for name in ("USER", "LOGNAME", "SUDO_USER"):
        yield os.environ.get(name, "")
    yield Path("~").expanduser().name


def _distinct(paths: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The first name of each folder that is worth hiding."""
    found: dict[str, str] = {}
    for path, instead in paths:
        if path.startswith("/") and path not in PUBLIC_PATHS:
            found.setdefault(path, instead)
    return tuple(found.items())


@lru_cache(maxsize=64)
def _folders(paths: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """One pattern for all folders, the longest first; homes of other people count as homes too."""
    ordered = sorted((path for path, _ in paths), key=len, reverse=True)
    known = {path: f"{'' if path.count('/') > 1 else START}{re.escape(path)}{END}" for path in ordered}
    spaced = [known[path] for path in ordered if " " in path]  # before somebody whose first name is somebody else's
    plain = [known[path] for path in ordered if " " not in path]
    return re.compile("|".join([*spaced, SPACED_HOMES, *plain, HOMES])), dict(paths)


END = r"(?![\w-])(?!\.\w)"


def _scrub_user(user: str, text: str) -> str:
    name = re.escape(user)
    text = re.sub(rf"(?<![\w<.-]){name}(?=@[\w<])", "<user>", text)
    if user.lower() in PUBLIC_NAMES:
        return text
    text = re.sub(rf"(?i)\b((?:user|username|logname)\s*[=:]\s*){name}(?![\w>-])", r"\1<user>", text)
    if _distinctive(user):
        text = re.sub(rf"(?<![\w<-]){name}(?![\w>-])", "<user>", text)
    part = re.compile(rf"(?<=[/_-]){name}(?=/|$)")
    return PATH_TOKEN.sub(lambda token: part.sub("<user>", token.group()), text)


@lru_cache(maxsize=64)
def _host_pattern(host: str) -> re.Pattern[str]:
    name = re.escape(host)
    addressed = rf"(?:(?<=[\w>]@)|(?<=://)){name}(?![\w>-])"
    if _distinctive(host) and host.lower() not in PUBLIC_NAMES:
        return re.compile(rf"{addressed}|(?<![\w<.-]){name}(?![\w>-])", re.IGNORECASE)
    return re.compile(addressed)


def _distinctive(name: str) -> bool:
    """Can this be no ordinary word, and no name of hardware or of a package?"""
    return len(name) >= 5 and any(not character.isalpha() for character in name)
