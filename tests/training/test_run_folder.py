import numpy as np
import pytest
import torch

from fkp.training.run_folder import CheckpointError, RunFolder

WHOLE = {"settings": {}, "history": [], "sums": {}, "average": {}, "optimizers": []}


@pytest.mark.parametrize("content", [None, b"", b"half", {"step": 1}, [1, 2]])
def test_checkpoint_that_is_none_is_named(tmp_path, content):
    """Gone, cut off, another program's, or without what a run needs."""
    run = RunFolder(tmp_path / "run")
    if isinstance(content, bytes):
        run.checkpoint.write_bytes(content)
    elif content is not None:
        torch.save(content, run.checkpoint)
    with pytest.raises(CheckpointError, match="checkpoint.pt"):
        run.load()


def test_a_checkpoint_that_was_cut_off_is_told(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.save(WHOLE | {"step": 1, "model": {"weight": torch.ones(1000)}})
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="checkpoint.pt"):
        run.load()


def test_a_checkpoint_comes_back_and_an_interrupted_one_does_no_harm(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.save(WHOLE | {"step": 1, "model": {"weight": torch.ones(2)}})
    monkeypatch.setattr(torch, "save", lambda state, path: path.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.save({"step": 2, "model": {}})
    state = run.load()
    assert state["step"] == 1 and torch.equal(state["model"]["weight"], torch.ones(2))


@pytest.mark.parametrize("figures", [(None, 1 / 3), (None, None)])
def test_what_was_not_measured_is_an_empty_cell_and_a_gap(tmp_path, figures):
    run = RunFolder(tmp_path / "run")
    rows = [{"epoch": i + 1, "loss": 2.0, "val_nme": figure} for i, figure in enumerate(figures)]
    run.write_log(rows)
    assert (run.path / "log.csv").read_text().splitlines()[1] == "1,2.0,"
    run.write_curve(rows, "val_nme")
    assert (run.path / "curve.png").stat().st_size > 50


def test_log_curve_and_preview(tmp_path):
    run = RunFolder(tmp_path / "run")
    rows = [{"epoch": 1, "loss": 2.0, "val_nme": 9.0}, {"epoch": 2, "loss": 1.0, "val_nme": 1 / 3}]
    run.write_log(rows)
    assert (run.path / "log.csv").read_text() == "epoch,loss,val_nme\n1,2.0,9.0\n2,1.0,0.333333\n"
    run.write_curve(rows, "val_nme")
    run.write_preview(np.zeros((8, 8, 3), np.uint8))
    assert all((run.path / name).stat().st_size > 50 for name in ("curve.png", "preview.png"))
