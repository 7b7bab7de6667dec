"""What the page says, as HTML."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fkp import draw, scheme
from fkp.demo import photos, view
from fkp.demo.clip_jobs import ClipInfo
from fkp.demo.photos import Album, Face, Photo
from fkp.video import Progress
from tests.stand_in import FacesInColour

EVIL = '<img src=x onerror=alert(1)>${alert(2)}`{{x}}".jpg'
TWO = FacesInColour((40, 30, 120, 110), (130, 20, 150, 45))(np.ones((120, 160, 3), np.uint8))


def album(name="holiday.jpg", faces=TWO, size_wh=(160, 120), **fields) -> Album:
    enlarged = tuple(Face(b"picture", b"thumbnail", face) for face in faces)
    photo = Photo(Path("/uploads/xyz", name), "", size_wh, faces, False, b"shown", b"small", enlarged)
    return Album().with_photo(replace(photo, **{"saved_wh": size_wh} | fields))


NO_FACES = TWO[:0]


class Tags(HTMLParser):
    """Every start tag of a piece of HTML with its attributes; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize(
    "album, says",
    [
        (album(complete=False), "breaks off"),
        (Album(), "Choose a photo, and its keypoints appear here."),
        (album(faces=NO_FACES), "<b>No face found</b> in holiday.jpg. Try one where"),
        (album(), "<b>Found 2 faces</b> in holiday.jpg. <small>160×120 pixels.</small>"),
        (album(faces=TWO[0]), "<b>Found 1 face</b> in holiday.jpg."),
        (album(more_faces=True), "<b>More than 2 faces</b> in holiday.jpg: the largest 2 are shown."),
        (album(problem="is empty. Please choose another."), "<b>holiday.jpg</b> is empty. Please choose"),
        (album(size_wh=(4000, 3000)), "4000×3000 pixels, shown at 1600×1200; the saved picture has its full"),
        (album(size_wh=(7000, 7000), saved_wh=(3500, 3500)), "shown at 1600×1600; saved at 3500×3500."),
        (album(faces=TWO[0]).without(0), "<b>No face is left</b> in holiday.jpg: its face was left out."),
        (album().without(0).without(0), "holiday.jpg: its 2 faces were left out."),
    ],
)
def test_answers(album, says):
    told = view.answer(album)
    assert says in told and 'role="status"' in told
    Tags(told)


def test_a_face_that_was_left_out_is_no_problem_of_the_photo():
    told = view.answer(album(faces=TWO[0]).without(0))
    assert "answer fine" in told and "Try one" not in told
    assert "answer problem" in view.answer(album(faces=NO_FACES))


def test_photos_that_were_left_out_are_told():
    told = view.answer(album(), left_out=3)
    assert "Only the first 1 photo was taken, 3 were left out." in told and "problem" in told


def test_input_of_visitors_is_escaped_everywhere():
    evil = album(EVIL).with_photo(album(EVIL, problem=EVIL).photo)
    texts = [
        view.answer(evil),
        view.answer(evil.go_to(1)),
        view.strip(evil),
        view.face_panel(evil, b""),
        view.points_table(evil, draw.Style()),
    ]
    texts += [str(value) for value in view.picture(evil, b"").values()]
    for text in texts:
        assert "<img src=x" not in text
        for _, attributes in Tags(text).tags:
            assert not any(name.startswith("on") for name in attributes)


def test_picture_is_not_shown_without_a_photo_that_was_read():
    for none in (Album(), album(problem="is empty.")):
        properties = view.picture(none, b"")
        assert properties["hidden"] == "hidden" and properties["value"] == ""
        assert properties["base"] == properties["overlay"] == view.NOTHING
    assert set(view.picture(Album(), b"")) == set(view.picture(album(), b"x"))


def test_the_picture_has_a_button_over_every_face():
    properties = view.picture(album().choose(1), b"strokes")
    assert (properties["hidden"], properties["ratio"]) == ("", "160 / 120")
    assert properties["base"] == "data:image/jpeg;base64,c2hvd24="
    assert properties["overlay"].startswith("data:image/png;base64,")
    assert "2 faces" in properties["alt"]
    first, second, cross = Tags(properties["value"]).all("button")
    assert (first["tabindex"], second["tabindex"], cross["data-remove"]) == ("-1", "0", "1")
    assert (first["aria-pressed"], second["aria-pressed"]) == ("false", "true")
    assert (first["data-face"], second["data-face"]) == ("0", "1")
    assert second["aria-label"] == "Face 2 of 2"
    left, top, width, height = map(float, re.findall(r"[\d.]+(?=%)", first["style"]))
    assert (left, top) == pytest.approx((40.5 / 160 * 100, 30.5 / 120 * 100), abs=0.01)
    assert (width, height) == pytest.approx((50, 80 / 120 * 100), abs=0.01)


def test_strip_has_a_button_for_each_of_several_photos():
    assert view.strip(Album()) == view.strip(album()) == ""
    three = album().with_photo(album(problem="is empty.").photo).with_photo(album(faces=NO_FACES).photo)
    tags = Tags(view.strip(three.go_to(1)))
    assert [b["aria-pressed"] for b in tags.all("button")] == ["false", "true", "false"]
    assert [b["aria-label"] for b in tags.all("button")] == [
        "holiday.jpg, 2 faces", "holiday.jpg, which could not be read", "holiday.jpg, 0 faces",
    ]  # fmt: skip
    assert len(tags.all("img")) == 2  # none that would look broken
    assert "disabled" not in view.strip(three)


def test_while_photos_are_worked_on_the_strip_tells_how_many_are_done():
    two = album().with_photo(album(faces=NO_FACES).photo)
    tags = Tags(told := view.strip(two, of=5))
    assert "2 of 5 done …" in told and all("disabled" in button for button in tags.all("button"))
    assert "1 of 2 done …" in view.strip(album(), of=2) and view.strip(album(), of=1) == ""


def test_the_panel_has_the_face_and_its_68_points():
    two = album().choose(1)
    told = view.face_panel(two, b"enlarged")
    tags = Tags(told)
    assert "<h2>Face 2 of 2</h2>" in told and "eyes open" in told and "sure that this" not in told
    choices = [button for button in tags.all("button") if "data-face" in button]
    assert [button["aria-pressed"] for button in choices] == ["false", "true"]
    marks = [float(each) for each in re.findall(r"<i data-point=\"\d+\" style=\"left:([-\d.]+)%", told)]
    inside = two.photo.enlarged[1].faces.keypoints[0, :, 0]
    np.testing.assert_allclose(marks, 100 * (inside + 0.5) / photos.FACE_SIDE, atol=0.01)
    rows = re.findall(
        r"<tr data-point='\d+'><th scope='row'>(\d+)</th><td><i style=\"background:(.*?)\"></i>(.*?)</td>"
        r"<td>([\d.]+)</td><td>([\d.]+)</td><td><i style=\".*?\"></i>(\d+) %</td></tr>",
        view.points_table(two, draw.Style(confidence=True)),
    )
    assert [int(row[0]) for row in rows] == list(range(68))
    keypoints, scores = two.photo.faces.keypoints[1], two.photo.faces.keypoint_scores[1]
    for point, colour, name, x, y, score in rows:
        group = scheme.group_of(int(point))
        assert (name, colour) == (group.replace("_", " "), view.css(draw.COLOURS[group]))
        np.testing.assert_allclose([float(x), float(y)], keypoints[int(point)], atol=0.051)
        assert float(score) == pytest.approx(100 * scores[int(point)], abs=0.51)
    assert all(image.get("alt") is not None for image in tags.all("img"))


def test_panel_has_no_choice_for_one_face_and_is_none_without():
    told = view.face_panel(album(faces=TWO[0]), b"enlarged")
    assert "<h2>The face</h2>" in told and "data-face" not in told and told.count("data-remove") == 1
    for none in (Album(), album(faces=NO_FACES)):
        assert view.face_panel(none, b"") == view.points_table(none, draw.Style()) == ""


@pytest.mark.parametrize(
    "style, said",
    [
        (draw.Style(), "right eyebrow"),
        (draw.Style(points=False), "right eyebrow"),
        (draw.Style(confidence=True), "a point’s confidence: 0 %"),
        (draw.Style(points=False, confidence=True), ""),
        (draw.Style(points=False, contours=False, boxes=True, mesh=True), ""),
        (draw.Style(points=False, contours=False, numbers=True, confidence=True), "confidence"),
    ],
)
def test_the_legend_explains_the_colours_in_use(style, said):
    legend = view.legend(style)
    assert said in legend and ("<i" in legend) == bool(said)
    Tags(legend)


# --- Live -----------------------------------------------------------------------------------------------


def test_a_browser_is_told_all_it_needs_to_draw():
    looks = json.loads(json.dumps(view.drawing_style()))
    assert sorted(point for group in looks["groups"] for point in group["members"]) == list(range(68))
    assert [group["closed"] for group in looks["groups"]] == [name in scheme.CLOSED for name in scheme.GROUPS]
    assert [tuple(group["colour"]) for group in looks["groups"]] == list(draw.COLOURS.values())
    assert {tuple(edge) for edge in looks["mesh"]} == set(scheme.MESH)
    assert len(looks["confidence"]) == len(draw.CONFIDENCE_COLOURS)
    assert looks["rim"].startswith("rgba(0,0,0,0.6")


# --- Clips ----------------------------------------------------------------------------------------------

CLIP = ClipInfo(Path("/tmp/x/a<b>.mp4"), "", (640, 480), 12.4, 310, True)


def test_clip_is_told_in_words():
    assert "Choose a clip" in view.clip_answer(None)
    told = view.clip_answer(CLIP)
    assert "a&lt;b&gt;.mp4" in told and "640×480 pixels, 12 s, with sound." in told and "/tmp" not in told
    assert "pixels, no sound." in view.clip_answer(ClipInfo(Path("a.mp4"), "", (64, 48)))
    told = view.clip_answer(ClipInfo(Path("a.mp4"), "<b>: is empty."))
    assert "&lt;b&gt;: is empty." in told and "problem" in told


@pytest.mark.parametrize(
    "seconds, told",
    [(0.04, "0 s"), (0.84, "0.8 s"), (6.0, "6 s"), (12.4, "12 s"), (60, "1 min"), (200, "3 min 20 s")],
)
def test_durations_are_told_as_people_say_them(seconds, told):
    assert view.duration(seconds) == told


def test_waiting_tells_how_many_are_before():
    assert "1 clip of others is before yours" in view.waiting(1)
    assert "3 clips of others are before yours" in view.waiting(3)


def test_progress_is_told_with_the_time_left():
    assert "<progress aria-label='Progress'></progress>" in view.going_on(None)
    told = view.going_on(Progress(75, 300, 3.0, 12.0, 10.0, 1, 5))
    assert 'value="0.250" max="1"' in told and "Frame 75 of 300, about 30 s left." in told
    assert "left" not in view.going_on(Progress(2, 300, 0.1, 12.0, 0.2, 1, 1))  # too early to say
    told = view.going_on(Progress(75, None, 3.0, None, 10.0, 1, 5))
    assert "value=" not in told and "Frame 75." in told


def test_the_film_is_shown_with_what_was_found():
    told = view.clip_found(CLIP, Progress(310, 310, 12.4, 12.4, 20.0, 2, 31))
    assert "Found 2 faces</b> in a&lt;b&gt;.mp4." in told and "310 frames, 12 s." in told and "fine" in told
    told = view.clip_found(CLIP, Progress(1, 1, 0.0, None, 0.1, 0, 1))
    assert "No face found" in told and view.NO_FACE in told and "problem" in told and "1 frame, 0 s." in told
    film = view.film("gradio_api/file=/tmp/a%22b.mp4", CLIP)
    assert 'src="gradio_api/file=/tmp/a%22b.mp4"' in film and "controls" in film and "data-seek" not in film


def test_the_film_stays_where_it_is_whatever_is_told_of_it():
    """Gradio compares element by element: in another place it would be another film, from its beginning."""
    film = view.film("x", CLIP, [(0.0, 12.0, 2)])
    for progress in (None, Progress(75, 300, 3.0, 12.0, 10.0, 1, 5)):
        busy = view.clip_shown(view.say("Drawing …"), film, view.going_on(progress))
        assert [tag for tag in re.findall(r"<(\w+)", busy)][:3] == ["div", "p", "video"]
        assert busy.startswith(view.clip_shown(view.say("Drawing …"), film).removesuffix("</div>"))


def test_a_line_shows_where_faces_were_lost_or_unsure():
    stretches = [(0.0, 4.0, 2), (4.0, 5.0, 0), (5.0, 12.0, 1)]
    told = view.film("x", CLIP, stretches)
    buttons = Tags(told).all("button")
    assert [(b["data-seek"], b["class"]) for b in buttons] == [
        ("0.000", "s2"),
        ("4.000", "s0"),
        ("5.000", "s1"),
    ]
    assert buttons[1]["aria-label"] == "no face from 4.0 to 5.0 s"
    assert [b["tabindex"] for b in buttons] == ["0", "-1", "-1"]


def test_the_map_has_all_points_and_their_numbers():
    told = view.point_map()
    assert [int(n) for n in re.findall(r"<text[^>]*>(\d+)</text>", told)] == [
        point for members in scheme.GROUPS.values() for point in members
    ]
    assert told.count("<circle") == 68
    dots = np.array(re.findall(r'<circle cx="(\d+)" cy="(\d+)"', told), float)
    numbers = np.array(re.findall(r'<text x="(\d+)" y="(\d+)"', told), float)
    for one, others in ((numbers, numbers), (numbers, dots)):
        apart = np.linalg.norm(one[:, None] - others, axis=2) + 99 * np.eye(68)
        assert apart.min() > 9, "a number stands on another, or on another's point"
