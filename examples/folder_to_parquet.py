"""The faces of every picture in a folder as a Parquet table, pictures being read by worker processes.

    pip install pyarrow
    python examples/folder_to_parquet.py pictures faces.parquet --workers 4

A row for each face: picture, face (from 0, the largest first), score, box (4), keypoints (136: x0, y0, … in
pixels), keypoint_scores (68). A picture without a face has no row; one that cannot be read is told on stderr.

    pandas.read_parquet("faces.parquet")
"""

import argparse
import sys
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from fkp import FaceKeypoints, images

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


class Pictures(Dataset):
    """The pictures of a folder and those below it: name and pixels, or name and what is wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
        self.names = sorted(path.relative_to(folder).as_posix() for path in found)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int):
        try:
            return self.names[index], images.read(self.folder / self.names[index])
        except images.ImageError as error:
            return self.names[index], str(error)


def main() -> None:
    parser = argparse.ArgumentParser(description="The faces of a folder's pictures as a Parquet table.")
    parser.add_argument("folder", type=Path, help="folder of the pictures")
    parser.add_argument("out", type=Path, help="the Parquet file to write")
    parser.add_argument("--workers", type=int, default=0, help="processes that read pictures (default: none)")
    args = parser.parse_args()
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        sys.exit("this example needs pyarrow: run 'pip install pyarrow'")
    pictures = Pictures(args.folder)
    if not len(pictures):
        sys.exit(f"there are no pictures in {args.folder}")

    numbers = pyarrow.list_(pyarrow.float32())
    columns = {"picture": pyarrow.string(), "face": pyarrow.int32(), "score": pyarrow.float32()}
    table = pyarrow.schema(columns | dict.fromkeys(("box", "keypoints", "keypoint_scores"), numbers))
    model = FaceKeypoints.from_pretrained()
    with pyarrow.parquet.ParquetWriter(args.out, table) as writer:
        # batch_size=None: one by one, as they are, for pictures differ in size.
        for name, pixels in DataLoader(pictures, batch_size=None, num_workers=args.workers, collate_fn=as_is):
            if isinstance(pixels, str):
                print(pixels, file=sys.stderr)
                continue
            faces = model(pixels)
            lists = (faces.boxes, faces.keypoints.reshape(-1, 136), faces.keypoint_scores)
            values = [[name] * len(faces), range(len(faces)), faces.scores, *map(list, lists)]
            arrays = [pyarrow.array(column, field.type) for column, field in zip(values, table, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=table))


def as_is(sample):
    return sample


if __name__ == "__main__":
    main()
