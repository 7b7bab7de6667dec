"""benchmarks/speed.py: what a figure is, and what is skipped."""

import pytest

from benchmarks import speed, stopwatch
from fkp import FaceKeypoints, hub


def test_median_of_all_calls_and_of_the_best_round():
    rounds = [{"ms": [1.0, 2.0, 9.0], "cores": 1.0}, {"ms": [5.0, 5.0], "cores": 0.5}]
    assert speed.summarise(rounds) == {"ms": 5.0, "best_ms": 2.0, "cores": 0.75, "calls": 5}


def test_warm_calls_do_not_count():
    made = []
    found = stopwatch.measure(lambda: made.append(0), 0.0, warm=3)
    assert len(made) == 4 and len(found["ms"]) == 1
    assert len(stopwatch.measure(lambda: None, 0.05)["ms"]) > 10


def test_pictures_hold_as_many_faces_as_the_tables_say():
    model = FaceKeypoints.from_pretrained()
    found = {size: len(model(picture)) for size, picture in speed.pictures().items()}
    assert found == {"640x480": 2, "1920x1080": 5}


def test_the_command_on_record_names_no_folder():
    given = ["--model", "/home/me/model", "--seconds", "2", "--write"]
    command = speed.command(speed.parse(given), given)
    assert command == "python benchmarks/speed.py --model MODEL --seconds 2 --write"


@pytest.mark.slow
def test_subjects_that_cannot_be_timed_are_skipped_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "ROUNDS", 2)
    order = speed.stored(tmp_path, hub.BUNDLED) | {"threads": 1, "batches": [2], "sizes": []}
    subjects = [({"backend": "none"}, order | {"backend": "none"}), ({"backend": "any"}, order)]
    rows, starts, skipped = speed.time_all(subjects, 0.1)
    assert [each["backend"] for each in skipped] == ["none"] and "'none'" in skipped[0]["reason"]
    assert [(each["backend"], each["task"]) for each in rows] == [("any", "keypoints 2"), ("any", "detector")]
    assert all(each["ms"] >= each["best_ms"] > 0 and each["calls"] >= 2 for each in rows)
    assert starts[0]["import_s"] > 0 and starts[0]["longest_first_call_s"] >= starts[0]["first_call_s"]
