"""What users write: lists, fields, paths left out of the record, exit statuses."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench import options
from kerneldyno.bench.plan import UsageError
from kerneldyno.kernels.registry import KernelFileError

NOTHING = {"batch": None, "seq_len": None, "dtype": None, "direction": None, "causal": None, "others": []}


def axes(**given_):
    return options.axes(**{**NOTHING, **given_})


def test_lists_become_values():
    found = axes(
        batch="1,4",
        seq_len=" 128 ,512",
        dtype="bf16,float32",
        causal=False,
        others=["head-dim=64,128", "gated=true", "norm=none", "softcap=0.5,30"],
    )
    assert found == {
        "batch": [1, 4],
        "seq_len": [128, 512],
        "dtype": ["bfloat16", "float32"],
        "causal": [False],
        "head_dim": [64, 128],
        "gated": [True],
        "norm": ["none"],
        "softcap": [0.5, 30],
    }


@pytest.mark.parametrize(
    ("given_", "named"),
    [
        ({"batch": ","}, "empty list"),
        ({"batch": ""}, "empty list"),
        ({"batch": "two"}, "'two'"),
        ({"seq_len": "12.5"}, "'12.5'"),
        ({"dtype": "float8"}, "'float8'.*bfloat16"),
        ({"direction": "sideways"}, "'sideways'.*backward"),
        ({"others": ["head_dim"]}, "FIELD=VALUES"),
        ({"others": ["head_dim="]}, "empty list"),
        ({"others": ['rope_scaling="llama3:8']}, "not a list: .*double quotes"),
        ({"others": ['norm="none"x']}, "not a list"),
    ],
)
def test_mistakes_are_named(given_, named):
    with pytest.raises(UsageError, match=named):
        axes(**given_)


def test_paths_are_reduced_to_names():
    words = ["run", "--load", "/home/ada/my.py", "--out=/tmp/x/y", "--batch", "1"]
    assert options.without_paths(words) == ["run", "--load", "my.py", "--out=y", "--batch", "1"]


@given(st.lists(st.integers(1, 10**6), min_size=1))
def test_any_list_of_numbers_is_read_back(values):
    assert axes(batch=",".join(map(str, values)))["batch"] == values


def test_a_word_with_commas_stands_in_quotes():
    assert axes(others=['rope_scaling="llama3:8,1,4,8192",linear:2'])["rope_scaling"] == ["llama3:8,1,4,8192", "linear:2"]
    assert options.words('x "y", "a ""b"" c" ', "--kernels") == ('x "y"', 'a "b" c')


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1))
def test_any_words_in_quotes_are_read_back(found):
    text = ", ".join('"' + word.replace('"', '""') + '"' for word in found)
    assert options.words(text, "--kernels") == tuple(found)


def test_exit_codes():
    assert options.exit_code(UsageError("x")) == 2
    assert options.exit_code(KernelFileError("x")) == 2
    assert options.exit_code(OSError(errno.ENOSPC, "no space left")) == 2
    assert options.exit_code(ZeroDivisionError()) is None


@pytest.mark.parametrize("text", ["yes", "AUTO", ""])
def test_energy_is_one_of_three(text):
    with pytest.raises(UsageError, match="auto, off, on"):
        options.energy(text)


def test_a_resumed_run_refuses_other_options():
    options.refuse_beside_resume(["--resume", "x", "--budget=3", "--load", "k.py"])
    with pytest.raises(UsageError, match="--batch"):
        options.refuse_beside_resume(["--resume", "x", "--batch", "3"])
