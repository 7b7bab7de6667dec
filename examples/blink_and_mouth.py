"""How far the eyes and the mouth of every face are open, over a video; and how often it blinked.

    python examples/blink_and_mouth.py clip.mp4 openness.csv

The CSV has a row for each face and frame: frame, time, face, eyes, mouth. `eyes` is the eye aspect ratio of
Soukupová and Čech (Real-Time Eye Blink Detection using Facial Landmarks, 2016), the mean of both eyes;
`mouth` is the same of the inner lips. Both are heights as shares of widths: 0 is closed.
"""

import argparse
import csv
import sys
from collections import defaultdict

import numpy as np

from fkp import FaceKeypoints
from fkp.tracking import Tracker
from fkp.video.clip_io import Clip, ClipError, Frame

# Corners, then pairs of an upper and a lower point.
RIGHT_EYE = ((36, 39), (37, 41), (38, 40))
LEFT_EYE = ((42, 45), (43, 47), (44, 46))
MOUTH = ((60, 64), (61, 67), (62, 66), (63, 65))

CLOSED = 0.7
"""Eyes are shut below this share of what is usual for the face."""


def openness(keypoints: np.ndarray, part: tuple[tuple[int, int], ...]) -> float:
    """Mean height of a part of a face with keypoints (68,2), as a share of its width."""
    width, *heights = (np.linalg.norm(keypoints[a] - keypoints[b]) for a, b in part)
    return float(np.mean(heights) / max(width, 1e-6))


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
                for number, keypoints in zip(faces.ids.tolist(), faces.keypoints, strict=True):
                    eyes = (openness(keypoints, RIGHT_EYE) + openness(keypoints, LEFT_EYE)) / 2
                    mouth = openness(keypoints, MOUTH)
                    writer.writerow([part.number, f"{part.time:.3f}", number, f"{eyes:.3f}", f"{mouth:.3f}"])
                    seen[number].append((part.time, eyes))
    except (ClipError, OSError) as error:
        sys.exit(str(error))
    for number, rows in seen.items():
        times, opened = map(list, zip(*rows, strict=True))
        print(f"face {number}, {times[-1] - times[0]:.1f} s, blinks: {blinks(opened, times)}")


if __name__ == "__main__":
    main()
