"""What failed in a notebook, as its author reads it: the frames of their own code, and where it was raised."""

from __future__ import annotations

import site
import sysconfig
import traceback
from pathlib import Path
from typing import Any

from turncell.errors import say
from turncell.runtime.output import shorten

FAILURE_CHARS = 4_000
_FRAMES = 12
_OURS = str(Path(__file__).parents[1])
_LIBRARIES = tuple(
    {path for name in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(name))}
    | set(site.getsitepackages() if hasattr(site, "getsitepackages") else ())
)


def trimmed(error: BaseException, shell: Any = None) -> str:
    """The traceback without the frames of libraries and of this package; the innermost frame always stands.

    >>> try:
    ...     {}["a"]
    ... except KeyError as error:
    ...     print(trimmed(error).splitlines()[-1])
    KeyError: 'a'
    """
    try:
        return shorten(_trimmed(error, shell), FAILURE_CHARS)
    except Exception:  # somebody's exception that cannot show itself
        return say(error)


def _trimmed(error: BaseException, shell: Any) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_OURS)]
    if isinstance(error, SyntaxError) and not any(is_of_people(frame.filename) for frame in frames):
        frames = []  # code that has not begun: its place is in the message
    first = next((at for at, frame in enumerate(frames) if is_of_people(frame.filename)), 0)
    frames = frames[first:]  # what stands above is the shell that runs the cell
    kept = [frame for frame in frames if is_of_people(frame.filename) or frame is frames[-1]][-_FRAMES:]
    lines = []
    if kept:
        left_out = len(frames) - len(kept)
        lines.append(
            "Traceback"
            + (f" ({left_out} frame{'s' * (left_out != 1)} of libraries left out)" if left_out else "")
            + ":"
        )
    for frame in kept:
        inside = "" if frame.name == "<module>" else f", in {frame.name}"
        lines.append(f"  {place_of(frame.filename, shell)}, line {frame.lineno}{inside}")
        if frame.line:
            lines.append(f"    {frame.line}")
    lines += [line.rstrip("\n") for line in traceback.format_exception_only(error)]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        lines.append(f"after {say(cause)}")
    return "\n".join(lines)


def is_of_people(filename: str) -> bool:
    """Whether code stands in a cell or in a file of the person's own."""
    # A virtual environment may stand in the person's folder, and its libraries in the environment.
    return (
        not filename.startswith(_LIBRARIES) and "site-packages" not in filename and not filename.startswith("<frozen")
    )


def place_of(filename: str, shell: Any) -> str:
    """Where code stands, as people name it: `Cell In[3]`, or the path of a file."""
    named = getattr(getattr(shell, "compile", None), "format_code_name", None)
    found = named(filename) if named is not None else None
    if found:
        return " ".join(found)
    return filename.strip("<>") if filename.startswith("<") else filename
