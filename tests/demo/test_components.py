"""The page's own components: what they send to browsers, and the API's input."""

from __future__ import annotations

import asyncio
import base64
import re
import string

import gradio as gr
import pytest
from gradio.data_classes import ImageData
from PIL import Image

from fkp import images
from fkp.demo import components, live, photos, view
from fkp.demo.settings import Settings
from tests.stand_in import FacesInColour


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def in_a_page(make):
    """A component, made as in a page."""

    async def build():
        with gr.Blocks():
            return make()

    return asyncio.run(build())


def test_the_upload_tells_its_limits_and_shows_the_examples(root):
    examples = sorted((root / "examples").glob("*.jpg"))
    given = in_a_page(lambda: components.upload(examples, Settings(max_file_size=8_000_000), 5))
    assert "Up to 5 at once, 8 MB each." in given.html_template
    assert given.html_template.count("data-example=") == given.html_template.count("<img") == 3
    assert 'aria-label="Try the example Grace Hopper"' in given.html_template
    assert given.props == {"what": "photo", "max_files": 5, "max_file_size": 8_000_000}
    assert "Or try" not in in_a_page(lambda: components.upload([], Settings(), 5)).html_template


def test_the_camera_has_three_functions_of_its_own_and_tells_what_happens():
    camera = in_a_page(lambda: components.camera(live.Viewers(FacesInColour()), 50))
    assert camera.get_config()["server_fns"] == ["join", "track", "leave"]
    assert camera.props["rate"] == live.MAX_RATE and camera.props["drawing"] == view.drawing_style()
    assert "none is written to a file" in " ".join(camera.props["hint"].split())
    for placeholder in re.findall(r"\$\{(\w+)\}", camera.html_template):
        assert placeholder in camera.props
    assert ".lens" in components.css()


def test_the_upload_of_clips_tells_its_limits_and_shows_the_example(root):
    examples = sorted((root / "examples").glob("*.mp4"))
    settings = Settings(max_clip_seconds=90, max_clip_size=8_000_000)
    given = in_a_page(lambda: components.clip_upload(examples, settings))
    assert "Up to 1 min 30 s" in given.html_template and "8 MB" in given.html_template
    assert "frames of up to 8.3 million pixels (4K)." in given.html_template
    assert given.html_template.count("data-example=") == given.html_template.count("<img") == 1
    assert {"what": "clip", "max_files": 1, "max_file_size": 8_000_000}.items() <= given.props.items()
    assert "Or try" not in in_a_page(lambda: components.clip_upload([], Settings())).html_template


def test_upload_sends_its_paths(tmp_path):
    """Of what it names twice there is one."""
    names = []
    for number in range(4):
        path = tmp_path / (str(number) * 64) / f"{number}.png"
        path.parent.mkdir()
        path.write_bytes(b"pixels")
        names.append(str(path))
    sent = {"paths": [names[0], *names], "left_out": 2, "moment": 7.5}
    paths, left_out, moment = components.sent(sent, tmp_path, 3)
    assert [path.name for path in paths] == ["0.png", "1.png"] and (left_out, moment) == (2, 7.5)
    assert all(path.read_bytes() == b"pixels" and str(path) not in names for path in paths)
    assert components.sent({"paths": names, "left_out": "many"}, tmp_path, 9)[1] == 0


@pytest.mark.parametrize("value", [None, [], "x", {}, {"paths": []}, {"paths": "x"}, {"paths": [None]}])
def test_anything_else_is_refused(value, tmp_path):
    with pytest.raises(images.ImageError, match="^What was sent is no "):
        components.sent(value, tmp_path, 3)


def test_the_picture_has_every_property_that_its_template_names():
    picture = in_a_page(components.picture)
    names = set(re.findall(r"\$\{(\w+)}", components.PICTURE))
    assert names == {"value"} | picture.props.keys() == set(view.picture(photos.Album(), b""))


@pytest.mark.parametrize("template", [components.UPLOAD, components.CLIP_UPLOAD, components.PICTURE])
def test_templates_hold_nothing_that_a_browser_would_run(template):
    assert "`" not in template and "<script" not in template and "{{" not in template
    assert not re.search(r"\son\w+=", template)


def test_static_files_are_all_there_and_fetch_nothing_from_elsewhere():
    names = {"about.html", "choose.js", "page.css", "picture.js", "upload.js"}
    assert {path.name for path in components.WEB.iterdir()} >= names
    for name in names:
        text = (components.WEB / name).read_text(encoding="utf-8")
        assert "http://" not in text and "https://" not in text and "@import" not in text
        assert set(text) <= set(string.printable) | set("…’°“”×")


def give(**payload):
    return components.PictureFile(render=False).preprocess(ImageData(**payload))


def test_the_api_gets_the_path_of_an_upload(uploads):
    path = uploads / ("0f" * 32) / "photo.png"
    path.parent.mkdir()
    Image.new("RGB", (4, 3)).save(path)
    assert give(path=str(path), orig_name="../../etc/passwd") == path


def test_a_picture_in_the_request_itself_becomes_an_upload(uploads):
    Image.new("RGB", (4, 3), "red").save(uploads / "red.png")
    encoded = base64.b64encode((uploads / "red.png").read_bytes()).decode()
    path = give(url=f"data:image/png;base64,{encoded}")
    assert path.is_relative_to(uploads) and images.read(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("path", ["/etc/passwd", "photo.png", "../secret.png", "a\0b"])
def test_files_of_the_server_cannot_be_read(uploads, path, monkeypatch):
    Image.new("RGB", (4, 3)).save(uploads.parent / "secret.png")
    monkeypatch.chdir(uploads.parent)
    (uploads.parent / "photo.png").write_bytes((uploads.parent / "secret.png").read_bytes())
    with pytest.raises(gr.Error, match="What was sent is no uploaded file."):
        give(path=path)


@pytest.mark.parametrize(
    "sent, number",
    [(2.5, 2.5), (-5, 0.5), (1e308, 3), (10**400, 3), (float("inf"), 3)]
    + [(none, 1) for none in (None, "large", [1], float("nan"))],
)
def test_a_slider_makes_any_number_fit(sent, number):
    slider = in_a_page(lambda: components.Slider(0.5, 3, 1))
    assert slider.preprocess(sent) == number


@pytest.mark.parametrize(
    "payload", [None, {}, {"path": None}, {"path": ""}, {"url": "http://127.0.0.1/a.png"}]
)
def test_picture_that_is_missing_is_told(uploads, payload):
    with pytest.raises(gr.Error, match="A picture is needed.") as caught:
        components.PictureFile(render=False).preprocess(None if payload is None else ImageData(**payload))
    assert caught.value.print_exception is False


def test_making_the_components_writes_no_file(root):
    assert not list((root / "fkp").glob("*.pyi"))


def served_events(function, *inputs):
    """A page with one event, and what asks it: the answer, or the error, and the session afterwards."""
    from gradio.state_holder import SessionState

    async def build():
        with components.Page() as page:
            number = gr.Slider(0, 9, label="Count")
            text = gr.Textbox(label="Told")
            gr.Button().click(function, number, text)
        return page

    page = asyncio.run(build())
    (event,) = page.fns.values()
    session = SessionState(page)
    ask = page.process_api(block_fn=event, inputs=list(inputs), state=session, request=None)
    return ask, session


def test_events_answer_as_gradio_has_it_and_keep_nothing():
    ask, session = served_events(lambda number: f"secret {number}", 7)
    assert asyncio.run(ask)["data"] == ["secret 7"]
    assert "secret" not in str(session.config_values) and "'value': 7" not in str(session.config_values)


@pytest.mark.parametrize("inputs", [[], ["x"], [[1]], [{"a": 1}]])
def test_bad_input_of_an_event_is_a_sentence(inputs):
    ask, _ = served_events(str, *inputs)
    with pytest.raises(gr.Error, match=r"What was sent is not what is needed here \(Count\).") as caught:
        asyncio.run(ask)
    assert caught.value.print_exception is False and caught.value.__suppress_context__


def test_a_failure_of_ours_is_a_sentence_for_visitors_and_printed_for_the_owner():
    def fail(number):
        raise RuntimeError(f"/secret/path {number}")

    ask, session = served_events(fail, 7)
    with pytest.raises(gr.Error) as caught:
        asyncio.run(ask)
    assert "secret" not in caught.value.message and caught.value.print_exception
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "'value': 7" not in str(session.config_values)


def test_errors_of_a_function_are_told():
    def refuse(number):
        raise gr.Error("Not seven.", print_exception=False)

    ask, _ = served_events(refuse, 7)
    with pytest.raises(gr.Error, match="Not seven."):
        asyncio.run(ask)


@pytest.mark.parametrize(
    "block, given, told",
    [
        (components.Choice(["a", "b"], label="passes"), "7", "passes is '7', where one of a, b is needed."),
        (components.Choice(["a", "b"], label="passes"), None, "passes is None, where one of a, b is needed."),
        (components.Choices(["a", "b"], label="show"), "ab", "show is 'ab', where a list is needed."),
        (components.Choices(["a", "b"], label="show"), ["a", 3], "show is 3, where one of a, b is needed."),
    ],
)
def test_choice_that_is_none_is_told_and_not_printed(block, given, told):
    with pytest.raises(gr.Error) as caught:
        block.preprocess(given)
    assert caught.value.message == told and not caught.value.print_exception
    assert components.Choice(["a", "b"]).preprocess("b") == "b"
    assert components.Choice(["auto", "1"]).preprocess(1) == "1"
    assert components.Choices(["a", "b"]).preprocess(["b", "a"]) == ["b", "a"]
