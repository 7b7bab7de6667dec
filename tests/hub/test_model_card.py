"""The model card: valid for the Hub, and without a figure that was not measured."""

import io
import json
import re
import tomllib
from pathlib import Path

import huggingface_hub
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from docs import points_figure
from fkp import Faces, hub, scheme
from fkp.hub import model_card
from tests.loopback_hub import Client, LoopbackHub
from tests.stand_in import FacesInColour


@pytest.fixture(scope="module")
def bundled() -> model_card.Weights:
    config, metrics = (json.loads((hub.BUNDLED / name).read_text()) for name in (hub.CONFIG, hub.METRICS))
    parameters = {"keypoint network": 980_000, "face detector": 150_000}
    sizes = {hub.WEIGHTS: 2_310_000, "onnx/keypoints.onnx": 1_000_000}
    return model_card.Weights(config, metrics, parameters, sizes)


@pytest.fixture(scope="module")
def bare(bundled: model_card.Weights) -> model_card.Weights:
    """The same without a figure."""
    return bundled._replace(metrics={})


def header(text: str) -> huggingface_hub.ModelCardData:
    return huggingface_hub.ModelCard(text).data


def test_the_header_is_what_the_client_reads(bundled: model_card.Weights) -> None:
    data = header(model_card.text(bundled, "someone/faces"))
    assert (data.library_name, data.license, data.pipeline_tag) == ("fkp", "mit", "keypoint-detection")
    assert data.model_name == "faces" and data.eval_results
    accuracy = bundled.metrics["accuracy"]
    own = next(iter(accuracy["figures"].values()))
    seen = set()
    for result in data.eval_results:
        assert result.task_type == "keypoint-detection"
        assert result.dataset_name == accuracy["sets"][result.dataset_type]
        figures = own[result.dataset_type][result.dataset_config]
        assert result.metric_value == figures[result.metric_type]
        assert result.dataset_args == {"faces": figures["n"]}
        seen.add((result.dataset_type, result.metric_type))
    assert seen == {(name, metric) for name in accuracy["sets"] for metric in ("nme", "fr8")}


def test_the_hub_accepts_the_header(
    bundled: model_card.Weights, bare: model_card.Weights, tmp_path: Path
) -> None:
    texts = [model_card.text(weights, "someone/faces") for weights in (bundled, bare)]
    code = f"""
import huggingface_hub
for text in {texts!r}:
    huggingface_hub.ModelCard(text).validate()
try:
    huggingface_hub.ModelCard({texts[1].replace("keypoint-detection", "guessing")!r}).validate()
except ValueError as error:
    print("refused")
"""
    with LoopbackHub() as server, Client(server.url, tmp_path) as client:
        assert client(code) == ["refused"]
        assert server.requests == ["POST /api/validate-yaml"] * 3


def test_figures_are_all_in_the_metrics(bundled: model_card.Weights) -> None:
    """Numbers with a fraction: rounded, each must be one of those measured, of the config, or a size."""
    body = model_card.text(bundled, "someone/faces").split("\n---\n", 1)[1]
    body = body.replace(bundled.config["fkp_version"], "")
    body = re.sub(r"`[^`]*`|^.*AMD.*$|doi.*", "", body, flags=re.MULTILINE)  # commands and versions
    known: set[str] = {"0.5", "0.95", "0.98", "0.15", "2.31"}  # two of words, three of sizes

    def collect(value: object) -> None:
        if isinstance(value, dict):
            list(map(collect, value.values()))
        elif isinstance(value, list):
            list(map(collect, value))
        elif isinstance(value, int | float):
            known.update({f"{value:.2f}", f"{value:g}"})
        elif isinstance(value, str):
            known.update(re.findall(r"\d+\.\d+", value))

    collect(bundled.metrics)
    collect(bundled.config)
    numbers = re.findall(r"\d+\.\d+", body)
    assert len(numbers) > 100 and [number for number in numbers if number not in known] == []


def test_card_without_figures_says_so(bare: model_card.Weights) -> None:
    text = model_card.text(bare, "someone/faces")
    for said in (
        "These weights came without figures: how good they are was not measured.",
        "How size, pose and blur change what these weights do was not measured.",
        "How fast these weights run was not measured.",
        "What the keypoint network and the face detector learnt from is not recorded with these weights.",
    ):
        assert said in text
    assert "NME" not in text and "model-index" not in text and header(text).eval_results is None


def test_figures_of_training_are_told_as_that(bare: model_card.Weights) -> None:
    training = {"faces": {"command": "python train.py faces --data DATA", "seed": 0}}
    metrics = {"validation": {"faces": {"ap": 88.7826, "extra": None}}, "training": training}
    text = model_card.text(bare._replace(metrics=metrics), "someone/faces")
    assert "Measured at the end of training only" in text and "came without figures" not in text
    assert "| face detector | ap | 88.783 |" in text and "| face detector | extra | – |" in text
    assert "python train.py faces --data DATA\n```" in text and model_card.TRAINING_DATA["faces"] in text
    assert "What the keypoint network learnt from is not recorded with these weights." in text
    assert "model-index" not in text


def test_the_splits_that_share_people_are_told(bundled: model_card.Weights) -> None:
    text = model_card.text(bundled, "someone/faces")
    assert "people held out of training" in text and "(its people occur in training)" in text
    for word in ("skin tone", "age", "gender", "Out of scope", "telling who a person is"):
        assert word in text


def test_licence_and_terms_are_those_of_the_project(bundled: model_card.Weights, root: Path) -> None:
    text = " ".join(model_card.text(bundled, "someone/faces").split())
    (terms,) = re.findall(r"The code is MIT; [^.]*\.", " ".join((root / "README.md").read_text().split()))
    assert terms in text
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert (
        project["license"].lower() == model_card.LICENSE and "MIT License" in (root / "LICENSE").read_text()
    )


def test_the_code_block_names_the_repository(bundled: model_card.Weights) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", model_card.text(bundled, "someone/faces"), re.DOTALL)
    assert 'from_pretrained("someone/faces")' in code
    compile(code, "card", "exec")


def test_pictures_are_shown_only_where_they_are_there(bundled: model_card.Weights) -> None:
    def shown(*names: str) -> list[str]:
        return re.findall(r"!\[[^]]+\]\(([^)]+)\)", model_card.text(bundled, "a/b", names))

    assert shown() == []
    assert shown(model_card.POINTS_FIGURE) == [model_card.POINTS_FIGURE]
    assert shown(model_card.EXAMPLE, model_card.POINTS_FIGURE) == [
        model_card.EXAMPLE,
        model_card.POINTS_FIGURE,
    ]


def test_the_tables_are_whole(bundled: model_card.Weights) -> None:
    """As many cells in each row as in its head."""
    for block in re.findall(r"(?:^\|.*\n)+", model_card.text(bundled, "a/b"), re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


# --- pictures -------------------------------------------------------------------------------------------


def test_the_mean_face() -> None:
    face = np.array(scheme.MEAN_FACE)
    assert face.shape == (68, 2)
    assert face[scheme.RIGHT_EYE_OUTER_CORNER].tolist() == [-500, 0]
    assert face[scheme.LEFT_EYE_OUTER_CORNER].tolist() == [500, 0]
    mirrored = face[list(scheme.FLIP)] * (-1, 1)
    assert np.array_equal(mirrored, face)
    triangles = face[np.array(scheme.TRIANGLES)]
    sides = triangles[:, 1:] - triangles[:, :1]
    areas = sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]
    assert (areas != 0).all(), "no triangle of the mesh is flat"


def test_the_figure_of_the_points() -> None:
    """The file is what the command draws, and every point is in it."""
    picture = Image.open(model_card.POINTS)
    assert picture.format == "PNG" and model_card.POINTS.stat().st_size < 100_000
    pixels = np.array(picture.convert("RGB")).astype(int)
    assert np.abs(pixels - np.array(points_figure.figure().convert("RGB"))).mean() < 1
    ground = pixels[0, 0]
    for point, (x, y) in enumerate(points_figure.points()):
        assert pixels[round(y), round(x)].max() > ground.max() + 80, point


def test_the_example_shows_what_the_model_finds() -> None:
    shown = model_card.pictures(FacesInColour())
    assert shown.keys() == {model_card.POINTS_FIGURE, model_card.EXAMPLE}
    picture = np.array(Image.open(io.BytesIO(shown[model_card.EXAMPLE]))).astype(int)
    before = np.array(Image.open(model_card.PORTRAITS)).astype(int)
    changed = (np.abs(picture - before).max(axis=2) > 60).any(axis=0).nonzero()[0]
    assert 30 < changed.min() and changed.max() < 150  # the stand-in's box is from 40 to 120

    def nothing(image: np.ndarray, **_: object) -> Faces:
        return Faces.none()

    def nonsense(image: np.ndarray, **_: object) -> Faces:
        return Faces(np.ones((1, 4)), np.ones(1), np.full((1, 68, 2), np.nan), np.ones((1, 68)))

    for model in (nothing, nonsense):
        assert model_card.pictures(model).keys() == {model_card.POINTS_FIGURE}


def test_saved_weights_have_a_card_of_their_own(weights: Path) -> None:
    text = (weights / "README.md").read_text()
    assert f"| `{hub.WEIGHTS}` | {model_card.in_words((weights / hub.WEIGHTS).stat().st_size)} |" in text
    assert "onnx/keypoints.onnx" not in text  # they were saved without graphs
    count = sum(array.size for array in hub.load(weights).keypoint_tensors.values())
    assert f"| keypoint network | {count / 1e6:.2f} million |" in text


def test_card_tells_how_the_graphs_are_fed(bundled: model_card.Weights) -> None:
    """Names, order and shapes are those of the bundled graphs."""
    text = model_card.text(bundled, "someone/faces")
    for name in ("keypoints", "detector"):
        session = onnxruntime.InferenceSession(hub.BUNDLED / f"onnx/{name}.onnx")
        (row,) = re.findall(rf"^\| `onnx/{name}.onnx` \|(.*?)\|(.*)\|$", text, re.MULTILINE)
        for cell, tensors in zip(row, (session.get_inputs(), session.get_outputs()), strict=True):
            names = [tensor.name for tensor in tensors]
            assert [word for word in re.findall(r"`(\w+)`", cell) if word in names] == names
    assert f"(n,3,{bundled.config['keypoints']['crop_size']}," in text
    for index, style in enumerate((None, *scheme.LABEL_STYLES)):
        assert f"{index} `{style}`" in text or style is None
        assert f"`{style}` (the default)" in text or f'| `"{style}"` |' in text


def test_the_commands_of_training_are_folded(bundled: model_card.Weights) -> None:
    text = model_card.text(bundled, "someone/faces")
    for of in bundled.metrics["training"].values():
        command = of["command"].replace(" && ", "\n")
        assert f"as commands</summary>\n\n```sh\n{command}\n```\n\n</details>" in text


@pytest.mark.parametrize(
    "size, words", [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_311_146, "2.31 MB")]
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert model_card.in_words(size) == words
