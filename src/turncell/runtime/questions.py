"""Questions: what a tool or the model wants to know from a person, and what counts as an answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import cast

from turncell.core.digest import call_digest
from turncell.core.events import Option
from turncell.core.fold import RequestState
from turncell.core.signals import Question
from turncell.errors import AnswerRefused, UsageError

MAX_QUESTIONS = 10
"""How many questions a run may put to a person, if nothing else is said."""


def make_question(
    question: str,
    options: Iterable[str | Option] = (),
    allows_text: bool | None = None,
    allows_many: bool = False,
    default: str | None = None,
) -> Question:
    """A question that can be asked. Raises UsageError for one that nobody could answer."""
    if not isinstance(cast(object, question), str) or not question.strip():
        raise UsageError(f"a question is a text; found {question!r}")
    if isinstance(cast(object, options), str) or not isinstance(cast(object, options), Iterable):
        raise UsageError(f"the options of a question are a list of texts; found {options!r}")
    offered = tuple(Option(option) if isinstance(option, str) else option for option in options)
    for option in offered:
        if not (
            isinstance(cast(object, option), Option)
            and isinstance(cast(object, option.label), str)
            and option.label.strip()
        ):
            raise UsageError(f"an option is a text or an Option with a label; found {option!r}")
    labels = [option.label for option in offered]
    if len(set(labels)) < len(labels):
        raise UsageError(f"two options have the same label: {labels!r}")
    if default is not None and not isinstance(cast(object, default), str):
        raise UsageError(f"the default of a question is a text; found {default!r}")
    allows_text = not offered if allows_text is None else allows_text
    if not offered and not allows_text:
        raise UsageError(f"the question {question!r} has no options and allows no text: nobody could answer it")
    if default is not None and not allows_text and default not in labels:
        raise UsageError(f"the default {default!r} is none of the options {labels!r}")
    if default is not None and allows_many:
        default = json.dumps([default])
    digest = call_digest("question", [question, labels, allows_text, allows_many])
    return Question(digest, "question", question, offered, allows_text, allows_many, default_result=default)


def read_answer(result: str, allows_many: bool) -> str | list[str]:
    """The answer as the asking code gets it."""
    return [str(label) for label in json.loads(result)] if allows_many else result


def check_result(request: RequestState, result: str | Sequence[str] | None) -> str:
    """The answer to a question as it is recorded: a text, or a JSON list where there may be several.

    Raises AnswerRefused for what is no answer.
    """
    labels = [option.label for option in request.options]
    answers = _answers(request, result)
    for answer in answers:
        if answer not in labels and not request.allows_text:
            raise AnswerRefused(f"{answer!r} is none of the answers; choose from {', '.join(map(repr, labels))}")
    if not answers or not all(answer.strip() for answer in answers):
        raise AnswerRefused(f"the answer to {request.question!r} is empty")
    return json.dumps(answers, ensure_ascii=False) if request.allows_many else answers[0]


def _answers(request: RequestState, result: str | Sequence[str] | None) -> list[str]:
    if isinstance(result, str) and request.allows_many:
        try:
            parsed = json.loads(result)
        except (ValueError, RecursionError):
            parsed = result
        return [str(one) for one in parsed] if isinstance(parsed, list) else [result]
    if result is None or isinstance(result, str):
        return [result] if result else []
    if len(result) > 1 and not request.allows_many:
        raise AnswerRefused(f"one answer is wanted to {request.question!r}; found {list(result)!r}")
    return list(result)
