"""Sources: which pictures are in them, in which shards, and what is no source."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fkp import images
from fkp.label import sources, table
from fkp.label.sources import Shard, SourceError
from tests import loopback_hub
from tests.label import material

NAMES = ["eileen_collins.jpg", "four_faces.jpg", "grace_hopper.jpg", "grey.png", "text.jpg"]


def shards(source: object, **options: str) -> list[Shard]:
    found, size = sources.shards(str(source), **options)
    listed = list(found)
    assert sum(shard.size for shard in listed) == size
    assert [Shard.from_json(shard.to_json()) for shard in listed] == listed
    return listed


def keys(shard: Shard) -> list[str]:
    read = list(shard.pictures())
    assert [picture.row for picture, _ in read] == list(range(len(read)))
    reached = [done for _, done in read]
    assert reached == sorted(reached) and reached[-1] <= shard.size
    for picture, _ in read:
        name = Path(picture.key).name
        assert name not in NAMES or picture.data == material.pictures()[name]
    return [picture.key for picture, _ in read]


def test_folder(tmp_path: Path) -> None:
    (shard,) = shards(material.folder(tmp_path))
    assert keys(shard) == [*NAMES[2:], "deep/er/eileen_collins.jpg", "deep/er/four_faces.jpg"]


def test_folder_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PICTURES_A_SHARD", 2)
    first, second, third = shards(material.folder(tmp_path))
    assert [*keys(first), *keys(second)] == [*NAMES[2:], "deep/er/eileen_collins.jpg"]
    assert (third.name, third.size) == ("pictures-000002", 1)
    before = first.fingerprint
    (tmp_path / "a.jpg").write_bytes(b"")
    assert next(sources.shards(str(tmp_path))[0]).fingerprint != before


def test_list(tmp_path: Path) -> None:
    material.folder(tmp_path)
    (tmp_path / "list.txt").write_text(f"grey.png\r\n\n{tmp_path}/text.jpg\nmissing.jpg\n", encoding="utf-8")
    (shard,) = shards(tmp_path / "list.txt")
    assert keys(shard) == ["grey.png", f"{tmp_path}/text.jpg", "missing.jpg"]
    missing = list(shard.pictures())[2][0].data
    assert isinstance(missing, images.ImageError) and "no such file" in str(missing)


def test_sizes_tell_inputs_apart(tmp_path: Path) -> None:
    material.folder(tmp_path)
    (tmp_path / "list.txt").write_text("grey.png\ntext.jpg\nmissing.jpg\n")
    places = (tmp_path, tmp_path / "list.txt")
    before = [shards(place)[0].fingerprint for place in places]
    assert [shards(place)[0].fingerprint for place in places] == before
    (tmp_path / "text.jpg").write_bytes(b"something longer")
    changed = [shards(place)[0].fingerprint for place in places]
    assert not set(changed) & set(before)
    (tmp_path / "missing.jpg").write_bytes(b"here now")
    assert not {shards(place)[0].fingerprint for place in places} & {*before, *changed}


def test_fingerprint_of_a_file_stays() -> None:
    """Outputs of versions before are finished still."""
    shard = Shard("a", "tar", "/in/a.tar", 10, length=10)
    assert shard.fingerprint == Shard("a", "tar", "/a.tar", 10, length=10).fingerprint == "8dc7dabff50a70e0"


def test_outputs_are_no_source(tmp_path: Path) -> None:
    for name in ("tars", "parquets", "pictures"):
        with table.Writer(tmp_path / name / "out" / "a.parquet", {}):
            pass
    material.tar(tmp_path / "tars" / "b.tar")
    material.parquet(tmp_path / "parquets" / "b.parquet")
    material.folder(tmp_path / "pictures")
    assert [shard.name for shard in shards(tmp_path / "tars")] == ["b"]
    assert [shard.name for shard in shards(tmp_path / "parquets")] == ["b"]
    assert [shard.name for shard in shards(f"{tmp_path}/parquets/**/*.parquet")] == ["b"]
    assert [shard.kind for shard in shards(tmp_path / "pictures")] == ["files"]
    with pytest.raises(SourceError, match="holds no picture"):
        shards(tmp_path / "tars" / "out")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (shard,) = shards(tmp_path)
    assert isinstance(list(shard.pictures())[0][0].data, images.ImageError)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_tar(tmp_path: Path, ending: str) -> None:
    material.tar(tmp_path / "in" / f"b{ending}")
    material.tar(tmp_path / "in" / "a" / f"c{ending}")
    first, second = shards(tmp_path)
    assert (first.name, second.name) == ("in/b", "in/a/c")
    assert keys(first) == keys(second) == [f"./{name}" for name in NAMES]
    (one,) = shards(tmp_path / "in" / f"b{ending}")
    (same,) = shards(f"{tmp_path}/*/b{ending}")
    assert one == same and one.name == "b"


def test_tar_cut_off(tmp_path: Path) -> None:
    path = material.tar(tmp_path / "a.tar")
    path.write_bytes(path.read_bytes()[:100_000])
    (shard,) = shards(path)
    with pytest.raises(SourceError, match="a.tar: cannot be read"):
        list(shard.pictures())


def test_parquet(tmp_path: Path) -> None:
    material.parquet(tmp_path / "data" / "train-0.parquet")
    (shard,) = shards(tmp_path)
    assert (shard.name, shard.size, keys(shard)) == ("data/train-0", 5, NAMES)
    (shard,) = shards(tmp_path, column="image", key="id")
    assert keys(shard) == list("01234")


def test_parquet_with_paths(tmp_path: Path) -> None:
    material.folder(tmp_path / "in")
    column = ["grey.png", str(tmp_path / "in" / "text.jpg"), None, "https://example.com/a.jpg"]
    pq.write_table(pa.table({"path": column, "n": [1, 2, 3, 4]}), tmp_path / "in" / "a.parquet")
    (shard,) = shards(tmp_path / "in" / "*.parquet", column="path")
    read = [picture.data for picture, _ in shard.pictures()]
    assert read[:2] == [material.pictures()[name] for name in ("grey.png", "text.jpg")]
    assert "no picture" in str(read[2]) and "address" in str(read[3])


def test_file_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LARGEST", 100_000)
    material.folder(tmp_path / "in")
    material.tar(tmp_path / "a.tar")
    for source in (tmp_path / "in", tmp_path / "a.tar"):
        (shard,) = shards(source)
        told = {Path(p.key).name for p, _ in shard.pictures() if isinstance(p.data, images.ImageError)}
        assert told == {"four_faces.jpg"}


@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        ("nothing", {}, "no such file"),
        ("empty", {}, "holds no picture"),
        ("mixed", {}, "tar shards and Parquet shards"),
        ("mixed/a.parquet", {"column": "x"}, "no column 'x', only image, id"),
        ("two.parquet", {}, "several columns"),
        ("text.parquet", {}, "no Parquet file"),
        ("twins", {}, "two shards named a"),
        ("one.jpg", {}, "fkp predict"),
        ("binary.txt", {}, "no list"),
        ("*.doc", {}, "no such file"),
        ("empty.txt", {}, "names no picture"),
        ("nosuch://a", {}, "nosuch"),
    ],
)
def test_source_that_is_none(tmp_path: Path, source: str, options: dict[str, str], reason: str) -> None:
    (tmp_path / "empty").mkdir()
    material.tar(tmp_path / "mixed" / "a.tar", {"a.jpg": b"x"})
    material.parquet(tmp_path / "mixed" / "a.parquet")
    material.tar(tmp_path / "twins" / "a.tar", {"a.jpg": b"x"})
    material.tar(tmp_path / "twins" / "a.tgz", {"a.jpg": b"x"})
    pq.write_table(pa.table({"a": [b"x"], "b": [b"y"]}), tmp_path / "two.parquet")
    for name in ("text.parquet", "one.jpg"):
        (tmp_path / name).write_bytes(b"text")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\xd8")
    (tmp_path / "empty.txt").write_bytes(b"\n\n")
    with pytest.raises(SourceError, match=reason):
        shards(source if "://" in source else tmp_path / source, **options)


def test_hub(tmp_path: Path) -> None:
    """Shards and pictures are read in place, at the commit that was the newest when the run began."""
    shard = material.parquet(tmp_path / "a.parquet").read_bytes()
    code = """
from fkp.label import sources
for name in ("shards", "pictures", "nothing"):
    try:
        for shard in sources.shards(f"hf://datasets/someone/{name}")[0]:
            print(shard.name, "@" in shard.where, [(p.key, len(p.data)) for p, _ in shard.pictures()][0])
    except sources.SourceError as error:
        print(error)
"""
    with loopback_hub.LoopbackHub() as hub:
        hub.add("someone/shards", {"README.md": b"", "data/train-0.parquet": shard})
        hub.add("someone/pictures", {"a/b.jpg": b"123"})
        first, second, third = loopback_hub.fresh_process(code, hub.url, tmp_path / "home")
    assert first == f"data/train-0 True ('eileen_collins.jpg', {len(material.content('eileen_collins.jpg'))})"
    assert second == "pictures-000000 True ('a/b.jpg', 3)"
    assert third.startswith("hf://datasets/someone/nothing: cannot be read")
