"""A page taken apart: its elements, its texts, and the data that it carries, unpacked."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np

VOID = {"meta", "link", "input", "br", "img", "hr", "path"}
POLICY = re.compile(
    r"default-src 'none'; script-src 'nonce-(\w{32})'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
)


class Outline(HTMLParser):
    """Elements in order with their attributes, texts of scripts, and whether every tag was closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of this kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def script(self, name: str) -> str:
        """The text of a script element, as it stands."""
        [text] = [text for attributes, text in zip(self.of("script"), self.scripts, strict=True) if attributes.get("id") == name]
        return text

    def payload(self, name: str) -> Any:
        """The JSON value that travels under this name, whether it is packed or plain."""
        [attributes] = [attributes for attributes in self.of("script") if attributes.get("id") == name]
        text = self.script(name)
        return json.loads(gzip.decompress(base64.b64decode(text)) if "data-packed" in attributes else text)

    def check_policy(self) -> None:
        """Assert that the page is forbidden every connection and that only its own script may run."""
        [policy] = [meta["content"] or "" for meta in self.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
        found = POLICY.fullmatch(policy)
        assert found, policy
        for attributes in self.of("script"):
            inert = attributes.get("type") in {"application/json", "application/octet-stream"}
            assert inert or attributes.get("nonce") == found[1]
        assert not [name for _, attributes in self.elements for name in attributes if name.startswith("on")]


def numbers(given: list[float] | dict[str, str]) -> list[float]:
    """The numbers of a list, or of a typed array as plotly takes it."""
    if isinstance(given, list):
        return given
    found: list[float] = np.frombuffer(base64.b64decode(given["bdata"]), dtype=f"<{given['dtype']}").tolist()
    return found
