"""How soon a page can be used in Chromium: loaded, its first filter operated and the effect drawn."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

CHROMIUM = "BROWSER_PATH"
"""Environment variable with the path of the browser, where it is none of the usual names."""
NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 120_000
FILTER = "select[data-filter]"
# until what the filter hides is hidden and has been painted; resolves to the seconds since the navigation began
REFLECTED = """async (before) => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  while (document.querySelectorAll("main [hidden]").length === before) await frame();
  await frame(); await frame();
  return performance.now() / 1000;
}"""
LOADED = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd / 1000"


def found() -> str | None:
    """The path of the browser; None when there is none."""
    return os.environ.get(CHROMIUM) or next(filter(None, map(shutil.which, NAMES)), None)


def why_not() -> str | None:
    """Why pages cannot be opened here, in a sentence; None when they can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "no browser: it is driven by the Python package playwright: pip install 'kerneldyno[test]'"
    return None if found() else f"no browser: install chromium, or name its file in {CHROMIUM}"


def opened(page: Path) -> dict[str, Any]:
    """`loaded_s`, `interactive_s` and `console_errors` of a page, with a note when it has no filter to operate."""
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found(), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.set_default_timeout(PATIENCE_MS)
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(page.resolve().as_uri(), wait_until="domcontentloaded")
        seen: dict[str, Any] = {"loaded_s": tab.evaluate(LOADED), "notes": []}
        if tab.locator(FILTER).count():
            before = tab.evaluate("document.querySelectorAll('main [hidden]').length")
            tab.locator(FILTER).first.select_option(index=1)
            seen["interactive_s"] = tab.evaluate(REFLECTED, before)
        else:
            seen["notes"].append("the page has no filter to operate")
        browser.close()
    return seen | {"console_errors": len(errors), "notes": [*seen["notes"], *(f"console: {text}" for text in errors[:3])]}
