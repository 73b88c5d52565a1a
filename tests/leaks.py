"""What stands in a file that was written to be shared: its bytes, with all that is packed inside them. Loaded with runpy."""

from __future__ import annotations

import base64
import binascii
import gzip
import re
from pathlib import Path

import pandas as pd

PACKED = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")


def contents(path: Path) -> bytes:
    """Everything that can be read from a file: as it is, tables as text, and what is base64 or gzip in it, unpacked."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        return data + pd.read_parquet(path).to_csv().encode()
    return data + b"".join(unpacked(found.group()) for found in PACKED.finditer(data))


def unpacked(text: bytes) -> bytes:
    """What a piece of base64 holds; gzip inside it is unpacked, too."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


def leaks(paths: list[Path], secrets: list[str]) -> dict[str, list[str]]:
    """File -> the secrets that stand in it, whatever their case."""
    found = {}
    for path in paths:
        inside = contents(path).lower()
        if told := [secret for secret in secrets if secret.lower().encode() in inside]:
            found[path.name] = told
    return found
