"""What the page says about photos and clips, as HTML: sentences, pictures with their faces, the legend.

Whatever a visitor gave, such as a file's name, is escaped here.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from fkp import draw, scheme
from fkp.demo.clip_jobs import ClipInfo
from fkp.demo.photos import FACE_SIDE, Album, Photo
from fkp.faces import UNSURE, Faces
from fkp.video import Progress

NOTHING = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
"""An empty picture of one pixel, for where no picture is yet."""

NO_FACE = (
    "Try one where the face is larger, brighter, upright and turned to the camera; "
    "small, dark, covered and averted faces are easily missed."
)

TURNED_TOO_FAR = 40
"""Degrees of yaw from which a face that is a guess is called turned too far."""
TOO_SMALL = 24
"""Pixels of a face's longer side below which one that is a guess is called too small."""


def data_uri(content: bytes, kind: str = "image/jpeg") -> str:
    """A picture as an address that holds it: nothing has to be stored for the browser to fetch."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# --- Sentences ------------------------------------------------------------------------------------------


def answer(album: Album, left_out: int = 0) -> str:
    """What was found in the photo that is shown, or why nothing was.

    `left_out` photos were sent, but are more than are taken at once.
    """
    photo = album.photo
    if photo is None:
        return welcome()
    sentences = [_found(photo)]
    if not photo.complete:
        sentences.append("The file breaks off: what is missing of the photo is black.")
    if left_out:
        taken = count(len(album.photos), "photo")
        verb = "was" if len(album.photos) == 1 else "were"
        sentences.append(f"Only the first {taken} {verb} taken, {left_out} were left out.")
    found = len(photo.faces) + photo.removed
    wanting = photo.problem or not photo.complete or not found or left_out
    kind = "problem" if wanting else "fine"
    return say(" ".join(sentences), kind)


def _found(photo: Photo) -> str:
    name = html.escape(photo.name)
    if photo.problem:
        return f"<b>{name}</b> {html.escape(photo.problem)}"
    size = f"{photo.size_wh[0]}×{photo.size_wh[1]} pixels"
    if photo.size_wh != photo.shown_wh:
        width, height = photo.shown_wh
        size += f", shown at {width}×{height}; {_saved_size(photo)}"
    if len(photo.faces) == 0 and photo.removed:
        its, were = ("face", "was") if photo.removed == 1 else (f"{photo.removed} faces", "were")
        return f"<b>No face is left</b> in {name}: its {its} {were} left out. <small>{size}.</small>"
    if len(photo.faces) == 0:
        return f"<b>No face found</b> in {name}. {NO_FACE}"
    if photo.more_faces:
        most = len(photo.faces)
        told = f"<b>More than {count(most, 'face')}</b> in {name}: the largest {most} are shown"
    else:
        told = f"<b>Found {count(len(photo.faces), 'face')}</b> in {name}"
    return f"{told}{_guesses(photo.faces)}. <small>{size}.</small>"


def _saved_size(photo: Photo) -> str:
    """How large a photo is saved: very large ones are made smaller before they are processed."""
    if photo.saved_wh == photo.size_wh:
        return "the saved picture has its full size"
    return "saved at {}×{}".format(*photo.saved_wh)


def _guesses(faces: Faces) -> str:
    """How many of the faces are guesses, and why; nothing if none is."""
    reasons = [guess_reason(face) for face in faces if face.guesses[0]]
    if not reasons:
        return ""
    if len(reasons) == 1:
        it = "it" if len(faces) == 1 else f"face {1 + int(faces.guesses.argmax())}"
        return f"; {it} is {reasons[0]}, its points are guesses"
    kinds = ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))
    return f"; the points of {len(reasons)} are guesses ({kinds})"


def guess_reason(face: Faces) -> str:
    """Why the points of a face (of one) that is a guess are unsure, as far as that can be told."""
    if abs(face.pose.yaw[0]) > TURNED_TOO_FAR:
        return "turned too far"
    if (face.boxes[0, 2:] - face.boxes[0, :2]).max() < TOO_SMALL:
        return "too small"
    return "covered, blurred or no face"


def welcome() -> str:
    """What is there before any photo: what can be done here, and the map of the 68 points."""
    return _welcome(
        "Choose a photo, and its keypoints appear here.",
        "Give one or many photos: choose, drop or paste them, take one, or try an example.",
        "Click a face to see it large, with its 68 points, where it looks, and how sure each point is.",
        "Save the picture, or the numbers as JSON or CSV. Live and Video do the same with a camera and with "
        "clips.",
    )


def _welcome(sentence: str, *lines: str) -> str:
    listed = "".join(f"<li>{line}</li>" for line in lines)
    return f'<div class="welcome">{say(sentence)}<ul>{listed}</ul>{point_map()}</div>'


def point_map() -> str:
    """The 68 points on the mean face, each with its number, as SVG."""
    points = np.array(scheme.MEAN_FACE, np.float64)
    points[48:, 1] += 45  # apart from the nose, and a little open
    points[[*range(55, 60), *range(65, 68)], 1] += 95
    points[8] += (0, 20)
    points = (points - points.min(axis=0)) / np.ptp(points[:, 0]) * 400 + (30, 30)
    outward = draw.outward(points) * 13
    outward[61:64], outward[65:68] = (0, 11), (0, -11)  # between the lips there is room
    lines, marks = [], []
    for name, members in scheme.GROUPS.items():
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y in points[list(members)])
        shape = "polygon" if name in scheme.CLOSED else "polyline"
        lines.append(f'<{shape} points="{path}" style="stroke:{css(draw.COLOURS[name])}"/>')
        for point in members:
            (x, y), (dx, dy) = points[point], outward[point]
            marks.append(
                f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3.5" style="fill:{css(draw.COLOURS[name])}"/>'
            )
            marks.append(f'<text x="{x + dx:.0f}" y="{y + dy:.0f}">{point}</text>')
    width, height = points.max(axis=0) + 30
    return f"""<figure class="map"><svg viewBox="0 0 {width:.0f} {height:.0f}" role="img"
aria-label="The 68 points with their numbers, from 0 at the person’s right ear along the jaw to 67 in the
lips"> {"".join(lines)}{"".join(marks)}</svg> <figcaption>The 68 points and their numbers, as a viewer sees
them.</figcaption></figure>"""


def say(sentence: str, kind: str = "fine") -> str:
    """A sentence that screen readers speak when it changes."""
    return f'<p class="answer {kind}" role="status">{sentence}</p>'


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def percent(score: float) -> str:
    return f"{100 * score:.0f} %"


# --- Pictures -------------------------------------------------------------------------------------------


def picture(album: Album, overlay: bytes) -> dict[str, Any]:
    """The properties of the picture component (`components.picture`) for the photo that is shown."""
    photo = album.photo
    if photo is None or photo.problem:
        nothing = {"value": "", "hidden": "hidden", "base": NOTHING, "overlay": NOTHING}
        return nothing | {"alt": "", "ratio": "1", "shape": "1"}
    return {
        "value": _face_buttons(photo, album.face),
        "hidden": "",
        "base": data_uri(photo.shown),
        "overlay": data_uri(overlay, "image/png") if overlay else NOTHING,
        "alt": f"Your photo, with {count(len(photo.faces), 'face')} found in it",
        "ratio": "{} / {}".format(*photo.shown_wh),
        "shape": f"{photo.shown_wh[0] / photo.shown_wh[1]:.5f}",
    }


def _face_buttons(photo: Photo, chosen: int | None) -> str:
    """A button over every face, large ones below small ones: the faces come by size. One stop for the Tab
    key: the arrow keys go on from there."""
    width, height = photo.size_wh
    buttons, remove = [], ""
    for number, (x1, y1, x2, y2) in enumerate(photo.faces.boxes.tolist()):
        left, top = 100 * (x1 + 0.5) / width, 100 * (y1 + 0.5) / height
        wide, high = 100 * (x2 - x1) / width, 100 * (y2 - y1) / height
        buttons.append(
            f'<button type="button" data-face="{number}" aria-pressed="{_yes(number == chosen)}" '
            f'tabindex="{0 if number == (chosen or 0) else -1}" '
            f'aria-label="{_face_label(photo, number)}" title="Face {number + 1}" '
            f'style="left:{left:.2f}%;top:{top:.2f}%;width:{wide:.2f}%;height:{high:.2f}%"></button>'
        )
        if number == chosen:
            corner = f"--left:{left + wide:.2f}%;--top:{top:.2f}%"
            remove = (
                f'<button type="button" class="remove" data-remove="{number}" style="{corner}" tabindex="-1" '
            )
            remove += f'aria-label="Remove face {number + 1}" title="Remove this face">×</button>'
    return "".join(buttons) + remove


def _face_label(photo: Photo, number: int) -> str:
    guess = f", {guess_reason(photo.faces[number])}" if photo.faces.guesses[number] else ""
    return f"Face {number + 1} of {len(photo.faces)}{guess}"


def _yes(value: bool) -> str:
    return "true" if value else "false"


def strip(album: Album, of: int = 0) -> str:
    """A button for every photo, where there are several.

    As long as fewer than `of` of them are done, how many is told, and the buttons cannot be pressed.
    """
    done, going_on = len(album.photos), len(album.photos) < of
    if max(done, of) < 2:
        return ""
    buttons, wait = [], "disabled " if going_on else ""
    for number, photo in enumerate(album.photos):
        name = html.escape(photo.name)
        if photo.problem:
            inside, label = '<i class="unread" aria-hidden="true">!</i>', f"{name}, which could not be read"
        else:
            faces = count(len(photo.faces), "face")
            inside = f'<img src="{data_uri(photo.thumbnail)}" alt=""><i>{len(photo.faces)}</i>'
            label = f"{name}, {faces}"
        buttons.append(
            f'<button type="button" data-photo="{number}" aria-pressed="{_yes(number == album.at)}" {wait}'
            f'tabindex="{0 if number == album.at else -1}" '
            f'aria-label="{label}" title="{label}">{inside}</button>'
        )
    told = f"<span role='status'>{done} of {of} done …</span>" if going_on else ""
    return f'<div class="strip" role="group" aria-label="Your photos">{"".join(buttons)}{told}</div>'


def face_panel(album: Album, enlarged: bytes) -> str:
    """The face that was chosen: all faces to choose from, itself enlarged, and its measures."""
    photo = album.photo
    if photo is None or album.face is None:
        return ""
    number, faces = album.face, photo.faces
    face = faces[number]
    choices = "".join(_face_choice(photo, i, i == number) for i in range(len(faces)))
    several = f'<div class="strip" role="group" aria-label="Faces in this photo">{choices}</div>'
    title = f"Face {number + 1} of {len(faces)}" if len(faces) > 1 else "The face"
    guess = f"<p class='guess'>Its points are guesses: it is {guess_reason(face)}.</p>"
    return f"""<section class="one-face" aria-label="The chosen face">
<div class="title"><h2>{title}</h2> <button type="button" class="way" data-remove="{number}" title="Leave this
face out of the picture and of the numbers">× Remove</button></div> {
        several if len(faces) > 1 else ""
    } <figure> <div class="loupe"><img class="enlarged" src="{data_uri(enlarged)}"
alt="Face {number + 1}, upright and large, with its points">
{_point_marks(photo.enlarged[number].faces)}</div> {guess if face.guesses[0] else ""}{
        _measures(face)
    } </figure> </section>"""


def points_table(album: Album, style: draw.Style) -> str:
    """The 68 points of the face that was chosen."""
    if album.photo is None or album.face is None:
        return ""
    table = _table(album.photo.faces[album.face], style)
    label = f"Table of the 68 points of face {album.face + 1}"
    return f'<div class="points" tabindex="0" role="region" aria-label="{label}">{table}</div>'


def _face_choice(photo: Photo, number: int, chosen: bool) -> str:
    """A small picture of one of the faces, to choose it by."""
    guess = ' class="guess"' if photo.faces.guesses[number] else ""
    return (
        f'<button type="button" data-face="{number}" aria-pressed="{_yes(chosen)}" '
        f'tabindex="{0 if chosen else -1}" aria-label="{_face_label(photo, number)}">'
        f'<img src="{data_uri(photo.enlarged[number].thumbnail)}" alt=""><i{guess}>{number + 1}</i></button>'
    )


def _point_marks(face: Faces) -> str:
    """Places of the points over an enlarged face, for the pointer: found again in the table."""
    marks = "".join(
        f'<i data-point="{point}" style="left:{100 * (x + 0.5) / FACE_SIDE:.2f}%;'
        f'top:{100 * (y + 0.5) / FACE_SIDE:.2f}%"></i>'
        for point, (x, y) in enumerate(face.keypoints[0].tolist())
    )
    return f'<div class="marks" aria-hidden="true">{marks}</div>'


def _measures(face: Faces) -> str:
    """What follows from the points of a face (of one), as a list of terms."""
    (x1, y1, x2, y2), scores = face.boxes[0].tolist(), face.keypoint_scores[0]
    pose, (right, left) = face.pose, face.eye_openness[0].tolist()
    facts = [("size", f"{x2 - x1:.0f}×{y2 - y1:.0f} pixels")]
    if np.isfinite(pose.yaw[0]):
        sigmas = pose.sigmas[0].tolist()
        sides = (("its left", "its right"), ("up", "down"), ("clockwise", "counter-clockwise"))
        for name, angle, sigma, (plus, minus) in zip(
            ("turned", "raised", "tilted"),
            (pose.yaw[0], pose.pitch[0], pose.roll[0]),
            sigmas,
            sides,
            strict=True,
        ):
            facts.append(
                (name, f"{abs(angle):.0f}° {plus if angle > 0 else minus} <small>± {sigma:.0f}°</small>")
            )
    facts.append(("eyes open", f"right {right:.2f}, left {left:.2f}"))
    facts.append(("mouth open", f"{face.mouth_openness[0]:.2f}"))
    sure = f"{percent(scores.mean())} on average, {percent(scores.min())} at least"
    facts.append(("confidence of points", sure))
    if np.isfinite(face.visibility).all():
        hidden = int((face.visibility[0] < draw.HIDDEN).sum())
        facts.append(("hidden", count(hidden, "point")))
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="measures">{listed}</dl>'


def _table(face: Faces, style: draw.Style) -> str:
    keypoints, scores = face.keypoints[0].tolist(), face.keypoint_scores[0].tolist()
    by_confidence = draw.by_confidence(face.keypoint_scores[0])
    seen = face.visibility[0].tolist() if np.isfinite(face.visibility).all() else None
    rows = []
    for name, members in scheme.GROUPS.items():
        for point in members:
            (x, y), score = keypoints[point], scores[point]
            dot = f'<i style="background:{css(draw.COLOURS[name])}"></i>'
            colour = f'<i style="background:{css(by_confidence[point])}"></i>' if style.confidence else ""
            visible = f"<td>{percent(seen[point])}</td>" if seen else ""
            rows.append(
                f"<tr data-point='{point}'><th scope='row'>{point}</th><td>{dot}{name.replace('_', ' ')}</td>"
                f"<td>{x:.1f}</td><td>{y:.1f}</td><td>{colour}{percent(score)}</td>{visible}</tr>"
            )
    titles = ("point", "part", "x", "y", "confidence", *(["seen"] if seen else []))
    head = "".join(f"<th scope='col'>{title}</th>" for title in titles)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


# --- Clips ----------------------------------------------------------------------------------------------


def clip_shown(told: str, film: str = "", progress: str = "") -> str:
    """What is told, the clip, and how far the work on it is. The clip comes second whatever is told, so that
    Gradio, which compares element by element, leaves it alone while it plays; page.css puts it last."""
    return f'<div class="clip">{told}{film}{progress}</div>'


def clip_answer(clip: ClipInfo | None) -> str:
    """What there is to say about a clip before the work."""
    if clip is None:
        return _welcome(
            "Choose a clip, and it appears here with its keypoints.",
            "Give one clip: choose, drop or paste it, or try the example.",
            "It comes back with the points of every face, calm, and a number that each face keeps. A line "
            "under it shows where faces were lost or unsure.",
            "Draw it otherwise without looking at it again; save the clip, or the numbers of every frame as "
            "JSON or CSV.",
        )
    if clip.problem:
        return say(html.escape(clip.problem), "problem")
    facts = [f"{clip.size_wh[0]}×{clip.size_wh[1]} pixels"]
    if clip.seconds:
        facts.append(duration(clip.seconds))
    facts.append("with sound" if clip.sound else "no sound")
    told = f"<b>{html.escape(clip.path.name)}</b> is ready: choose what to show, then press Find faces."
    return say(f"{told} <small>{', '.join(facts)}.</small>")


def preview(clip: ClipInfo, address: str, poster: bytes) -> str:
    """The clip before the work; without an address, for one that browsers cannot fetch, its first frame."""
    shape = clip.size_wh[0] / clip.size_wh[1]
    name, style = html.escape(clip.path.name), f'class="film" style="--shape:{shape:.5f}"'
    if not address:
        return f'<img {style} src="{data_uri(poster)}" alt="The first frame of {name}">'
    return (
        f'<video {style} controls playsinline muted preload="metadata" poster="{data_uri(poster)}" '
        f'src="{html.escape(address)}" aria-label="{name}, as it was given"></video>'
    )


def waiting(ahead: int) -> str:
    """For one whose clip is not yet worked on."""
    are = "is" if ahead == 1 else "are"
    return f"Waiting: {count(ahead, 'clip')} of others {are} before yours."


def going_on(progress: Progress | None) -> str:
    """How far the work is; screen readers read it when they come to it, and are not told every step."""
    if progress is None:
        return "<progress aria-label='Progress'></progress><p class='far'>&nbsp;</p>"
    share = "" if progress.share is None else f' value="{progress.share:.3f}" max="1"'
    facts = [f"frame {progress.frames}" + (f" of {progress.total}" if progress.total else "")]
    if progress.left is not None and progress.elapsed > 1:
        facts.append(f"about {duration(progress.left)} left")
    told = ", ".join(facts)
    return (
        f'<progress aria-label="Progress"{share}></progress><p class="far">{told[0].upper()}{told[1:]}.</p>'
    )


def clip_found(clip: ClipInfo, progress: Progress) -> str:
    """What was found in a clip that is done."""
    found = f"<b>Found {count(progress.faces, 'face')}</b>" if progress.faces else "<b>No face found</b>"
    more = f" <small>{count(progress.frames, 'frame')}, {duration(progress.time)}.</small>"
    help = "" if progress.faces else f" {NO_FACE}"
    told = f"{found} in {html.escape(clip.path.name)}.{help}{more}"
    return say(told, "fine" if progress.faces else "problem")


def film(address: str, clip: ClipInfo, stretches: Sequence[tuple[float, float, int]] = ()) -> str:
    """The clip with its keypoints, to be played, over a line that shows where faces were lost or unsure."""
    name, shape = html.escape(clip.path.name), clip.size_wh[0] / clip.size_wh[1]
    return f"""<video class="film" controls playsinline loop preload="auto" src="{html.escape(address)}"
style="--shape:{shape:.5f}" aria-label="{name} with its keypoints"></video>{_timeline(stretches, shape)}"""


STATES = ("no face", "points are guesses", "faces")
"""What stretches of a clip show, by `clip_jobs.NONE`, `GUESS` and `SURE`."""


def _timeline(stretches: Sequence[tuple[float, float, int]], shape: float) -> str:
    """A button for each stretch of a clip, as long as it lasts, that goes to where it begins; as wide as the
    film of that shape, which is its width over its height."""
    if not stretches or stretches[-1][1] <= 0:
        return ""
    whole = stretches[-1][1]
    buttons = []
    for index, (start, end, state) in enumerate(stretches):
        told = f"{STATES[state]} from {start:.1f} to {end:.1f} s"
        buttons.append(
            f'<button type="button" data-seek="{start:.3f}" class="s{state}" tabindex="{-1 if index else 0}" '
            f'style="flex:{max(end - start, whole / 400):.3f}" title="{told}" aria-label="{told}"></button>'
        )
    legend = "".join(f'<span><i class="s{i}"></i>{STATES[i]}</span>' for i in (2, 1, 0))
    named = f'role="group" aria-label="Where faces are" style="--shape:{shape:.5f}"'
    line = f'<div class="timeline" {named}>{"".join(buttons)}</div>'
    return f'{line}<div class="legend">{legend}</div>'


def duration(seconds: float) -> str:
    """As people say it: 0.8 s, 12 s, 3 min 20 s."""
    if seconds < 10:
        return f"{round(seconds, 1):g} s"
    minutes, rest = divmod(round(seconds), 60)
    return " ".join(([f"{minutes} min"] if minutes else []) + ([f"{rest} s"] if rest else []))


# --- Legend ---------------------------------------------------------------------------------------------


def legend(style: draw.Style) -> str:
    """What the colours mean."""
    coloured = style.points or style.numbers
    if style.confidence and coloured:
        stops = ", ".join(css(colour) for colour in draw.CONFIDENCE_COLOURS)
        scale = f'<i class="scale" style="background:linear-gradient(90deg,{stops})"></i>'
        entries = f"<span>a point’s confidence: 0 %{scale}100 %</span>"
    elif coloured or (style.contours and not style.confidence):
        entries = "".join(
            f'<span><i style="background:{css(colour)}"></i>{name.replace("_", " ")}</span>'
            for name, colour in draw.COLOURS.items()
        )
    else:
        entries = ""
    rings = "<span><i class='ring'></i>unsure or hidden</span>" if style.points else ""
    return f'<div class="legend">{entries}{rings}</div>'


def drawing_style() -> dict[str, Any]:
    """What a browser needs to draw faces as `draw.draw` does: lines, and colours as [r, g, b]."""
    groups = [
        {"members": list(members), "closed": name in scheme.CLOSED, "colour": list(draw.COLOURS[name])}
        for name, members in scheme.GROUPS.items()
    ]
    return {
        "groups": groups,
        "mesh": [list(edge) for edge in scheme.MESH],
        "confidence": [list(colour) for colour in draw.CONFIDENCE_COLOURS],
        "neutral": list(draw.NEUTRAL),
        "unsure": draw.UNSURE_POINT,
        "guess": UNSURE,
        "hidden": draw.HIDDEN,
        "faint": draw.FAINT,
        "rim": "rgba({},{},{},{:.2f})".format(*draw.RIM[:3], draw.RIM[3] / 255),
    }


def css(colour: draw.Colour) -> str:
    return "rgb({},{},{})".format(*colour)
