"""Output: whatever a tool returns becomes text for the model and values for people, of a bounded size."""

from __future__ import annotations

import base64
import datetime as dt
import enum
import json
import math
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from turncell import File, Output
from turncell.runtime.output import DISPLAY_LIMIT_BYTES, MODEL_LIMIT, TABLE, to_json, to_output

pytestmark = pytest.mark.feature("B4")


class TestWhatTheModelReads:
    @pytest.mark.parametrize(
        ("value", "content"),
        [
            pytest.param({1}, "[1]", id="a set"),
            pytest.param(b"bytes", "5 bytes of binary data, not shown.", id="bytes"),
            pytest.param(memoryview(b"bytes"), "5 bytes of binary data, not shown.", id="a view of bytes"),
            pytest.param(math.nan, "null", id="NaN"),
            pytest.param([math.inf, 1.5], "[null, 1.5]", id="infinity"),
            pytest.param(ValueError("no"), "ValueError('no')", id="an exception object"),
            pytest.param("a\ud800b", "a\ufffdb", id="a lone surrogate"),
            pytest.param({"k": "\udfff"}, '{"k": "\ufffd"}', id="a lone surrogate inside"),
            pytest.param(None, "Done. The tool returned nothing.", id="None"),
            pytest.param("", "", id="an empty text"),
            pytest.param(10**6_000, "[an integer of 19,932 bits]", id="an integer too long to be written"),
            pytest.param(dt.date(2026, 3, 1), "2026-03-01", id="a date"),
            pytest.param([Decimal("1.10"), Path("a/b")], '["1.10", "a/b"]', id="values known by their text"),
        ],
    )
    def test_is_text_whatever_was_returned(self, value: Any, content: str) -> None:
        output = to_output(value)
        assert output.content == content
        json.dumps([output.content, output.details], allow_nan=False).encode("utf-8")

    def test_a_50_mb_string_is_cut_with_a_mark(self) -> None:
        content = to_output("x" * 50_000_000).content
        assert len(content) < MODEL_LIMIT + 100
        assert content.endswith("[cut here: 49,950,000 more characters of 50,000,000]")

    def test_what_is_too_long_for_the_model_is_kept_for_programs(self) -> None:
        text = "".join(f"line {number}\n" for number in range(10_000))
        output = to_output(text)
        assert output.details == {"text": text} and len(output.content) < MODEL_LIMIT + 100
        assert to_output(text[:100]).details is None

    def test_a_50_mb_string_inside_costs_no_more_however_often_it_is_there(self) -> None:
        output = to_output(["x" * 50_000_000] * 1000)
        assert len(output.content) < MODEL_LIMIT + 100 and output.details is None
        assert output.content.endswith("[cut here: the whole is too large to be read]")

    def test_a_generator_is_described_and_not_consumed(self) -> None:
        numbers = (number for number in range(3))
        assert to_output(numbers).content.startswith("A generator that nobody has read")
        assert to_output({"numbers": numbers}).content.startswith('{"numbers": "<generator')
        assert list(numbers) == [0, 1, 2]

    def test_an_iterator_is_described_and_not_consumed(self) -> None:
        numbers = iter([1, 2])
        assert to_output(numbers).content.startswith("A list_iterator")
        assert list(numbers) == [1, 2]

    def test_models_dataclasses_and_enums_are_their_values(self) -> None:
        class Colour(enum.Enum):
            red = "r"

        @dataclass
        class Point:
            x: int
            colour: Colour

        class Place(BaseModel):
            at: dt.date

        value = {"point": Point(1, Colour.red), "place": Place(at=dt.date(2026, 1, 2))}
        assert to_output(value).details == {"point": {"x": 1, "colour": "r"}, "place": {"at": "2026-01-02"}}

    def test_an_object_that_fails_to_show_itself_is_named(self) -> None:
        class Shy:
            def __repr__(self) -> str:
                raise RuntimeError("no")

        assert to_output([Shy()]).content == '["<a Shy that cannot be shown: RuntimeError>"]'


class TestToJson:
    def test_a_list_that_contains_itself_ends_with_a_mark(self) -> None:
        ring: list[Any] = [1]
        ring.append(ring)
        assert to_json(ring) == [1, "[a list that contains itself]"]

    def test_a_dataclass_and_a_dict_that_contain_themselves_end_with_a_mark(self) -> None:
        @dataclass
        class Node:
            next: Any = None

        node = Node()
        node.next = {"back": node}
        assert to_json(node) == {"next": {"back": "[a Node that contains itself]"}}

    def test_the_same_value_twice_is_no_circle(self) -> None:
        shared = [1]
        assert to_json([shared, shared]) == [[1], [1]]

    def test_10_million_items_are_cut_with_a_mark_and_quickly(self) -> None:
        begin = time.thread_time()
        read = to_json([0] * 10_000_000)
        assert len(read) < 100_002 and "more items]" in read[-1]
        assert time.thread_time() - begin < 3

    def test_a_structure_that_doubles_at_every_level_does_not_explode(self) -> None:
        value: Any = "x"
        for _ in range(60):
            value = [value, value]
        assert len(json.dumps(to_json(value))) < 10_000_000

    def test_ten_thousand_levels_are_cut(self) -> None:
        value: Any = 0
        for _ in range(10_000):
            value = [value]
        assert "too deep to be read" in json.dumps(to_json(value))

    def test_numpy_scalars_are_plain_numbers(self) -> None:
        import numpy as np

        read = to_json([np.float64(1.5), np.int64(2), np.bool_(True), np.float32(math.nan), np.longdouble(1)])
        assert read[:4] == [1.5, 2, True, None] and type(read[0]) is float and isinstance(read[4], str)


class TestFiles:
    def test_size_and_type_are_looked_up(self, tmp_path: Path) -> None:
        path = tmp_path / "report.csv"
        path.write_bytes(b"a,b\n")
        output = to_output(Output("Written.", files=[path, File(str(path), media_type="text/plain")]))
        assert output.content == "Written."
        assert output.files == (File(str(path), 4, "text/csv"), File(str(path), 4, "text/plain"))

    @pytest.mark.parametrize("path", ["nowhere/at-all.csv", "nul\0inside", 3])
    def test_one_that_does_not_exist_is_said_to_the_model(self, path: Any) -> None:
        output = to_output(Output("Written.", files=(path,)))
        assert output.content == f"Written.\n[no such file: {path}]" and output.files == ()

    def test_one_path_alone_will_do(self, tmp_path: Path) -> None:
        output = to_output(Output("Made.", files=tmp_path))  # type: ignore[arg-type]
        assert output.files == (File(str(tmp_path), None, "inode/directory"),)

    @pytest.mark.parametrize(("files", "said"), [(None, "Made."), (5, "Made.\n[no such file: 5]")])
    def test_what_is_no_list_of_files_costs_nothing_of_the_result(self, files: Any, said: str) -> None:
        assert to_output(Output("Made.", files=files)).content == said


class TestDisplay:
    def test_an_output_can_be_made_of_text_and_details_alone(self) -> None:
        assert to_output(Output("text")) == Output("text")
        assert to_output(Output("text", {"n": math.nan})) == Output("text", {"n": None})
        assert to_output(Output("text", terminate=True)).terminate is True

    def test_bytes_become_base64_text(self) -> None:
        output = to_output(Output("A map.", display=[{"image/png": b"\x89PNG", "text/plain": "map\ud800"}]))
        assert output.display == ({"image/png": base64.b64encode(b"\x89PNG").decode(), "text/plain": "map\ufffd"},)

    def test_one_bundle_alone_will_do(self) -> None:
        assert to_output(Output("x", display={"text/html": "<b>x</b>"})).display == (  # type: ignore[arg-type]
            {"text/html": "<b>x</b>"},
        )

    def test_what_is_beyond_2_mb_is_left_out_with_a_mark(self) -> None:
        half = {"text/plain": "x" * (DISPLAY_LIMIT_BYTES // 2)}
        output = to_output(
            Output("x", display=[half, {"image/png": b"y" * DISPLAY_LIMIT_BYTES}, half, {"text/plain": "z"}])
        )
        assert [len(bundle.get("text/plain", "")) > 1000 for bundle in output.display] == [True, False, True, False]
        assert output.display[1] == {"text/plain": "[left out: image/png of 2,666,668 bytes, beyond 2,000,000]"}

    def test_a_content_that_is_no_text_is_shown_as_if_it_had_been_returned(self) -> None:
        assert to_output(Output({"a": 1})) == Output('{"a": 1}', {"a": 1})

    def test_a_figure_among_the_displays_becomes_a_bundle(self) -> None:
        import pandas as pd

        output = to_output(Output("See the table.", display=[pd.DataFrame({"a": [1]}), 3]))
        assert output.content == "See the table."
        assert [list(bundle) for bundle in output.display] == [[TABLE], ["text/plain"]]


class TestTables:
    def test_a_frame_is_text_for_the_model_and_a_table_for_people(self) -> None:
        import pandas as pd

        frame = pd.DataFrame(
            {
                "city": ["Oslo", None],
                "at": [pd.Timestamp("2026-03-01"), pd.NaT],
                "x": [1.5, math.nan],
                "y": [{1}, "b" * 500],
            }
        )
        output = to_output(frame)
        assert "Oslo" in output.content and output.details is None
        (bundle,) = output.display
        assert bundle[TABLE]["columns"] == ["city", "at", "x", "y"] and bundle[TABLE]["shape"] == [2, 4]
        assert bundle[TABLE]["rows"][0] == ["Oslo", "2026-03-01T00:00:00", 1.5, "[1]"]
        assert bundle[TABLE]["rows"][1] == [None, None, None, "b" * 200 + "…"]

    def test_a_large_frame_shows_its_corner_and_its_shape(self) -> None:
        import numpy as np
        import pandas as pd

        table = to_output(pd.DataFrame(np.zeros((1000, 50)))).display[0][TABLE]
        assert (len(table["rows"]), len(table["rows"][0]), len(table["columns"])) == (30, 20, 20)
        assert table["shape"] == [1000, 50]

    def test_an_index_that_says_something_stands_in_front(self) -> None:
        import pandas as pd

        frame = pd.DataFrame([[1, 2]], columns=["a", "a"], index=pd.Index(["Oslo"], name="city"))
        table = to_output(frame).display[0][TABLE]
        assert table == {"columns": ["city", "a", "a"], "rows": [["Oslo", 1, 2]], "shape": [1, 2]}

    def test_a_series_is_a_table_of_one_column(self) -> None:
        import pandas as pd

        table = to_output(pd.Series([1, 2], name="n")).display[0][TABLE]
        assert table == {"columns": ["n"], "rows": [[1], [2]], "shape": [2, 1]}

    @pytest.mark.parametrize("frame", [{}, {"a": []}])
    def test_an_empty_frame_is_a_table_too(self, frame: dict[str, Any]) -> None:
        import pandas as pd

        assert to_output(pd.DataFrame(frame)).display[0][TABLE]["rows"] == []


class TestPictures:
    def test_a_matplotlib_figure_is_its_picture(self) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 4.8), dpi=100)
        axes = figure.subplots()
        axes.plot([1, 2])
        part = figure.subfigures(1, 2)[0]
        for value in (figure, axes, part, part.subplots()):
            output = to_output(value)
            assert output.content == "A figure, 640 × 480 pixels."
            assert base64.b64decode(output.display[0]["image/png"]).startswith(b"\x89PNG")

    def test_a_pil_image_is_its_picture(self) -> None:
        from PIL import Image

        output = to_output(Image.new("RGB", (30, 20)))
        assert output.content == "An image, 30 × 20 pixels." and next(iter(output.display[0])) == "image/png"

    def test_an_image_that_cannot_be_a_png_is_described(self) -> None:
        from PIL import Image

        output = to_output(Image.new("F", (30, 20)))
        assert output == Output("An image of mode F, 30 × 20 pixels, not shown.")

    def test_an_object_that_shows_itself_as_png_is_its_picture(self) -> None:
        from PIL import Image

        class Map:
            def __init__(self, is_drawn: bool) -> None:
                self.is_drawn = is_drawn

            def __repr__(self) -> str:
                return "Map()"

            def _repr_png_(self) -> Any:
                return Image.new("RGB", (3, 2))._repr_png_() if self.is_drawn else None

        assert to_output(Map(True)).content == "An image, 3 × 2 pixels."
        assert to_output(Map(False)) == Output("Map()")
