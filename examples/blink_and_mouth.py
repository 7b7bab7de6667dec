"""How far the eyes and the mouth of every face are open, over a video; and how often it blinked.

    python examples/blink_and_mouth.py clip.mp4 openness.csv

The CSV has a row for each face and frame: frame, time, face, eyes, mouth. `eyes` is the mean of both eyes of
`faces.eye_openness`, `mouth` is `faces.mouth_openness`: heights as shares of widths, 0 is closed.
"""

import argparse
import csv
import sys
from collections import defaultdict

import numpy as np

from fkp import FaceKeypoints
from fkp.tracking import Tracker
from fkp.video.clip_io import Clip, ClipError, Frame

CLOSED = 0.7
"""Eyes are shut below this share of what is usual for the face."""


def blinks(eyes: list[float], times: list[float], longest: float = 0.5) -> int:
    """How often eyes shut and opened again within `longest` seconds; times of their openness in seconds."""
    count, since = 0, None
    for time, is_shut in zip(times, np.array(eyes) < CLOSED * np.median(eyes), strict=True):
        if is_shut and since is None:
            since = time
        elif not is_shut and since is not None:
            count += time - since <= longest
            since = None
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description="How far eyes and mouths are open, over a video.")
    parser.add_argument("clip", help="a video file")
    parser.add_argument("out", help="the CSV to write")
    args = parser.parse_args()

    # Unsmoothed: a blink is shorter than what smoothing takes for a tremble.
    tracker = Tracker(FaceKeypoints.from_pretrained(), smoothing=False)
    seen = defaultdict(list)
    try:
        with Clip(args.clip) as clip, open(args.out, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["frame", "time", "face", "eyes", "mouth"])
            for part in clip:
                if not isinstance(part, Frame):  # sound
                    continue
                faces = tracker(part.image, part.time)
                opened = zip(faces.ids, faces.eye_openness.mean(axis=1), faces.mouth_openness, strict=True)
                for number, eyes, mouth in opened:
                    writer.writerow([part.number, f"{part.time:.3f}", number, f"{eyes:.3f}", f"{mouth:.3f}"])
                    seen[int(number)].append((part.time, eyes))
    except (ClipError, OSError) as error:
        sys.exit(str(error))
    for number, rows in seen.items():
        times, opened = map(list, zip(*rows, strict=True))
        print(f"face {number}, {times[-1] - times[0]:.1f} s, blinks: {blinks(opened, times)}")


if __name__ == "__main__":
    main()
