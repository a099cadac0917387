"""Images: in prompts, in results, in answers; on the wire of each provider, in the journal, and on the screen."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from turncell import Agent, Image, MarkdownStore, Message, Output, Session, SQLStore, Text, UsageError, image, tool
from turncell.adapters.direct_anthropic import DirectAnthropic
from turncell.adapters.direct_chat import DirectChat
from turncell.adapters.direct_responses import DirectResponses
from turncell.adapters.litellm_model import LiteLLMModel
from turncell.frames.transcript import mimebundle
from turncell.runtime.output import MOST_IMAGES, to_output
from turncell.runtime.ports import Capabilities, Model
from turncell.testing import ProviderServer, ScriptedModel, call, raw, reply, serve

pytestmark = pytest.mark.feature("G1")

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
)
DATA = base64.b64encode(PNG).decode()
SEEN = Image(DATA, "image/png")


@tool(effect="read")
def look() -> Image:
    """Look."""
    return SEEN


class TestInPrompts:
    @pytest.mark.parametrize("of", [lambda path: path, lambda path: path.read_bytes(), lambda path: image(str(path))])
    def test_a_prompt_is_a_list_of_texts_and_images(self, tmp_path: Path, of: Callable[[Path], Any]) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        model = ScriptedModel(["A dot."])
        run = Agent(model).run_sync(["What is this?", of(tmp_path / "a.png")])
        assert model.requests[0].messages == (Message("user", (Text("What is this?"), SEEN)),)
        assert run.status == "completed"

    def test_pil_images_and_figures_are_drawn(self) -> None:
        from matplotlib.figure import Figure
        from PIL import Image as Pillow

        model = ScriptedModel(["Two."])
        Agent(model).run_sync(["These?", Pillow.new("RGB", (3, 2)), Figure(figsize=(1, 1))])
        _, *pictures = model.requests[0].messages[0].parts
        assert [one.media_type for one in pictures if isinstance(one, Image)] == ["image/png"] * 2

    @pytest.mark.parametrize(
        ("data", "kind"),
        [(b"\xff\xd8\xff\xe0..", "image/jpeg"), (b"GIF89a..", "image/gif"), (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp")],
    )
    def test_what_it_is_is_read_from_its_bytes(self, tmp_path: Path, data: bytes, kind: str) -> None:
        (tmp_path / "a.png").write_bytes(data)
        assert image(tmp_path / "a.png").media_type == kind

    @pytest.mark.parametrize(
        ("source", "why"),
        [
            (b"BM......", r"no PNG, JPEG, GIF or WebP.*b'BM\.+'.*convert it"),
            (Path("nowhere.png"), "'nowhere.png' cannot be read: No such file"),
            (PNG + b"\0" * 5_000_000, r"an image of 5,000,07\d bytes, where 5,000,000 may be sent"),
            (Image("a.png"), "or a URL; found 'a.png'"),
            (Image("!!", "image/png"), "no base64"),
            (7, "found int"),
        ],
    )
    def test_what_no_provider_takes_is_refused_before_the_run(self, source: Any, why: str) -> None:
        model = ScriptedModel([])
        with pytest.raises(UsageError, match=re.compile(why)):
            Agent(model).start(["What is this?", source])
        assert model.requests == []

    def test_a_model_that_cannot_see_is_told_in_words(self) -> None:
        class Blind(ScriptedModel):
            capabilities = Capabilities(images=False)

        model = Blind([call("look"), "I cannot see it."])
        Agent(model, tools=[look]).run_sync(["What is this?", PNG])
        first, second = model.requests
        assert (
            first.messages[0].text == f"What is this?[an image that this model cannot see: image/png, {len(PNG)} bytes]"
        )
        assert second.messages[-1].parts[0].content == "An image."  # type: ignore[union-attr]
        assert not any(
            part.type == "image" for request in model.requests for one in request.messages for part in one.parts
        )


def ways(server: ProviderServer) -> dict[str, Model]:
    return {
        "chat": DirectChat("m", base_url=server.base_url),
        "anthropic": DirectAnthropic("claude-sonnet-4-5", base_url=server.origin, api_key="k"),
        "responses": DirectResponses("m", base_url=server.base_url),
        "litellm": LiteLLMModel("openai/m", base_url=server.base_url, api_key="k"),
        "litellm whole": LiteLLMModel("openai/m", base_url=server.base_url, api_key="k", is_whole=True),
    }


AT_CHAT = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}]
AT_RESPONSES = [{"type": "input_image", "image_url": f"data:image/png;base64,{DATA}", "detail": "auto"}]
AT_ANTHROPIC = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}]


@pytest.mark.parametrize("way", ["chat", "anthropic", "responses", "litellm", "litellm whole"])
def test_every_provider_is_sent_what_people_and_tools_show(way: str) -> None:
    with serve([reply(calls=[call("look")]), "A dot, twice."]) as server:
        run = Agent(ways(server)[way], tools=[look]).run_sync(["What is this?", SEEN])
        first, second = server.requests
    assert run.text == "A dot, twice."

    def without_marks(block: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in block.items() if name != "cache_control"}

    if way == "anthropic":
        assert [without_marks(one) for one in first["messages"][0]["content"][1:]] == AT_ANTHROPIC
        assert second["messages"][-1]["content"][0]["content"] == [{"type": "text", "text": "An image."}, *AT_ANTHROPIC]
    elif way == "responses":
        assert first["input"][0]["content"][1:] == AT_RESPONSES
        assert second["input"][-1]["output"] == [{"type": "input_text", "text": "An image."}, *AT_RESPONSES]
    else:
        assert first["messages"][0]["content"][1:] == AT_CHAT
        *_, result, beside = second["messages"]
        assert result["role"] == "tool" and result["content"] == "An image."
        assert beside == {"role": "user", "content": [{"type": "text", "text": "[what look has returned]"}, *AT_CHAT]}


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBX", "PA", "RGBa", "La"])
def test_a_pil_image_in_colours_that_png_has_not_is_converted(mode: str) -> None:
    from PIL import Image as PILImage

    assert image(PILImage.new(mode, (3, 2))).media_type == "image/png"
    shown = to_output(PILImage.new(mode, (3, 2)))
    assert shown.content == "An image, 3 × 2 pixels." and "image/png" in shown.display[0]


def test_one_of_numbers_is_refused_with_its_mode() -> None:
    from PIL import Image as PILImage

    with pytest.raises(UsageError, match=r"mode 'F' cannot be drawn as PNG; .*convert\('RGB'\)"):
        image(PILImage.new("F", (3, 2)))


class TestInResults:
    def test_several_are_seen_in_their_order(self) -> None:
        from matplotlib.figure import Figure

        @tool(effect="read")
        def shots(kind: str) -> Any:
            """Take pictures."""
            figure = Figure(figsize=(1, 1), dpi=20)
            return {
                "list": ["two views:", image(PNG), figure],
                "tuple": (image(PNG), figure),
                "dict": {"before": image(PNG), "after": [figure]},
                "output": Output(["two views:", image(PNG), figure], details={"n": 2}),
            }[kind]

        kinds = ["list", "tuple", "dict", "output"]
        model = ScriptedModel([*(call("shots", kind=kind) for kind in kinds), "Seen."])
        run = Agent(model, tools=[shots]).run_sync("Look around.")
        assert [c.content for c in run.tool_calls] == [
            '["two views:", "[image 1]", "[image 2]"]', '["[image 1]", "[image 2]"]',
            '{"before": "[image 1]", "after": ["[image 2]"]}', '["two views:", "[image 1]", "[image 2]"]',
        ]  # fmt: skip
        for request in model.requests[1:]:
            first, second = cast(Any, request.messages[-1].parts[0]).images
            assert first == SEEN and base64.b64decode(second.data).startswith(PNG[:8])

    def test_of_too_many_and_too_large_ones_some_are_left_out_in_words(self) -> None:
        large = image(PNG + b"\0" * 1_000_000)

        @tool(effect="read")
        def shots(kind: str) -> Any:
            """Take pictures."""
            many = [image(PNG)] * (MOST_IMAGES + 2)
            far = [image("https://example.org/a.png"), Image("!!", "image/png")]
            return {"many": many, "large": [large, large, image(PNG)], "odd": far}[kind]

        model = ScriptedModel([*(call("shots", kind=kind) for kind in ("many", "large", "odd")), "Seen."])
        run = Agent(model, tools=[shots]).run_sync("Look around.")
        many, big, odd = (json.loads(c.content or "") for c in run.tool_calls)
        assert many[-3:] == ["[image 20]", *["[an image, left out: more than 20]"] * 2]
        assert big[0] == "[image 1]" and big[1].startswith("[left out: image/png of 1,3") and big[2] == "[image 2]"
        assert (
            odd[0] == "[An image: https://example.org/a.png]" and "that cannot be shown: the data of an Image" in odd[1]
        )
        seen = [len(cast(Any, request.messages[-1].parts[0]).images) for request in model.requests[1:]]
        assert seen == [20, 2, 0]

    def test_a_figure_is_seen_by_people_and_by_the_model(self) -> None:
        from matplotlib.figure import Figure

        @tool(effect="read")
        def plot() -> Figure:
            """Plot."""
            return Figure(figsize=(1, 1))

        model = ScriptedModel([call("plot"), "Empty."])
        run = Agent(model, tools=[plot]).run_sync("Plot it.")
        (result,) = model.requests[1].messages[-1].parts
        assert result.content == "A figure, 100 × 100 pixels."  # type: ignore[union-attr]
        (seen,) = result.images  # type: ignore[union-attr]
        assert seen.data in mimebundle(run.state)["text/html"]

    def test_what_is_only_displayed_is_for_people(self) -> None:
        @tool(effect="read")
        def plot() -> Output:
            """Plot."""
            return Output("Done.", display=[SEEN])

        model = ScriptedModel([call("plot"), "Done."])
        run = Agent(model, tools=[plot]).run_sync("Plot it.")
        assert DATA not in repr(model.requests) and DATA in mimebundle(run.state)["text/html"]


@pytest.mark.parametrize("open_store", [lambda at: SQLStore.sqlite(at / "h.sqlite"), lambda at: MarkdownStore(at)])
@pytest.mark.feature("G1")
def test_an_image_is_kept_once_and_found_again(tmp_path: Path, open_store: Callable[[Path], Any]) -> None:
    from turncell import Journal

    large = Image(base64.b64encode(PNG + bytes(range(256)) * 800).decode(), "image/png")

    @tool(effect="read")
    def same() -> Image:
        """The same."""
        return large

    journal = Journal(lambda: open_store(tmp_path))
    model = ScriptedModel([[large, "This."], call("same"), "That."])
    agent = Agent(model, tools=[same], journal=journal)
    first = agent.run_sync(["Draw it, ", large])
    agent.run_sync("Again", session=first.session)
    session_id = first.session.id
    journal.close()

    again = Journal(lambda: open_store(tmp_path))
    model = ScriptedModel(["Yes."])
    Agent(model, journal=again).run_sync("Still there?", session=Session.load(session_id, journal=again))
    parts = [part for message in model.requests[0].messages for part in message.parts]
    assert [part for part in parts if isinstance(part, Image)] == [large, large]
    assert [part.images for part in parts if part.type == "tool_result"] == [(large,)]
    again.close()


class TestInAnswers:
    def draws(self, way: str) -> Any:
        if way == "responses":
            item = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": DATA}
            return raw(
                {"type": "response.output_item.done", "output_index": 0, "item": item},
                {"type": "response.completed", "response": {"status": "completed", "output": [item]}},
            )
        delta = {
            "content": "",
            "images": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}],
        }
        return raw({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
                   {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})  # fmt: skip

    @pytest.mark.parametrize("way", ["chat", "responses", "litellm", "litellm whole"])
    def test_an_image_is_a_part_of_the_answer_and_goes_back(self, way: str) -> None:
        with serve([self.draws(way), "A dot."]) as server:
            agent = Agent(ways(server)[way])
            run = agent.run_sync("Draw a dot.")
            assert run.status == "completed"
            assert run.state.steps[-1].message == Message("assistant", (SEEN,))
            agent.run_sync("What have you drawn?", session=run.session)
            back = json.dumps(server.requests[1])
        assert back.count(DATA) == 1 and "[what you have made]" in back

    def test_it_is_shown_where_the_answer_stands(self) -> None:
        run = Agent(ScriptedModel([["Here:", SEEN]])).run_sync("Draw a dot.")
        shown = mimebundle(run.state)
        assert f'src="data:image/png;base64,{DATA}"' in shown["text/html"]
        assert f"![Image by the model](data:image/png;base64,{DATA})" in shown["text/markdown"]
        assert shown["text/plain"] == "Here:"

    def test_one_at_an_address_is_named_and_never_loaded(self) -> None:
        run = Agent(ScriptedModel([["Here:", Image("https://example.org/a.png")]])).run_sync("Draw a dot.")
        html = mimebundle(run.state)["text/html"]
        assert "https://example.org/a.png" in html and "<img" not in html

    def test_a_secret_by_chance_inside_of_an_image_does_not_break_it(self) -> None:
        from turncell import redact

        redact(patterns=[DATA[20:40]])
        run = Agent(ScriptedModel([["Here:", SEEN]])).run_sync(["Draw it", SEEN])
        assert DATA in mimebundle(run.state)["text/html"]
