"""What all pages share: one self-contained file, its dress, its script and chart library, and data that cannot harm it.

A page is a template that extends `shell.html.j2` (blocks title, nav, main, footer). Data travel as JSON, compressed unless the
page is plain; a Content-Security-Policy forbids the page every connection. Needs no script: whatever stands in the template.
"""

from __future__ import annotations

import base64
import gzip
import secrets
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import msgspec
import numpy as np
from markupsafe import Markup
from plotly.offline import get_plotlyjs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .figures import Figure

HERE = Path(__file__).parent
TYPED_FROM = 24
"""Shorter lists of numbers are smaller as text."""


def render(
    template: str,
    *,
    figures: Mapping[str, Figure],
    payloads: Mapping[str, Any],
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    plain: bool = False,
    words: Mapping[str, Any] | None = None,
    **context: Any,
) -> str:
    """A page as text.

    `figures` (id -> data and layout) are drawn where an element of the class "chart" names one as data-figure; `payloads` are
    other JSON values that a script reads by name: "csv", a table as text, is what the button #download saves. `styles` and
    `scripts` are files of this folder that come after page.css and page.js; `words` are functions and tables for the template.
    `plain` leaves everything uncompressed, for browsers without DecompressionStream.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.globals |= dict(words or {})
    return environment.get_template(template).render(
        nonce=secrets.token_hex(16),
        style=_own("page.css", *styles),
        script=_own("page.js", *scripts),
        plotly=plotly_script(plain=plain),
        plain=plain,
        payloads=[(name, embedded(value) if plain else packed(value)) for name, value in {"figures": slim(figures), **payloads}.items()],
        **context,
    )


def embedded(value: Any) -> Markup:
    """JSON that cannot end the script element that holds it; numbers that JSON does not have become null."""
    text = msgspec.json.encode(value).decode()
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704 - no "<" left


def packed(value: Any) -> Markup:
    """JSON, compressed, as base64: for the browser's DecompressionStream."""
    return _base64(gzip.compress(msgspec.json.encode(value), 6, mtime=0))


def slim(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """The figures with long lists of real numbers in their traces as typed arrays of float32, as plotly takes them.

    Matrices likewise; whole numbers, short lists and layouts stay text, which compresses well.
    """
    return {name: {"data": [_slim(trace) for trace in figure["data"]], "layout": figure["layout"]} for name, figure in figures.items()}


def _slim(trace: Mapping[str, Any]) -> dict[str, Any]:
    """A trace, or a part of one such as its error bars."""
    return {
        key: _array(value) if isinstance(value, list) else _slim(value) if isinstance(value, dict) else value
        for key, value in trace.items()
    }


def _array(value: list[Any]) -> Any:
    matrix = bool(value) and all(isinstance(inner, list) and len(inner) == len(value[0]) and _are_reals(inner) for inner in value)
    return typed(np.asarray(value, dtype="<f4")) if matrix or _are_reals(value) else value


def typed(values: np.ndarray[Any, Any]) -> dict[str, str]:
    """An array in the form that plotly and the page's script read: its type, its little-endian bytes, and its shape if it has two axes."""
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    told = {"dtype": values.dtype.str[1:], "bdata": base64.b64encode(values.tobytes()).decode()}
    return told if values.ndim == 1 else told | {"shape": ", ".join(map(str, values.shape))}


def _are_reals(value: Sequence[Any]) -> bool:
    return len(value) >= TYPED_FROM and all(isinstance(inner, float) for inner in value)


def _own(*names: str) -> Markup:
    """Style sheets or scripts of this folder, as they are."""
    return Markup("".join((HERE / name).read_text(encoding="utf-8") for name in names))  # noqa: S704 - files of this folder


@lru_cache(maxsize=2)
def plotly_script(*, plain: bool) -> Markup:
    """The installed plotly's bundle: its text, or gzip and base64 for the browser to unpack."""
    bundle: str = get_plotlyjs()
    if plain:
        return Markup(bundle)  # noqa: S704 - plotly's own, made to stand in a script element
    return _base64(gzip.compress(bundle.encode(), 6, mtime=0))


def _base64(data: bytes) -> Markup:
    return Markup(base64.b64encode(data).decode())  # noqa: S704 - base64
