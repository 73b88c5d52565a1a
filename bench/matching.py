"""What differs between two manifests, in words: whether their measurements may stand in one run. No torch, no kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from .manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .manifest import Environment

SETTINGS = ("protocol", "processes", "seed", "energy")
"""The settings that change what a number means; time limits do not."""


def differences(stored: Manifest, current: Manifest) -> list[str]:
    """Each thing in which they differ and must not, as "what: stored there, current here"; empty when they fit."""
    stored, current = (msgspec.json.decode(msgspec.json.encode(side), type=Manifest) for side in (stored, current))  # (1,) is [1]
    return [
        *_settings(stored, current),
        *machine(stored.environment, current.environment),
        *_sources(stored.sources, current.sources),
        *_cases(stored, current),
    ]


def _settings(stored: Manifest, current: Manifest) -> Iterator[str]:
    old, new = msgspec.to_builtins(stored.settings), msgspec.to_builtins(current.settings)
    for name in SETTINGS:
        if old[name] != new[name]:
            if name == "protocol" and old[name]["name"] == new[name]["name"]:
                yield from (line for _, line in _changed(old[name], new[name], f"protocol {old[name]['name']}, "))
            else:
                yield _told(name, *(side[name]["name"] if name == "protocol" else side[name] for side in (old, new)))


def machine(stored: Environment, current: Environment) -> Iterator[str]:
    """The fields, and entries of fields, that make the fingerprints differ: asked of the fingerprint itself."""

    def matters(name: str, value: object) -> bool:
        return msgspec.structs.replace(stored, **{name: value}).fingerprint != stored.fingerprint

    for name in stored.__struct_fields__:
        old, new = getattr(stored, name), getattr(current, name)
        if not matters(name, new):
            continue
        if isinstance(old, tuple):
            changed = sorted(set(old) ^ set(new))
            yield f"{name}: {', '.join(changed) or 'another order'}"
        elif isinstance(old or new, dict):
            yield from (line for key, line in _changed(old or {}, new or {}) if matters(name, {**(old or {}), key: (new or {}).get(key)}))
        else:
            yield _told(name, old, new)


def _sources(stored: Mapping[str, str], current: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(stored.keys() | current.keys()):
        if name not in current:
            yield f"kernel {name} is gone"
        elif name not in stored:
            yield f"kernel {name} is new"
        elif stored[name] != current[name]:
            yield f"the source of kernel {name} has changed"


def _cases(stored: Manifest, current: Manifest) -> Iterator[str]:
    old, new = ({case.id: case for case in manifest.cases} for manifest in (stored, current))
    for found, words in ((old.keys() - new.keys(), "no longer planned"), (new.keys() - old.keys(), "not planned then")):
        if found:
            case = next(case for case in (*stored.cases, *current.cases) if case.id in found)
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            yield f"case {case.kernel} {case.label}{more}: {words}"
    for case in stored.cases:
        if (other := new.get(case.id)) not in (case, None):
            fields = msgspec.to_builtins(case), msgspec.to_builtins(other)
            yield from (line for _, line in _changed(*fields, f"case {case.kernel} {case.label}, "))


def _changed(stored: Mapping[str, Any], current: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each name under which the two hold different things, and the sentence about it."""
    for name in sorted(stored.keys() | current.keys()):
        if stored.get(name) != current.get(name):
            yield name, _told(prefix + name, stored.get(name), current.get(name))


def _told(name: str, stored: object, current: object) -> str:
    return f"{name}: {'none' if stored is None else stored} there, {'none' if current is None else current} here"
