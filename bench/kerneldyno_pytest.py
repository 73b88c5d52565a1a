"""The name under which pytest finds the plugin; what it does is in pytest_plugin.

The wheel holds this module at its top: pytest marks every top-level module of a distribution with a plugin for assertion
rewriting, and where it finds none it takes the names of all modules two folders down for top-level ones, `__main__` among
them. Everybody who has kerneldyno installed would then be warned in every test session.
"""

from kerneldyno.bench.pytest_plugin import pytest_addoption, pytest_configure

__all__ = ["pytest_addoption", "pytest_configure"]
