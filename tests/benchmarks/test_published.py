"""Where figures go: only between the marks of their name, and only those of the default."""

import json

import pytest

from benchmarks import published

PAGE = "before\n<!-- x: python benchmarks/x.py -->\nold\n<!-- end of x -->\nafter <!-- y -->\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text(PAGE)
    (tmp_path / "metrics.json").write_text('{"validation": {"nme": 4.0}, "x": {"old": 1}}')
    return tmp_path


def test_publishing_replaces_only_what_is_between_the_marks(folder):
    published.publish("x", {"README.md": {"x": "new"}}, folder, {"a": [1, 2.5], "d": "[\n 1 ]"})
    assert (folder / "README.md").read_text() == PAGE.replace("old", "new")
    text = (folder / "metrics.json").read_text()
    assert json.loads(text) == {"validation": {"nme": 4.0}, "x": {"a": [1, 2.5], "d": "[\n 1 ]"}}
    assert '"a": [1, 2.5]' in text, "a list of numbers stays on a line"


def test_a_page_without_marks_is_said_before_anything_is_written(folder):
    with pytest.raises(ValueError, match="README.md has no place .* x.more"):
        published.publish("x", {"README.md": {"x": "new", "x.more": "new"}}, folder, {})
    assert (folder / "README.md").read_text() == PAGE and '"old": 1' in (folder / "metrics.json").read_text()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--limit", "9", "--write"], "--limit"),
        (["--limit", "1"], "two pictures"),
        (["--model", "other", "--write"], "--model"),
    ],
)
def test_figures_of_a_part_are_not_published(given, reason, capsys):
    with pytest.raises(SystemExit) as stopped:
        published.parse(published.data_parser("about"), ["--data", "nowhere", *given])
    assert stopped.value.code == 2 and reason in capsys.readouterr().err
    given = ["--data", "d", "--model", "m", "--write"]
    assert published.parse(published.data_parser("about"), given, free=["model"]).model == "m"
