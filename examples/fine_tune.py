"""Fine-tune the pretrained keypoint network on faces of your own, and save the model.

    python examples/fine_tune.py labels.csv pictures my-model --epochs 20

The CSV has a row for each face: the picture's file name, then x0,y0,…,x67,y67 in pixels, counted from 0.
Afterwards `FaceKeypoints.from_pretrained("my-model")` loads it, `fkp evaluate --model my-model --csv …`
measures it on other faces, and `fkp push OWNER/NAME --model my-model` shares it.
"""

import argparse
import sys
from dataclasses import replace

import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from fkp import hub
from fkp.data import DataError, FacialKeypointsDataset
from fkp.networks import state
from fkp.training.augmentation import FaceCrop, Photometry, ToTensors
from fkp.training.keypoint_task import loss_of


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune the keypoint network on faces of your own.")
    parser.add_argument("csv", help="labels, a row for a face")
    parser.add_argument("images", help="folder of the pictures")
    parser.add_argument("out", help="folder to save the model in")
    parser.add_argument("--model", help="what to start from: a folder, or OWNER/NAME (default: bundled)")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-4, help="peak learning rate (default: 1e-4)")
    args = parser.parse_args()

    torch.manual_seed(0)
    try:
        weights = hub.load(args.model)
        network = weights.module("keypoints")
        # Ranges of activations are those of the weights as they were: no graph of 8-bit integers.
        network.config = replace(network.config, activation_ranges=())
        size, margin = network.config.crop_size, network.config.margin
        crop = FaceCrop(size, margin, rotation=25, scale=(0.9, 1.15), shift=0.06, mirror=0.5)
        faces = FacialKeypointsDataset(args.csv, args.images, v2.Compose([crop, Photometry(), ToTensors()]))
    except (hub.WeightsError, DataError) as error:
        sys.exit(str(error))
    loader = DataLoader(faces, args.batch_size, shuffle=True)
    steps = max(1, args.epochs * len(loader))
    optimizer = torch.optim.AdamW(network.parameters(), args.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, steps)

    network.eval()  # normalisation stays as it was learnt: a few faces would upset its statistics
    for epoch in range(1, args.epochs + 1):
        total = 0.0
        for batch in loader:
            crops, keypoints = batch["image"], batch["keypoints"]
            raw = network(crops, torch.zeros(len(crops), dtype=torch.int64))  # the default labelling style
            loss, _ = loss_of(network.codec, raw, keypoints)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(crops)
        print(f"epoch {epoch}: loss {total / len(faces):.3f}")
    tuned = replace(
        weights, keypoints=network.config, keypoint_tensors=state.arrays(network),
        metrics={}, folder=None,  # what was measured, and made into graphs, was another model
    )  # fmt: skip
    hub.save(args.out, tuned)


if __name__ == "__main__":
    main()
