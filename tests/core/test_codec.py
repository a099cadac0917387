"""What models write is read to the letter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turncell.core import codec


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(["", " ", "NaN", "1e999", "-Infinity", "}", "0", "\\ud800", "\ud800", "\x01", ","]),
    st.integers(0, 20),
    st.booleans(),
)
def test_what_models_write_is_read_as_the_standard_library_reads_it(
    value: object, put_in: str, at: int, is_ascii: bool
) -> None:
    written = json.dumps(value, ensure_ascii=is_ascii)
    for text in (written, written[:at] + put_in + written[at:]):
        try:
            wanted = json.loads(text, parse_constant=lambda name: 1 / 0)
        except (ValueError, ZeroDivisionError):
            with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
                codec.decode_finite(text)
        else:
            found = codec.decode_finite(text)
            assert found == wanted and repr(found) == repr(wanted)


def test_what_is_nested_too_deeply_is_told_from_what_is_no_json() -> None:
    with pytest.raises(RecursionError):
        codec.decode_finite("[" * 100_000)
