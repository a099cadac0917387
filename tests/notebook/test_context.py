"""The notebook as context: which cells a turn is told, which data, and what is not told again."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from turncell import Agent, Image, Session, UsageError, redact
from turncell.notebook.context import CELLS_TOKENS, OLDER, CellErrors, cells_above, fix_prompt, notebook_context
from turncell.notebook.interpolation import interpolate
from turncell.testing import ScriptedModel

pytestmark = pytest.mark.feature("D10")


def cell(shell: InteractiveShell, source: str) -> None:
    shell.run_cell(source, store_history=True)


def told(agent: Agent, session: Session | None = None) -> str:
    """What the model was told with its last request."""
    model = agent.model
    assert isinstance(model, ScriptedModel)
    return "\n".join(message.text for message in model.requests[-1].messages)


def turn(shell: InteractiveShell, session: Session | None = None, *answers: str, **options: object) -> Agent:
    agent = Agent(ScriptedModel(list(answers) or ["Fine."]))
    context = notebook_context(shell, session=session, **options)  # type: ignore[arg-type]
    agent = context.added_to(agent)
    agent.run_sync(context.before("And now?"), session=session)
    return agent


def test_the_sources_of_the_cells_above_are_told_without_results(shell: InteractiveShell) -> None:
    cell(shell, "rate = 2 + 3\nrate")
    cell(shell, "%pwd")
    said = told(turn(shell))
    assert "In [1]:\nrate = 2 + 3\nrate" in said and "In [2]:\n%pwd" in said
    assert "5" not in said and said.index("In [1]") < said.index("In [2]") < said.index("And now?")


def test_turns_are_no_cells_and_of_a_cell_that_ran_twice_the_latest_counts(shell: InteractiveShell) -> None:
    shell.register_magic_function(lambda line, cell="": None, "line_cell", "agent")
    cell(shell, "x = 1")
    cell(shell, "%%agent -o run\nWhat is x?")
    cell(shell, "%agent status")
    cell(shell, "x = 1")
    assert cells_above(shell) == ["In [4]:\nx = 1"]


def test_of_many_cells_the_newest_are_kept_within_the_limit(shell: InteractiveShell) -> None:
    for number in range(40):
        cell(shell, f"text_{number} = '{'word ' * 100}'")
    cells = cells_above(shell)
    assert cells[0] == OLDER and cells[-1].startswith("In [40]")
    assert 10 < len(cells) < 40
    assert sum(len(passage) for passage in cells) < CELLS_TOKENS * 6


def test_a_later_turn_is_told_only_what_has_come_since(shell: InteractiveShell) -> None:
    session = Agent(ScriptedModel([])).session()
    cell(shell, "x = 1")
    first = told(turn(shell, session))
    cell(shell, "y = 2")
    second = told(turn(shell, session))
    assert second.startswith(first), "what was told keeps its place, and the provider its cache"
    assert second.count("x = 1") == 1 and second.count("y = 2") == 1
    assert session.runs[1].retrieved is not None
    assert [passage.text for passage in session.runs[1].retrieved.passages] == ["In [2]:\ny = 2"]


def test_cells_that_were_left_out_for_room_do_not_come_back_later(shell: InteractiveShell) -> None:
    session = Agent(ScriptedModel([])).session()
    for number in range(40):
        cell(shell, f"text_{number} = '{'word ' * 100}'")
    turn(shell, session)
    cell(shell, "y = 2")
    turn(shell, session)
    assert session.runs[1].retrieved is not None
    assert [passage.text for passage in session.runs[1].retrieved.passages] == ["In [41]:\ny = 2"]


def test_after_an_undo_the_cells_are_told_again(shell: InteractiveShell) -> None:
    session = Agent(ScriptedModel([])).session()
    cell(shell, "x = 1")
    turn(shell, session)
    session.undo()
    assert "x = 1" in told(turn(shell, session))


def test_a_cell_with_a_secret_is_told_once_too(shell: InteractiveShell) -> None:
    redact("hunter2-and-more")
    session = Agent(ScriptedModel([])).session()
    cell(shell, "password = 'hunter2-and-more'")
    turn(shell, session)
    loaded = Session.load(session.id)
    session.close()
    assert notebook_context(shell, session=loaded).sources[0].find("") == []


def test_none_tells_nothing(shell: InteractiveShell) -> None:
    cell(shell, "x = 1")
    assert told(turn(shell, choice="none")) == "And now?"


def test_named_variables_are_told_as_data_that_is_not_trusted(shell: InteractiveShell) -> None:
    cell(shell, "import pandas as pd\ndf = pd.DataFrame({'n': range(100)})\nother = 'unnamed'")
    context = notebook_context(shell, "none", ["df", "df['n']"])
    assert [source.trusted for source in context.sources] == [False]
    said = told(turn(shell, choice="none", names=["df"]))
    assert "df: DataFrame, 100 rows × 1 columns: n (int64); the first 5:" in said and "unnamed" not in said


def test_all_tells_tables_figures_and_the_last_error(shell: InteractiveShell) -> None:
    cell(
        shell,
        "import pandas as pd\nfrom matplotlib.figure import Figure\ndf = pd.DataFrame({'n': [1]})\nfig = Figure()\nz = 26",
    )
    shell.run_cell("1 / 0", store_history=True)
    context = notebook_context(shell, "all")
    prompt = context.before("And now?")
    assert prompt[0] == "fig:" and isinstance(prompt[1], Image) and prompt[2] == "And now?"
    said = told(turn(shell, choice="all"))
    assert "df: DataFrame" in said and "The last error, of In [2]:" in said and "ZeroDivisionError" in said
    assert "z: int" not in said


def test_a_name_that_is_not_there_is_a_mistake(shell: InteractiveShell) -> None:
    with pytest.raises(UsageError, match="'nobody' is not defined in this notebook"):
        notebook_context(shell, "cells", ["nobody"])
    with pytest.raises(UsageError, match="context is 'some'; use one of none, cells, all"):
        notebook_context(shell, "some")  # type: ignore[arg-type]


def test_the_agent_that_is_given_keeps_its_own_sources(shell: InteractiveShell) -> None:
    cell(shell, "x = 1")
    agent = Agent(ScriptedModel(["Fine."]), sources=[lambda query: ["The office closes at five."]])
    made = notebook_context(shell).added_to(agent)
    assert (len(agent.sources), len(made.sources)) == (1, 2)


# -- %agent fix


def test_the_prompt_to_mend_has_the_cell_its_error_and_its_variables(shell: InteractiveShell) -> None:
    cell(shell, "rates = {'Oslo': 3}\nunrelated = 1")
    cell(shell, "city = 'Rome'\nprint(rates[city])")
    prompt = fix_prompt(shell)
    assert "In [2] of this notebook failed" in prompt
    assert "city = 'Rome'\nprint(rates[city])" in prompt and "KeyError: 'Rome'" in prompt
    assert 'rates: dict of 1: {"Oslo": 3}' in prompt and "unrelated" not in prompt
    assert interpolate(prompt, {}) == prompt


def test_a_cell_that_cannot_be_read_can_be_mended_too(shell: InteractiveShell) -> None:
    cell(shell, "print('a'))")
    assert "SyntaxError" in fix_prompt(shell)


def test_a_cell_that_has_run_well_since_needs_no_mending(shell: InteractiveShell) -> None:
    cell(shell, "print(rate)")
    cell(shell, "rate = 3")
    cell(shell, "print(rate)")
    with pytest.raises(UsageError, match="no cell has failed"):
        fix_prompt(shell)


def test_another_cell_than_the_last_can_be_named(shell: InteractiveShell) -> None:
    cell(shell, "1 / 0")
    cell(shell, "[][1]")
    assert "ZeroDivisionError" in fix_prompt(shell, 1) and "IndexError" in fix_prompt(shell)
    with pytest.raises(UsageError, match=r"In \[7\] has not failed; use one of In \[1\], In \[2\]"):
        fix_prompt(shell, 7)


def test_an_unloaded_extension_keeps_no_errors(shell: InteractiveShell) -> None:
    errors = CellErrors.of(shell)
    errors.close()
    cell(shell, "1 / 0")
    assert len(errors) == 0
