# /// script
# requires-python = ">=3.11"
# dependencies = ["fkp[label]"]
# [tool.uv.sources]
# fkp = { path = ".." }
# ///
"""Label the pictures of a dataset on the Hugging Face Hub, and put the faces into another dataset.

    uv run examples/label_hub_dataset.py OWNER/PICTURES ME/FACES

The first holds Parquet or tar shards, or picture files; the second gets a Parquet file for each shard, with a
row for each face (docs/label.md tells the columns), and a card. What is finished goes up every few minutes;
started again, it goes on with what is not there yet.
"""

import argparse
import sys
import tempfile

from huggingface_hub import CommitScheduler, HfApi, snapshot_download

from fkp.label import SourceError, label

CARD = """---
task_categories:
- keypoint-detection
configs:
- config_name: default
  data_files: "**/*.parquet"
---
Faces and their 68 keypoints in the pictures of [{source}](https://huggingface.co/datasets/{source}), found by
fkp: {summary}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Label a dataset on the Hub, into another one.")
    parser.add_argument("source", metavar="OWNER/PICTURES", help="dataset with pictures")
    parser.add_argument("target", metavar="ME/FACES", help="dataset to make, or to go on with")
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.add_argument("--column", help="column of the pictures, where it is not clear")
    parser.add_argument("--private", action="store_true", help="for your eyes only, if it is a new one")
    args = parser.parse_args()

    hub = HfApi()
    hub.create_repo(args.target, repo_type="dataset", private=args.private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        snapshot_download(args.target, repo_type="dataset", local_dir=folder, allow_patterns="*.parquet")
        uploads = CommitScheduler(
            repo_id=args.target, repo_type="dataset", folder_path=folder, every=5, allow_patterns="*.parquet"
        )
        with uploads:  # the last at its end
            try:
                source = f"hf://datasets/{args.source}"
                summary = label(source, folder, workers=args.workers, column=args.column)
            except (SourceError, ValueError) as error:
                sys.exit(str(error))
    card = CARD.format(source=args.source, summary=summary).encode()
    hub.upload_file(
        path_or_fileobj=card, path_in_repo="README.md", repo_id=args.target, repo_type="dataset",
        commit_message="Card",
    )  # fmt: skip
    print(summary)


if __name__ == "__main__":
    main()
