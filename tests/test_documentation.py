"""Every example of the README and of the docstrings runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import turncell

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MODULES = sorted(module.name for module in pkgutil.walk_packages(turncell.__path__, "turncell."))


def test_the_examples_of_the_readme_run_one_after_the_other() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    code = "\n".join(block for block in blocks if "%load_ext" not in block)
    assert "run.approve(" in code
    exec(compile(code, str(README), "exec"), {"__name__": "readme"})


def test_the_examples_of_the_guide_run_one_after_the_other() -> None:
    guide = ROOT / "docs" / "runtime.md"
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.S)
    assert len(blocks) > 8
    exec(compile("\n".join(blocks), str(guide), "exec", dont_inherit=True), {"__name__": "guide"})


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_the_readme_names_every_setting() -> None:
    from dataclasses import fields

    text = README.read_text(encoding="utf-8")
    assert [f.name for f in fields(turncell.Settings) if f"TURNCELL_{f.name.upper()}" not in text] == []


def test_the_readme_names_every_subcommand_of_the_magic() -> None:
    from turncell.notebook.magics import AgentMagics

    text = README.read_text(encoding="utf-8")
    commands = [name[4:] for name in dir(AgentMagics) if name.startswith("_do_")]
    assert [name for name in commands if name not in text] == []
