"""The text about itself: its figures are those of the metrics, and what it promises has the real numbers."""

from __future__ import annotations

import html
import json
import re

import pytest

from fkp import hub
from fkp.demo import about, data_retention
from fkp.hub import model_card


@pytest.fixture(scope="module")
def metrics() -> dict:
    return json.loads((hub.BUNDLED / hub.METRICS).read_text())


def test_figures_are_those_of_the_weights(metrics):
    told = about.text(metrics, [], None)
    accuracy = metrics["accuracy"]
    (figures,) = [figures for name, figures in accuracy["figures"].items() if name == "KeypointNet"]
    for name, title in accuracy["sets"].items():
        assert title in told
        for boxes in ("truth", "detected"):
            assert f"{figures[name][boxes]['nme']:.2f} %" in told


def test_about_tells_what_each_network_learnt_from(metrics):
    told = html.unescape(about.text(metrics, [], None))
    assert all(each in told for each in model_card.TRAINING_DATA.values())
    one = {"training": {"faces": metrics["training"]["faces"]}}
    told = html.unescape(about.text(one, [], None))
    assert model_card.TRAINING_DATA["faces"] in told and model_card.TRAINING_DATA["keypoints"] not in told
    for none in ({}, {"training": None}, {"training": "faces"}):
        assert not any(each in about.text(none, [], None) for each in model_card.TRAINING_DATA.values())
        assert "not recorded" in about.text(none, [], None)


@pytest.mark.parametrize("none", [{}, {"accuracy": None}, {"accuracy": {"sets": {}, "figures": {}}}])
def test_weights_without_figures_are_told(none):
    told = about.text(none, [], None)
    assert "These weights came without figures." in told and "<table>" not in told


def test_plots_are_shown_where_there_are_any(root, tmp_path):
    told = about.text({}, [], root / "docs")
    assert told.count("<img") == len(about.PLOTS) == told.count("data:image/png;base64,")
    assert "<img" not in about.text({}, [], tmp_path) and "<img" not in about.text({}, [], None)
    assert all(f'alt="{title}"' in told for title in about.PLOTS.values())


def test_about_tells_what_runs_and_escapes_it():
    told = about.text({}, ["keypoints on <b>onnxruntime</b> 1.0, 2 threads"], None)
    assert "keypoints on &lt;b&gt;onnxruntime&lt;/b&gt; 1.0, 2 threads" in told


def test_about_promises_what_is_set():
    told = about.text({}, [], None)
    assert f"{data_retention.KEPT_SECONDS // 60} minutes" in told
    assert f"Every {data_retention.SWEEP_SECONDS} seconds" in told
    assert data_retention.KEPT_SECONDS % 60 == 0 and "$" not in told


def test_programs_and_links_are_told_as_they_are():
    programs, links = about.programs("https://example.org/faces", mcp=True), about.links("someone/faces")
    told = about.text({}, [], None, programs, links)
    assert programs in told and links in told and "$page/upload" in told
    assert "https://example.org/faces/gradio_api/mcp/" in told


def test_about_fetches_nothing_from_elsewhere(root):
    told = re.sub(r'"data:[^"]*"', "", about.text({}, [], root / "docs"))  # where any letters may stand
    assert "http" not in told and 'src="/' not in told


def test_about_links_to_the_weights_and_the_source():
    told = about.links("me/weights", "https://a.org/fkp?a=1&b=2")
    assert (
        'href="https://huggingface.co/me/weights"' in told and 'href="https://a.org/fkp?a=1&amp;b=2"' in told
    )
    assert "href" not in about.links(None)
