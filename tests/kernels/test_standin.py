from __future__ import annotations

import importlib
import sys

import pytest

from kerneldyno.kernels._standin import standing_in

MODULE = """
import heavyweight
import heavyweight.nn.functional as F
from heavyweight import Tensor, float32
from heavyweight.sub import jit

Change = Tensor | None
Either = None | Tensor
Table = dict[str, heavyweight.Tensor]
LIMITS = [heavyweight.finfo(float32).eps, heavyweight.nn.Linear[3]]


@jit
def plain(x):
    return x + 1


@heavyweight.jit(static=True)
def configured(x):
    return x + 2


class Block(heavyweight.nn.Module):
    def size(self):
        return 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pack", "user", "light", "heavyweight")]:
        del sys.modules[name]


def test_modules_can_be_read_without_what_they_import(folder):
    (folder / "user.py").write_text(MODULE)
    with standing_in("heavyweight"):
        user = importlib.import_module("user")
        assert user.plain(1) == 2  # a decorator leaves the function as it is
        assert user.Block().size() == 3
    assert "user" not in sys.modules
    assert not [name for name in sys.modules if name.startswith("heavyweight")]
    with pytest.raises(ModuleNotFoundError, match="heavyweight"):
        importlib.import_module("user")


def test_stand_ins_do_not_pretend_to_have_dunders(folder):
    with standing_in("heavyweight"):
        heavyweight = importlib.import_module("heavyweight")
        assert not hasattr(heavyweight, "__version__")
        assert not hasattr(heavyweight.anything, "__array__")


def test_what_is_loaded_already_stays_real():
    with standing_in("json"):
        import json

        assert json.loads("[1]") == [1]
    assert sys.modules["json"] is json


def test_modules_that_hold_no_stand_in_are_kept(folder):
    (folder / "light.py").write_text("answer = 42\n")
    with standing_in("heavyweight"):
        light = importlib.import_module("light")
    assert sys.modules["light"] is light


def test_named_packages_are_forgotten_even_when_touched_only_by_way_of_another(folder):
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("")
    (folder / "pack" / "holder.py").write_text("import heavyweight\n\n\ndef use():\n    return heavyweight.answer\n")
    (folder / "pack" / "caller.py").write_text("from .holder import use\n")
    with standing_in("heavyweight", forgetting=("pack.",)):
        importlib.import_module("pack.caller")
    (folder / "heavyweight.py").write_text("answer = 42\n")
    importlib.invalidate_caches()
    assert not hasattr(sys.modules["pack"], "caller")
    from pack import caller  # would be found as an attribute of the package, had it been left there

    assert caller.use() == 42


def test_leaves_nothing_behind_after_an_error(folder):
    finders = list(sys.meta_path)
    (folder / "user.py").write_text("import heavyweight.sub\n1 / 0\n")
    with pytest.raises(ZeroDivisionError), standing_in("heavyweight"):
        importlib.import_module("user")
    assert sys.meta_path == finders
    assert not [name for name in sys.modules if name.startswith("heavyweight")]
