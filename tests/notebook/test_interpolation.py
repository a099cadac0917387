"""Braces in a prompt: what they are filled with, and what stays as typed."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from turncell.core.parts import Image
from turncell.notebook.context import names_of
from turncell.notebook.interpolation import interpolate

pytestmark = pytest.mark.feature("D9")


class Reading:
    city = "Oslo"

    @property
    def broken(self) -> str:
        raise RuntimeError("no reading")

    def __repr__(self) -> str:
        raise RuntimeError("cannot be shown")


NAMES: dict[str, Any] = {
    "name": "Ana", "reading": Reading(), "d": {"k": [1, 2], "with space": 3}, "xs": list(range(10)), "n": 2.5, "none": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "sent"),
    [
        ("Dear {name},", "Dear Ana,"),
        ("{reading.city}: {n} °C", "Oslo: 2.5 °C"),
        ("{d['k']} {d['k'][1]} {d['with space']}", "[1, 2] 2 3"),
        ('{d["k"][-1]} {xs[2:4]}', "2 [2, 3]"),
        ("{none} {name} {name}", "None Ana Ana"),
        ("{ name }", "{ name }"),
    ],
)
def test_names_attributes_and_items_that_exist_are_filled_in(prompt: str, sent: str) -> None:
    assert interpolate(prompt, NAMES) == sent


@pytest.mark.parametrize(
    "prompt",
    [
        "{unknown}", "{}", "{ }", "{{name", "a { b } c", '{"json": 1}', "{name.nothing}", "{d['nothing']}", "{xs[99]}",
        "{reading.broken}", "{name.upper()}", "{len(xs)}", "{n + 1}", "{d[name]}", "{lambda: 1}", "{name!r}", "{n:.2f}",
        "\\frac{a}{b}", "{0}", "{name\n}", "${HOME}", "function() { return 1 }", "{name = 3}", "{(name := 3)}", "{name;}",
        "{\x00name}", "{xs[0:'a']}", "{" * 1000, "{xs" + "[0]" * 5000 + "}",
    ],
)  # fmt: skip
def test_every_other_brace_stays_as_typed(prompt: str) -> None:
    assert interpolate(prompt, NAMES) == prompt


def test_nothing_is_called() -> None:
    called: list[str] = []
    assert interpolate("{f()} {d[f()]}", {"f": lambda: called.append("f"), "d": {}}) == "{f()} {d[f()]}"
    assert called == []


def test_what_was_filled_in_is_not_read_again() -> None:
    assert interpolate("{a}", {"a": "{b}", "b": "secret"}) == "{b}"


def test_an_object_that_cannot_be_shown_is_said_to_be_one() -> None:
    assert interpolate("{reading}", NAMES) == "<a Reading that cannot be shown: RuntimeError>"


def test_a_long_object_is_cut_with_a_mark() -> None:
    sent = interpolate("{text}", {"text": "x" * 10_000})
    assert sent == "x" * 8_000 + "\n[cut here: 2,000 more characters of 10,000]"


def test_tables_and_arrays_are_told_by_shape_types_and_head() -> None:
    import numpy as np
    import pandas as pd

    sales = pd.DataFrame({"city": ["Oslo"] * 100, "n": range(100)})
    sent = str(interpolate("Look: {sales} and {sales['n']} and {grid}", {"sales": sales, "grid": np.zeros((500, 500))}))
    assert "Look: \nDataFrame, 100 rows × 2 columns: city (" in sent and "n (int64); the first 5:" in sent
    assert "Series 'n', 100 values of int64; the first 5:" in sent
    assert interpolate("{n}", {"n": np.float64(2.5)}) == "2.5"
    assert "array of shape (500, 500), float64:" in sent and "..." in sent
    assert len(sent) < 1_000


def test_a_figure_is_an_image_in_its_place() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    before, picture, after = interpolate("What does {figure} show?", {"figure": figure})
    assert (before, after) == ("What does ", " show?")
    assert isinstance(picture, Image) and base64.b64decode(picture.data).startswith(b"\x89PNG")


def test_a_prompt_that_is_only_a_figure_is_only_an_image() -> None:
    from matplotlib.figure import Figure

    (picture,) = interpolate("{figure}", {"figure": Figure()})
    assert isinstance(picture, Image)


def test_cells_their_results_and_their_errors_have_names(shell: InteractiveShell) -> None:
    shell.run_cell("%pwd\n1 + 1", store_history=True)
    shell.run_cell("def f():\n    return {}['rate']\nf()", store_history=True)
    names = names_of(shell)
    assert interpolate("{In[1]} gives {Out[1]}", names) == "%pwd\n1 + 1 gives 2"
    error = str(interpolate("{Err[2]}", names))
    assert "Cell In[2], line 2, in f" in error and error.endswith("KeyError: 'rate'")
    assert interpolate("{Err[1]} {Out[9]} {In[99]}", names) == "{Err[1]} {Out[9]} {In[99]}"


def test_a_variable_of_the_person_called_err_is_theirs(shell: InteractiveShell) -> None:
    shell.run_cell("Err = ['mine']")
    assert interpolate("{Err[0]}", names_of(shell)) == "mine"
