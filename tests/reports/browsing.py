"""What tests of pages in a real browser share: where it is, when they are skipped, and how they wait."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

CHROMIUM = Path("/usr/bin/chromium")
IN_A_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists() and not os.environ.get("CI"), reason=f"no Chromium at {CHROMIUM}: install Debian's chromium"),
]
Open = Callable[..., Page]
"""The fixture open_page: (width, settings of a browser context) -> the module's page."""


def until(page: Page, expression: str, patience_s: float = 30.0) -> None:
    """Wait for something to become true; asked from here, because the page's policy forbids Playwright's own way."""
    give_up = time.monotonic() + patience_s
    while not page.evaluate(expression):
        assert time.monotonic() < give_up, f"never became true: {expression}"
        page.wait_for_timeout(50)
