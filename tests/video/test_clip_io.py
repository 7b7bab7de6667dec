"""Reading and writing clips that the tests make: times, sizes, turns, sound, damage, limits."""

import os
import re
import weakref
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fkp.video import clip_io
from fkp.video.clip_io import Clip, ClipError, Film, Frame, Limits
from tests import filmed

UNEVEN = [0.0, 0.02, 0.1, 0.11, 0.3, 0.34, 0.5, 0.51, 0.9, 1.0]


def frames_of(path: Path, **options: object) -> list[Frame]:
    with Clip(path, **options) as clip:  # type: ignore[arg-type]
        return [part for part in clip if isinstance(part, Frame)]


def copied(source: Path, target: Path) -> Path:
    """A clip written anew as it is."""
    with Clip(source) as clip:
        film = Film(target, clip_io.KINDS[target.suffix], clip)
        for part in clip:
            film.add(part, part.image) if isinstance(part, Frame) else film.add_sound(part)
        film.close()
    return target


def corners(image: np.ndarray) -> list[list[int]]:
    """The colours of the four quarters, as `filmed.CORNERS`."""
    height, width = image.shape[:2]
    points = [(y, x) for y in (height // 5, height - height // 5) for x in (width // 5, width - width // 5)]
    return [image[y, x].tolist() for y, x in points]


def close(image: np.ndarray, colours: object, within: int = 12) -> bool:
    return bool(np.abs(np.array(corners(image)) - np.array(colours)).max() <= within)


# --- Reading ------------------------------------------------------------------------------------------------


def test_clip_says_size_length_and_sound(tmp_path: Path) -> None:
    path = filmed.film(tmp_path / "a.mp4", 10, sound="aac")
    with Clip(path) as clip:
        assert (clip.size_wh, clip.frames, clip.rate) == ((64, 48), 10, 25)
        assert clip.seconds == pytest.approx(0.4, abs=0.05)
        assert clip.sound is not None and clip.sound.codec_context.name == "aac"
    with Clip(filmed.film(tmp_path / "a.webm", 10, codec="libvpx-vp9")) as clip:
        assert (clip.sound, clip.frames) == (None, 10)


def test_frames_come_in_order_with_times_and_colours(tmp_path: Path) -> None:
    frames = frames_of(filmed.film(tmp_path / "a.mp4", 10))
    assert [frame.number for frame in frames] == list(range(10))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(10) / 25, atol=1e-4)
    for frame in frames:
        assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8
        assert close(frame.image, filmed.CORNERS)
    assert [round((int(frame.image[24, 32, 0]) - 10) / 24) for frame in frames] == list(range(10))


def test_frames_are_not_kept(tmp_path: Path) -> None:
    seen: list[weakref.ref] = []
    with Clip(filmed.film(tmp_path / "a.mp4", 60)) as clip:
        for part in clip:
            if isinstance(part, Frame):
                seen.append(weakref.ref(part.image))
                assert sum(image() is not None for image in seen) <= 2
    assert len(seen) == 60


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mov", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4"),
     ("a.ts", "libx264"), ("a.flv", "libx264"), ("a.mpg", "mpeg2video"), ("a.gif", "gif")],
)  # fmt: skip
def test_kinds_of_files(tmp_path: Path, name: str, codec: str) -> None:
    pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
    frames = frames_of(filmed.film(tmp_path / name, 6, codec=codec, pix_fmt=pix_fmt))
    assert len(frames) == 6
    assert frames[0].time == 0  # a transport stream's own clock starts elsewhere
    np.testing.assert_allclose(np.diff([f.time for f in frames]), 1 / 25, atol=0.011)
    assert close(frames[-1].image, filmed.CORNERS, within=70 if codec == "gif" else 14)


def test_the_ending_of_the_name_does_not_matter(tmp_path: Path) -> None:
    path = filmed.film(tmp_path / "a.mp4", 2)
    assert len(frames_of(path.rename(tmp_path / "upload"))) == 2


def test_uneven_times(tmp_path: Path) -> None:
    frames = frames_of(filmed.film(tmp_path / "a.mp4", 10, times=UNEVEN))
    np.testing.assert_allclose([frame.time for frame in frames], UNEVEN, atol=1e-4)


@pytest.mark.parametrize("pix_fmt", ("yuv444p", "yuv422p10le", "yuvj420p", "nv12"))
def test_pixel_formats(tmp_path: Path, pix_fmt: str) -> None:
    assert close(frames_of(filmed.film(tmp_path / "a.mp4", 2, pix_fmt=pix_fmt))[0].image, filmed.CORNERS)


@pytest.mark.parametrize("clockwise", (90, 180, 270))
def test_turned_clips_come_out_upright(tmp_path: Path, clockwise: int) -> None:
    path = filmed.turned(filmed.film(tmp_path / "a.mp4", 3), clockwise)
    with Clip(path) as clip:
        images = [part.image for part in clip if isinstance(part, Frame)]
        sideways = clockwise in (90, 270)
        assert clip.size_wh == ((48, 64) if sideways else (64, 48))
    # On the wheel of corners, top left, top right, bottom right, bottom left, a quarter is one place.
    wheel = [filmed.CORNERS[i] for i in (0, 1, 3, 2)]
    shifted = [wheel[(i - clockwise // 90) % 4] for i in range(4)]
    assert close(images[0], [shifted[0], shifted[1], shifted[3], shifted[2]])


def test_mirrored_clips(tmp_path: Path) -> None:
    image = frames_of(filmed.turned(filmed.film(tmp_path / "a.mp4", 1), 180, mirrored=True))[0].image
    assert close(image, [filmed.CORNERS[i] for i in (2, 3, 0, 1)])


def test_upright_by_hand() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert clip_io.upright(image, None) is image
    for matrix, expected in (
        (((1, 0), (0, 1)), [[0, 1, 2], [3, 4, 5]]),
        (((0, 1), (-1, 0)), [[3, 0], [4, 1], [5, 2]]),  # a quarter clockwise
        (((-1, 0), (0, -1)), [[5, 4, 3], [2, 1, 0]]),
        (((0, -1), (1, 0)), [[2, 5], [1, 4], [0, 3]]),
        (((-1, 0), (0, 1)), [[2, 1, 0], [5, 4, 3]]),  # a mirror
    ):
        turn = np.eye(3)
        turn[:2, :2] = matrix
        assert clip_io.upright(image, turn)[..., 0].tolist() == expected


def test_fitted_by_hand() -> None:
    image = np.full((10, 20, 3), 200, np.uint8)
    assert (clip_io.fitted(image, (20, 10)) == 200).all()
    wide = clip_io.fitted(image, (40, 40))
    assert wide.shape == (40, 40, 3)
    assert (wide[10:30] == 200).all() and not wide[:10].any() and not wide[30:].any()


def test_a_clip_whose_frames_change_size(tmp_path: Path) -> None:
    """As two recordings put together, or a telephone that is turned in a call."""
    small = filmed.film(tmp_path / "small.ts", 3).read_bytes()
    large = filmed.film(tmp_path / "large.ts", 3, size_wh=(128, 48), times=[0.2, 0.3, 0.4]).read_bytes()
    both = tmp_path / "both.ts"
    both.write_bytes(small + large)
    frames = frames_of(both)
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 6
    assert not frames[-1].image[:8].any() and close(frames[-1].image[12:36], filmed.CORNERS)


# --- What is none -------------------------------------------------------------------------------------------


def refused(path: Path, **limits: float) -> str:
    """The sentence, without the name it begins with."""
    with pytest.raises(ClipError) as caught:
        frames_of(path, limits=Limits(**limits))  # type: ignore[arg-type]
    name, sentence = str(caught.value).split(": ", 1)
    assert name == str(path) and "\n" not in sentence
    return sentence


def test_file_that_is_no_clip(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.mp4")
    assert "folder" in refused(tmp_path)
    for content, reason in (
        (b"", "empty"),
        (b"a text, named as a video\n" * 50, "no video"),
        (os.urandom(5000), "no video"),
    ):
        (tmp_path / "a.mp4").write_bytes(content)
        assert reason in refused(tmp_path / "a.mp4")


def test_lists_of_other_files_are_not_followed(tmp_path: Path) -> None:
    """A clip of a stranger may not make us read our own files, or addresses within our network."""
    secret = filmed.film(tmp_path / "secret.mp4", 2)
    for text in (
        f"ffconcat version 1.0\nfile '{secret}'\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ):
        for name in ("a.mp4", "a.m3u8", "a.ffconcat", "a.sdp"):
            (tmp_path / name).write_text(text)
            assert "no video" in refused(tmp_path / name)
    assert "there is no such file" in refused(Path("http://127.0.0.1:9/a.mp4"))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), "fltp", "mono")
        frame.rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert "no video" in refused(path)


@pytest.mark.parametrize("name", ("a.mp4", "a.mkv", "a.webm", "a.avi"))
@pytest.mark.slow
def test_a_clip_that_breaks_off(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 48, 64, 3), np.uint8)
    codec = "libvpx-vp9" if name == "a.webm" else "libx264"
    path = filmed.film(tmp_path / name, list(noise), codec=codec, front=name == "a.mp4")
    data = path.read_bytes()
    assert len(frames_of(path)) == 100
    path.write_bytes(data[: len(data) // 2])
    assert "breaks off after" in refused(path) and refused(path).endswith("of 4.0 s")
    path.write_bytes(data[:200])
    assert re.search("no video|no frame", refused(path))


def test_a_clip_whose_table_of_contents_is_missing(tmp_path: Path) -> None:
    path = filmed.film(tmp_path / "a.mp4", 20)
    path.write_bytes(path.read_bytes()[:-200])
    assert "damaged or incomplete" in refused(path)


def test_a_damaged_frame_is_left_out(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    path = filmed.film(tmp_path / "a.ts", list(noise))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 1000] = bytes(1000)
    path.write_bytes(data)
    assert 20 <= len(frames_of(path)) <= 40


def test_limits(tmp_path: Path) -> None:
    path = filmed.film(tmp_path / "a.mp4", 100)
    size = path.stat().st_size
    assert len(frames_of(path, limits=Limits(seconds=4, pixels=64 * 48, bytes=size))) == 100
    for limit, numbers in (
        ({"seconds": 3}, ("4.0 s", "3 s")),
        ({"pixels": 64 * 48 - 1}, ("64×48", "3071 pixels")),
        ({"bytes": 1000}, ("0.001 MB",)),
    ):
        told = refused(path, **limit)
        assert all(number in told for number in numbers)
    assert isinstance(ClipError("a"), ValueError)


def test_the_limit_of_length_where_the_file_does_not_say_it(tmp_path: Path) -> None:
    """A recording of a browser does not know its length when its head is written."""
    path = filmed.film(tmp_path / "a.webm", 100, codec="libvpx-vp9")
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89")  # Matroska's Duration: it becomes nothing (EBML Void)
    data[at : at + 3] = b"\xec\x40\x08"
    path.write_bytes(data)
    with Clip(path) as clip:
        assert (clip.seconds, clip.frames) == (None, None)
        assert len([part for part in clip if isinstance(part, Frame)]) == 100
    assert "limit of 2 s" in refused(path, seconds=2)


# --- Writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", clip_io.KINDS)
@pytest.mark.slow
def test_a_film_has_the_frames_and_the_sound_of_its_clip(tmp_path: Path, ending: str) -> None:
    source = filmed.film(tmp_path / "a.mp4", 10, times=UNEVEN, sound="aac", seconds=1.1)
    target = copied(source, tmp_path / f"b{ending}")
    images, times = filmed.watched(target)
    assert len(images) == 10
    # Matroska cannot begin before 0, so all of it is moved by the 21 ms that the sound's encoder needs.
    np.testing.assert_allclose(np.array(times) - times[0], UNEVEN, atol=6e-4)
    assert times[0] < 0.03
    assert all(close(image, filmed.CORNERS, within=16) for image in images)
    codec, seconds, pitch = filmed.listened(target)
    assert codec == ("opus" if ending == ".webm" else "aac")
    assert seconds == pytest.approx(1.1, abs=0.06)
    assert pitch == pytest.approx(filmed.TONE, abs=2)
    with av.open(str(target)) as container:
        video = container.streams.video[0]
        assert video.codec_context.name == ("vp9" if ending == ".webm" else "h264")
        assert video.codec_context.pix_fmt == "yuv420p" and video.codec_context.colorspace == 1


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".mkv"])
def test_a_film_lasts_as_long_as_its_clip(tmp_path: Path, ending: str) -> None:
    """With its last frame, and after a pause."""
    grey = [Image.new("L", (64, 48), 20 * i) for i in range(1, 7)]
    grey[0].save(tmp_path / "a.gif", save_all=True, append_images=grey[1:],
                 duration=[100, 100, 2000, 100, 100, 4000])  # fmt: skip
    paused = filmed.film(tmp_path / "b.mkv", 32, times=[*(i / 25 for i in range(30)), 6.0, 6.04])
    for source, seconds, last in ((tmp_path / "a.gif", 6.4, 2.4), (paused, 6.08, 6.04)):
        target = copied(source, tmp_path / f"film{ending}")
        with av.open(str(target)) as container:
            assert container.duration / av.time_base == pytest.approx(seconds, abs=0.05)
            decoded = [packet.dts for packet in container.demux(video=0) if packet.dts is not None]
            until = decoded[-1] - decoded[0]
            if ending == ".mp4":  # whose length is the sum of the times from one to the next
                assert float(until * container.streams.video[0].time_base) == pytest.approx(last, abs=0.05)
        assert filmed.watched(target)[1][-1] == pytest.approx(last, abs=0.05)


def test_sound_is_taken_over_as_it_is(tmp_path: Path) -> None:
    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    source = filmed.film(tmp_path / "a.mp4", 10, sound="aac")
    assert packets(copied(source, tmp_path / "b.mp4")) == packets(source)
    opus = filmed.film(tmp_path / "a.webm", 10, codec="libvpx-vp9", sound="libopus")
    assert packets(copied(opus, tmp_path / "b.webm")) == packets(opus)


@pytest.mark.parametrize(
    ("name", "codec", "sound"), [("a.avi", "mpeg4", "pcm_s16le"), ("a.ts", "libx264", "aac")]
)
@pytest.mark.slow
def test_sound_of_another_codec_is_encoded_anew(tmp_path: Path, name: str, codec: str, sound: str) -> None:
    source = filmed.film(tmp_path / name, 25, codec=codec, sound=sound)
    found = filmed.listened(copied(source, tmp_path / "b.mp4"))
    assert found[0] == "aac"
    assert found[1:] == (pytest.approx(1.0, abs=0.06), pytest.approx(filmed.TONE, abs=2))


@pytest.mark.parametrize("ending", (".mp4", ".webm"))
def test_odd_sizes_get_another_row_and_column(tmp_path: Path, ending: str) -> None:
    source = filmed.film(tmp_path / "a.mkv", 3, size_wh=(65, 47), pix_fmt="yuv444p")
    with Clip(source) as clip:
        assert clip.size_wh == (65, 47)
    images, _ = filmed.watched(copied(source, tmp_path / f"b{ending}"))
    assert images[0].shape == (48, 66, 3)
    assert np.abs(images[0][:, 65].astype(int) - images[0][:, 64]).max() < 30
    assert close(images[0], filmed.CORNERS, within=16)


def test_a_film_of_a_turned_clip_is_upright_itself(tmp_path: Path) -> None:
    source = filmed.turned(filmed.film(tmp_path / "a.mp4", 3), 90)
    target = copied(source, tmp_path / "b.mp4")
    images, _ = filmed.watched(target)
    assert images[0].shape == (64, 48, 3)
    assert close(images[0], [filmed.CORNERS[i] for i in (2, 0, 3, 1)], within=16)
    np.testing.assert_array_equal(frames_of(target)[0].image, images[0])  # no turn is asked for any more


def test_film_carries_nothing_else_along(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata["location"] = "+52.5200+013.4050/"
        container.metadata["com.apple.quicktime.model"] = "a telephone"
        container.metadata["comment"] = "private"
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(filmed.quarters(0, (64, 48)), "rgb24")))
        container.mux(stream.encode(None))
    assert b"+52.5200" in source.read_bytes()
    written = copied(source, tmp_path / "b.mp4").read_bytes()
    assert not any(words in written for words in (b"+52.5200", b"telephone", b"private"))


def test_a_film_that_cannot_be_written(tmp_path: Path) -> None:
    with Clip(filmed.film(tmp_path / "a.mp4", 2)) as clip:
        film = Film(tmp_path / "no folder" / "b.mp4", "mp4", clip, name="b.mp4")
        with pytest.raises(ClipError, match=r"^b\.mp4: cannot be written \(No such file or directory\)$"):
            for part in clip:
                if isinstance(part, Frame):
                    film.add(part, part.image)
            film.close()
        film.abandon()


def test_film_is_vp9_without_h264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"libvpx-vp9", "aac"})
    target = copied(filmed.film(tmp_path / "a.mp4", 3), tmp_path / "b.mp4")
    with av.open(str(target)) as container:
        assert container.streams.video[0].codec_context.name == "vp9"
    with Clip(target) as clip, pytest.raises(ClipError, match="has no encoder for a mov file"):
        Film(tmp_path / "b.mov", "mov", clip)


# --- Clips that do not begin at 0, and limits ---------------------------------------------------------------


@pytest.mark.parametrize("begins", [2, 120])
@pytest.mark.parametrize(
    "name, codec, kind",
    [
        ("a.mp4", "libx264", None), ("a.mov", "libx264", None), ("a.mkv", "libx264", None),
        ("a.webm", "libvpx-vp9", None), ("a.ts", "libx264", "mpegts"), ("a.flv", "flv1", None),
        ("a.wmv", "wmv2", "asf"), ("a.3gp", "h263", None),
    ],
)  # fmt: skip
def test_a_clip_that_begins_later_is_as_long_as_it_is(
    tmp_path: Path, begins: int, name: str, codec: str, kind: str | None
) -> None:
    """A piece cut out of a longer clip keeps its times (as in issue 1170 of mkvtoolnix)."""
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    times = [begins + i / filmed.RATE for i in range(50)]
    path = filmed.film(tmp_path / name, 50, times=times, codec=codec, kind=kind, size_wh=(176, 144))
    with Clip(path, Limits(seconds=4)) as clip:
        frames = [part for part in clip if isinstance(part, Frame)]
        assert clip.seconds == pytest.approx(2, abs=0.1)
    assert [frame.time for frame in frames] == pytest.approx([i / filmed.RATE for i in range(50)], abs=0.02)
    with pytest.raises(ClipError, match=name):
        Clip(path, Limits(seconds=1)).close()


def test_video_that_begins_after_its_sound(tmp_path: Path) -> None:
    times = [1 + i / filmed.RATE for i in range(50)]
    path = filmed.film(tmp_path / "a.mkv", 50, times=times, sound="aac", seconds=3)
    with Clip(path) as clip:
        first, *_ = [part.time for part in clip if isinstance(part, Frame)]
    assert first == pytest.approx(1, abs=0.03)


def test_an_edit_list_that_leaves_out_the_beginning(tmp_path: Path) -> None:
    path = filmed.film(tmp_path / "a.mp4", 50)
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 12
    seconds, media_time = (int.from_bytes(content[at + k : at + k + 4], "big") for k in (0, 4))
    timescale = int.from_bytes(content[(mdhd := content.index(b"mdhd")) + 16 : mdhd + 20], "big")
    content[at : at + 4] = (seconds // 2).to_bytes(4, "big")
    content[at + 4 : at + 8] = (media_time + timescale).to_bytes(4, "big")
    path.write_bytes(content)
    with Clip(path) as clip:
        times = [part.time for part in clip if isinstance(part, Frame)]
    assert len(times) == pytest.approx(25, abs=2) and times[0] == pytest.approx(0, abs=0.05)


def test_frames_beyond_the_limit_are_told_before_the_work_or_when_they_come(tmp_path: Path) -> None:
    times = [i / 500 for i in range(100)]
    stated = filmed.film(tmp_path / "a.mp4", 100, times=times)
    with pytest.raises(ClipError, match=r"a\.mp4.* 100 frames"):
        Clip(stated, Limits(frames=99))
    with Clip(stated, Limits(frames=100)) as clip:
        assert sum(isinstance(part, Frame) for part in clip) == 100
    untold = filmed.film(tmp_path / "a.mkv", 100, times=[i / 100 for i in range(100)])
    with Clip(untold, Limits(frames=90)) as clip, pytest.raises(ClipError, match=r"a\.mkv.* 90 frames"):
        list(clip)
