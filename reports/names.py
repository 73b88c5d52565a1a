"""How kernels are called where there is little room."""

from __future__ import annotations

import html

LABEL_LENGTH = 22


def short(kernel: str) -> str:
    """A kernel's name without its operator."""
    return kernel.partition("/")[2]


def label(kernel: str) -> str:
    """Its short name for a chart, escaped, cut to what leaves room for the plot on a phone."""
    name = short(kernel)
    return html.escape(name if len(name) <= LABEL_LENGTH else name[: LABEL_LENGTH - 1] + "…")


def marked(kernel: str, approximate: object) -> str:
    """Its short name in a list of exact and approximate kernels."""
    return f"{short(kernel)} (approximate)" if approximate else short(kernel)
