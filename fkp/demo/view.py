"""What the page says about photos and clips, as HTML: sentences, pictures with their faces, the legend.

Whatever a visitor gave, such as a file's name, is escaped here.
"""

from __future__ import annotations

import base64
import html
from typing import Any

from fkp import draw, scheme
from fkp.demo.clip_jobs import Footage
from fkp.demo.photos import Album, Photo
from fkp.video import Progress

NOTHING = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
"""An empty picture of one pixel, for where no picture is yet."""

NO_FACE = (
    "Try one where the face is larger, brighter, upright and turned to the camera; "
    "small, dark, covered and averted faces are easily missed."
)


def data_uri(content: bytes, kind: str = "image/jpeg") -> str:
    """A picture as an address that holds it: nothing has to be stored for the browser to fetch."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# --- Sentences ------------------------------------------------------------------------------------------


def answer(album: Album, left_out: int = 0) -> str:
    """What was found in the photo that is looked at, or why nothing was.

    `left_out` photos were sent, but are more than are taken at once.
    """
    photo = album.photo
    if photo is None:
        return say("Choose a photo, and its keypoints appear here.")
    sentences = [_found(photo)]
    if left_out:
        taken = count(len(album.photos), "photo")
        verb = "was" if len(album.photos) == 1 else "were"
        sentences.append(f"Only the first {taken} {verb} taken, {left_out} were left out.")
    kind = "problem" if photo.problem or not len(photo.faces) or left_out else "fine"
    return say(" ".join(sentences), kind)


def _found(photo: Photo) -> str:
    name = html.escape(photo.name)
    if photo.problem:
        return f"<b>{name}</b> {html.escape(photo.problem)}"
    size = f"{photo.size_wh[0]}×{photo.size_wh[1]} pixels"
    if photo.size_wh != photo.shown_wh:
        width, height = photo.shown_wh
        size += f", shown at {width}×{height}; the saved picture has its full size"
    if len(photo.faces) == 0:
        return f"<b>No face found</b> in {name}. {NO_FACE}"
    if photo.more_faces:
        most = len(photo.faces)
        told = f"<b>More than {count(most, 'face')}</b> in {name}: the largest {most} are shown"
    else:
        told = f"<b>Found {count(len(photo.faces), 'face')}</b> in {name}"
    return f"{told}. <small>{size}.</small>"


def say(sentence: str, kind: str = "fine") -> str:
    """A sentence that screen readers speak when it changes."""
    return f'<p class="answer {kind}" role="status">{sentence}</p>'


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def percent(score: float) -> str:
    return f"{100 * score:.0f} %"


# --- Pictures -------------------------------------------------------------------------------------------


def picture(album: Album, overlay: bytes) -> dict[str, Any]:
    """The properties of the picture component (`components.picture`) for the photo that is looked at."""
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
    """A button over every face, large ones below small ones: the faces come by size."""
    width, height = photo.size_wh
    buttons = []
    for number, (x1, y1, x2, y2) in enumerate(photo.faces.boxes.tolist()):
        left, top = 100 * (x1 + 0.5) / width, 100 * (y1 + 0.5) / height
        wide, high = 100 * (x2 - x1) / width, 100 * (y2 - y1) / height
        buttons.append(
            f'<button type="button" data-face="{number}" aria-pressed="{_yes(number == chosen)}" '
            f'aria-label="{_face_label(photo, number)}" title="Face {number + 1}" '
            f'style="left:{left:.2f}%;top:{top:.2f}%;width:{wide:.2f}%;height:{high:.2f}%"></button>'
        )
    return "".join(buttons)


def _face_label(photo: Photo, number: int) -> str:
    return f"Face {number + 1} of {len(photo.faces)}, {percent(photo.faces.scores[number])} sure"


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
            f'aria-label="{label}" title="{label}">{inside}</button>'
        )
    told = f"<span role='status'>{done} of {of} done …</span>" if going_on else ""
    return f'<div class="strip" role="group" aria-label="Your photos">{"".join(buttons)}{told}</div>'


def face_panel(album: Album, enlarged: bytes) -> str:
    """The face that was chosen: all faces to choose from, itself enlarged, and its 68 points as a table."""
    photo = album.photo
    if photo is None or album.face is None:
        return ""
    number, faces = album.face, photo.faces
    x1, y1, x2, y2 = faces.boxes[number].tolist()
    scores = faces.keypoint_scores[number]
    choices = "".join(
        f'<button type="button" data-face="{i}" aria-pressed="{_yes(i == number)}" '
        f'aria-label="{_face_label(photo, i)}"><img src="{data_uri(face.thumbnail)}" alt=""></button>'
        for i, face in enumerate(photo.enlarged)
    )
    several = f'<div class="strip" role="group" aria-label="Faces in this photo">{choices}</div>'
    return f"""<section class="one-face" aria-label="The chosen face">
<h2>{f"Face {number + 1} of {len(faces)}" if len(faces) > 1 else "The face"}</h2>
{several if len(faces) > 1 else ""}
<div class="beside">
<figure>
<img class="enlarged" src="{data_uri(enlarged)}" alt="Face {number + 1}, upright and large, with its points">
<figcaption>{percent(faces.scores[number])} sure that this is a face.
Its points are {percent(scores.mean())} sure on average, the least sure {percent(scores.min())}.
{x2 - x1:.0f}×{y2 - y1:.0f} pixels.</figcaption>
</figure>
<div class="points" tabindex="0" role="region" aria-label="Table of the 68 points">
{_table(photo, number)}
</div>
</div>
</section>"""


def _table(photo: Photo, number: int) -> str:
    keypoints, scores = photo.faces.keypoints[number].tolist(), photo.faces.keypoint_scores[number].tolist()
    rows = []
    for name, members in scheme.GROUPS.items():
        dot = f'<i style="background:{css(draw.COLOURS[name])}"></i>'
        for point in members:
            (x, y), score = keypoints[point], scores[point]
            rows.append(
                f"<tr><th scope='row'>{point}</th><td>{dot}{name.replace('_', ' ')}</td>"
                f"<td>{x:.1f}</td><td>{y:.1f}</td><td>{percent(score)}</td></tr>"
            )
    head = "".join(f"<th scope='col'>{title}</th>" for title in ("point", "part", "x", "y", "confidence"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


# --- Clips ----------------------------------------------------------------------------------------------


def clip_answer(clip: Footage | None) -> str:
    """What there is to say about a clip before the work."""
    if clip is None:
        return say("Choose a clip, and it appears here with its keypoints.")
    if clip.problem:
        return say(html.escape(clip.problem), "problem")
    facts = [f"{clip.size_wh[0]}×{clip.size_wh[1]} pixels"]
    if clip.seconds:
        facts.append(duration(clip.seconds))
    facts.append("with sound" if clip.sound else "no sound")
    told = f"<b>{html.escape(clip.path.name)}</b> is ready: choose what to show, then press Find faces."
    return say(f"{told} <small>{', '.join(facts)}.</small>")


def waiting(ahead: int) -> str:
    """For one whose clip is not yet worked on."""
    are = "is" if ahead == 1 else "are"
    return say(f"Waiting: {count(ahead, 'clip')} of others {are} before yours.")


def going_on(progress: Progress | None) -> str:
    """How far the work is; screen readers read it when they come to it, and are not told every step."""
    if progress is None:
        return f"{say('Looking for faces …')}<progress aria-label='Progress'></progress>"
    share = "" if progress.share is None else f' value="{progress.share:.3f}" max="1"'
    facts = [f"frame {progress.frames}" + (f" of {progress.total}" if progress.total else "")]
    if progress.left is not None and progress.elapsed > 1:
        facts.append(f"about {duration(progress.left)} left")
    told = ", ".join(facts)
    return f"""{say("Looking for faces …")}<progress aria-label="Progress"{share}></progress>
<p class="far">{told[0].upper()}{told[1:]}.</p>"""


def film(address: str, clip: Footage, progress: Progress) -> str:
    """The clip with its keypoints, to be played."""
    found = f"<b>Found {count(progress.faces, 'face')}</b>" if progress.faces else "<b>No face found</b>"
    name, shape = html.escape(clip.path.name), clip.size_wh[0] / clip.size_wh[1]
    more = f" <small>{count(progress.frames, 'frame')}, {duration(progress.time)}.</small>"
    help = "" if progress.faces else f" {NO_FACE}"
    return f"""{say(f"{found} in {name}.{help}{more}", "fine" if progress.faces else "problem")}
<video class="film" controls playsinline loop preload="auto" src="{html.escape(address)}"
style="--shape:{shape:.5f}" aria-label="{name} with its keypoints"></video>"""


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
    return f'<div class="legend">{entries}</div>'


def looks() -> dict[str, Any]:
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
        "rim": "rgba({},{},{},{:.2f})".format(*draw.RIM[:3], draw.RIM[3] / 255),
    }


def css(colour: draw.Colour) -> str:
    return "rgb({},{},{})".format(*colour)
