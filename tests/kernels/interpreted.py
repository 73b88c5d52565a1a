"""Runs a script in Triton's interpreter, spared what it does in vain: `TRITON_INTERPRET=1 python interpreted.py SCRIPT ARGUMENT…`."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from triton.runtime import interpreter


def patch_once_a_launch() -> None:
    """Let what a launch has made of the language do for the device functions that it calls.

    The interpreter looks through the whole of `triton.language` for what to replace by itself, at every launch and again at every call
    of a function in it, even of `tl.max`. Within a launch nothing puts back what was replaced: once for each module is enough.
    """
    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    done: set[int] = set()

    def patched(function: Callable[..., Any]) -> Any:
        module = id(function.__globals__)
        if module in done:
            return None  # functions that are called make no use of it
        done.add(module)
        return patch(function)

    def launched(self: Any, *arguments: Any, **named: Any) -> None:
        done.clear()
        launch(self, *arguments, **named)

    interpreter._patch_lang = patched
    interpreter.GridExecutor.__call__ = launched


def check_no_overflow() -> None:
    """Let it not compute whether integers overflow: outside of its debug mode it does nothing with what it finds."""
    builder = interpreter.interpreter_builder
    assert not builder.options.debug
    builder.options = replace(builder.options, sanitize_overflow=False)


if __name__ == "__main__":
    patch_once_a_launch()
    check_no_overflow()
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
