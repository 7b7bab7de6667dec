"""Train fkp's networks: prepare the data; forward pass, loss, backward pass, update; until it has settled.

    python train.py keypoints --data DATA                   # the 68-keypoint network
    python train.py faces --data DATA                       # the face detector
    python train.py keypoints --data DATA --resume          # go on exactly where a run was interrupted
    torchrun --nproc-per-node 2 train.py keypoints --data DATA
    python train.py keypoints --csv labels.csv --images pictures --start fkp/weights --epochs 9   # your faces

The bundled keypoint weights were made by these, the first three on a GPU in ten minutes, ten beside them and
eleven, the others on CPU cores, in four minutes and twenty each; FIRST is such a wide network, too, EARLIER
the weights before (LOG.md):

    OPTIONS="--data DATA --photos DIR --align EARLIER --each-view --precision bf16 --workers 6 --warmup 0.04"
    WIDE="--teacher FIRST --widths 64 128 256 512 --blocks 3 6 4 --top-down 192 --batch-size 512"
    WIDE="$WIDE --augmentation 1 0.8 1 --weight-decay 0.1 --ema 0.998 --epochs 97"
    python train.py keypoints $OPTIONS $WIDE --seed 1 --name one
    python train.py keypoints $OPTIONS $WIDE --seed 2 --name two
    python train.py keypoints $OPTIONS --start EARLIER --teacher runs/one/model runs/two/model --taught 0.7
        --batch-size 1024 --augmentation 1 0.7 1 --ema 0.9995 --epochs 250 --name narrow
    python train.py keypoints --data DATA --start runs/narrow/model --align runs/narrow/model --only style
        --augmentation 1 0.7 1 --lr 3e-3 --ema 0.99 --warmup 0.1 --epochs 3 --name styles
    LAST="--data DATA --start runs/styles/model --align runs/styles/model --precision bf16 --batch-size 128"
    LAST="$LAST --augmentation 1 0.7 1 --lr 1e-4 --muon-lr 1e-3 --warmup 0.05 --ema 0.998 --epochs 8"
    python train.py keypoints $LAST --seed 1 --name first
    python train.py keypoints $LAST --seed 2 --name second
    python train.py keypoints --data DATA --start runs/first/model runs/second/model --epochs 0

The bundled face detector was made by these, on a GPU in ten minutes and beside them twenty-five; WIDER is a
network as wide, from the weights before:

    OPTIONS="--data DATA --photos DIR --yunet FILE --portraits CSV --mine EARLIER --precision bf16"
    python train.py faces $OPTIONS --start WIDER --widths 80 160 240 240 --blocks 3 3 5 --top-down 128
        --batch-size 128 --ema 0.998 --warmup 0.05 --epochs 18 --name wide
    python train.py faces $OPTIONS --start EARLIER --teacher runs/wide/model --taught 0.5 --batch-size 256
        --ema 0.9995 --epochs 100

On CPU cores a teacher is asked once about each face, not about each view; LOG.md has such runs.

DATA is a folder laid out as README.md says. Everything a run makes lies in runs/<name>/: log.csv, curve.png,
preview.png (labels beside predictions), checkpoint.pt, and at the end model/ with config.json,
model.safetensors and metrics.json, which `FaceKeypoints.from_pretrained("runs/<name>/model")` loads.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import signal
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

# Spinning OpenMP threads made a step up to 50 times slower on shared cores; read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np

try:
    import matplotlib  # noqa: F401
    import torch
    import torchvision  # noqa: F401
except ImportError as error:
    sys.exit(f"train.py needs {error.name}: run 'pip install \".[train]\"' in its folder")

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from fkp import FaceKeypoints, __version__, detector, hub, runtime, scheme
from fkp.arguments import count, number, share, whole
from fkp.config import BASELINE, KEYPOINTNET, Config, DetectorConfig
from fkp.detectors.yunet import YuNet
from fkp.hub import publish
from fkp.networks import keypoint_net, state
from fkp.training import distillation, face_task, keypoint_task, own_faces
from fkp.training.muon import Muon
from fkp.training.run_folder import CheckpointError, RunFolder
from fkp.training.yunet_teacher import Pupil, YuNetTeacher


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)

    # --- Where: one process, or several under torchrun, each on its device ---------------------------------
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = args.device
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True  # sizes repeat
    if args.threads:
        torch.set_num_threads(args.threads)
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    precision = args.precision if args.precision != "auto" else "bf16" if device.type == "cuda" else "fp32"

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()

    # --- What: the data, the network, its loss and its validation ------------------------------------------
    torch.manual_seed(args.seed)  # the initial weights
    try:
        run = RunFolder(args.runs / (args.name or args.what))
        checkpoint = resumed(run, args, world)  # before anything is read, asked or written
        data_digest = digest_of_labels(args.csv or args.data)
        if checkpoint is not None and checkpoint.get("data", data_digest) != data_digest:
            raise CheckpointError(f"the CSVs of {args.csv or args.data} have changed since {run.checkpoint}")
        if args.batch_size % world:
            raise ValueError(f"--batch-size {args.batch_size} is not shared out evenly by {world} processes")
        if args.push_to and rank == 0:
            publish.check_push(args.push_to)
        other = hub.load(args.other)  # now, and not after hours of training, if it cannot be had
        task = make_task(args, device)
        if not task.steps_per_epoch:
            raise ValueError(
                f"{args.csv or args.data} holds too few faces for a batch of {args.batch_size}: "
                "give a smaller --batch-size"
            )
        if args.start:
            stored = {model: hub.load(model) for model in args.start}
            state.copy_mean({model: fitted(weights, task) for model, weights in stored.items()}, task.network)
        if args.only and not any(n.startswith(args.only) for n, _ in task.network.named_parameters()):
            raise ValueError(f"--only {args.only}: the name of no parameter begins so")
        taught = None
        if args.teacher and isinstance(task, keypoint_task.KeypointTask):
            with autocast():
                taught = teach(task, args, run, other)
        if rank == 0:
            if checkpoint is None:  # --overwrite: what is written from now on is not of that run
                run.checkpoint.unlink(missing_ok=True)
            if taught is not None:
                taught.save(run.pseudo_labels)
    except (hub.WeightsError, ValueError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    model = task.network.to(device).to(memory_format=torch.channels_last)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(args.only is None or name.startswith(args.only))
    average = AveragedModel(model, multi_avg_fn=exponential(args.ema), use_buffers=True)
    optimizers = make_optimizers(args, model, task.hidden_kernels)
    step, last = 0, args.epochs * task.steps_per_epoch
    history: list[dict[str, float | None]] = []
    sums: dict[str, float] = {}

    if checkpoint is not None:
        try:
            model.load_state_dict(checkpoint["model"])
            average.load_state_dict(checkpoint["average"])
            for optimizer, stored in zip(optimizers, checkpoint["optimizers"], strict=True):
                optimizer.load_state_dict(stored)
        except (RuntimeError, ValueError) as error:
            print(f"train.py: {run.checkpoint} does not fit: {str(error).splitlines()[0]}", file=sys.stderr)
            return 1
        step, history, sums = checkpoint["step"], checkpoint["history"], checkpoint["sums"]

    def save() -> None:
        if rank == 0:
            run.save({
                "settings": settings(args, world), "step": step, "history": history, "sums": sums,
                "data": data_digest, "model": model.state_dict(), "average": average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            })  # fmt: skip

    trained: Any = DistributedDataParallel(model) if world > 1 else model
    trained = torch.compile(trained) if args.compile else trained

    # --- The loop ------------------------------------------------------------------------------------------
    # One loader for the whole run: item k is the batch of step k, drawn from (seed, k) alone. A process makes
    # the batches of two steps in turn, for those of the detector have much in common.
    loader = DataLoader(
        Steps(task, rank, world), batch_size=2, collate_fn=list, sampler=range(step, last),
        num_workers=args.workers, prefetch_factor=4 if args.workers else None,
        pin_memory=device.type == "cuda", worker_init_fn=begin_to_load,
    )  # fmt: skip
    interruption = Interruption(device)
    bar = tqdm(total=last, initial=step, unit="step", disable=rank > 0, dynamic_ncols=True)
    saved = time.monotonic()
    model.train(args.only is None)  # statistics of normalisation stay as they are, too
    broken = False
    with interruption:
        for batch in chain.from_iterable(loader):
            batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            torch.manual_seed(args.seed + 1 + step * world + rank)  # dropout
            lr = learning_rate(step, last, args.warmup)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = lr * group["peak"]
            with autocast():
                loss, parts = task.loss(trained, batch)
            if not descend(loss, model, optimizers, args.clip, world):
                broken = True
                break
            average.update_parameters(model)
            step += 1

            for name, value in {"loss": loss.item(), **parts}.items():
                sums[name] = sums.get(name, 0.0) + value
            bar.update()
            if step % 10 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}", lr=f"{lr * args.lr:.1e}")

            validated = False
            if step % task.steps_per_epoch == 0:
                epoch = step // task.steps_per_epoch
                row: dict[str, float | None] = {"epoch": epoch, "lr": lr * args.lr}
                row |= {name: total / task.steps_per_epoch for name, total in sums.items()}
                sums = {}
                validated = epoch % args.validate_every == 0 or step == last
                if rank == 0 and validated:
                    average.module.eval()
                    with autocast():
                        validation = task.validate(average.module)
                    row |= {f"val_{name}": value for name, value in validation.items()}
                    history.append(row)
                    followed = f"val_{next(iter(validation))}"
                    bar.write("  ".join(shown(row, ".4g")))
                    run.write_log(history)
                    run.write_curve(history, followed)
                    if args.preview_every and (epoch % args.preview_every == 0 or step == last):
                        run.write_preview(task.preview(average.module))
            stop = interruption.asked
            overdue = time.monotonic() - saved > 60 * args.save_minutes
            if stop or overdue or validated:
                save()
                saved = time.monotonic()
            if stop:
                break
    bar.close()
    if world > 1:
        dist.destroy_process_group()
    if broken:
        if rank == 0:
            kept = f"{run.checkpoint} is of before" if run.checkpoint.is_file() else "nothing was saved yet"
            advice = "lower --lr, or look for labels that are off"
            print(f"train.py: the loss of step {step + 1} is not finite; {kept}. {advice}", file=sys.stderr)
        return 1
    if step < last:
        if rank == 0:
            print(
                f"Interrupted at step {step} of {last}, all saved. Go on with the same command and --resume"
            )
        return 130

    # --- The result: the averaged weights, together with the network that was not trained here -------------
    if rank == 0:
        averaged: Any = average.module.eval()
        with autocast():
            if isinstance(task, face_task.FaceTask):
                config, network = task.finish(averaged)
                validation = task.validate(network, config)
                weights = replace(other, detector=config, detector_tensors=state.arrays(network))
            else:
                network = task.finish(averaged)
                validation = task.validate(network)
                weights = replace(other, keypoints=network.config, keypoint_tensors=state.arrays(network))
        record = {"command": command(args, world), "seed": args.seed, "fkp_version": __version__}
        training = {**other.metrics.get("training", {}), args.what: record}
        metrics = {"validation": {args.what: validation}, "training": training}
        hub.save(run.path / "model", replace(weights, metrics=metrics))
        print(f"{run.path / 'model'}: {', '.join(shown(validation, '.3f'))}")
        if args.push_to:
            try:
                print(FaceKeypoints.from_pretrained(run.path / "model").push_to_hub(args.push_to))
            except (hub.WeightsError, OSError) as error:
                again = f"fkp push {args.push_to} --model {run.path / 'model'}"
                print(f"train.py: {error}. The weights are saved; '{again}' tries it again", file=sys.stderr)
                return 1
    return 0


class Task(Protocol):
    """What the loop needs to know of what is trained."""

    @property
    def network(self) -> torch.nn.Module:
        """What is trained."""

    @property
    def hidden_kernels(self) -> list[torch.nn.Parameter]:
        """What Muon trains; AdamW trains the rest."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the data; 0 where there is not enough for one."""

    def batch(self, step: int, rank: int, world: int) -> dict[str, torch.Tensor]:
        """This process's share of the batch of a step, drawn from the seed, the step and the rank alone."""

    def loss(self, model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss and, for the log, its parts."""

    def validate(self, model: Any) -> dict[str, float | None]:
        """Figures on held-out faces, None where there are none for it; the first is the one to follow."""

    def preview(self, model: Any) -> np.ndarray:
        """Predictions beside the truth, (H,W,3) uint8 RGB."""

    def finish(self, model: Any) -> Any:
        """What to save: the network with what is fitted after training."""


def resumed(run: RunFolder, args: argparse.Namespace, world: int) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from, or None where it starts anew; nothing is touched.

    Raises CheckpointError where there is none, or one of other settings, or a run that is not to be lost.
    """
    if not args.resume:
        if run.checkpoint.is_file() and not args.overwrite:
            raise CheckpointError(
                f"{run.path} holds a run already: --resume it, --overwrite it or give a --name"
            )
        return None
    if not run.checkpoint.is_file():
        raise CheckpointError(f"nothing to resume: {run.checkpoint} does not exist")
    checkpoint = run.load()
    before = {"processes": str(world), **checkpoint["settings"]}  # which checkpoints once did not say
    changed = [name for name, value in settings(args, world).items() if before.get(name) != value]
    if changed:
        raise CheckpointError(f"the run was started with other settings: {', '.join(changed)}")
    return checkpoint


def make_task(args: argparse.Namespace, device: torch.device) -> Task:
    """The task that `args.what` names. Raises ValueError or OSError for data that is not as it should be."""
    if args.what == "faces":
        miner = None if args.mine is None else face_detector(hub.load(args.mine))
        yunet = None if args.yunet is None else YuNetTeacher(args.yunet)
        elsewhere = None if args.photos is None else (args.photos, YuNet(args.yunet))
        teacher = hub.load(args.teacher[0]).module("detector") if args.teacher else None
        return face_task.FaceTask(
            args.data, sized(DetectorConfig(), args, "neck_width"), batch_size=args.batch_size,
            seed=args.seed, device=device, miner=miner, portraits=args.portraits, workers=args.workers,
            yunet=yunet, elsewhere=elsewhere, teacher=teacher, taught=args.taught,
        )  # fmt: skip
    turn, framing, photometry = args.augmentation
    augmentation = replace(keypoint_task.Augmentation(), taught=args.taught).scaled(turn, framing, photometry)
    config = sized(BASELINE if args.architecture == "baseline" else KEYPOINTNET, args, "top_down_width")
    if args.csv:
        if args.start:  # what goes with weights goes on with them
            config = hub.load(args.start[0]).keypoints
        own = own_faces.read(args.csv, args.images, config, args.workers)
        return own_faces.OwnFacesTask(
            own, config, batch_size=args.batch_size, seed=args.seed, workers=args.workers,
            augmentation=augmentation, all_faces=args.all_faces,
        )  # fmt: skip
    faces = keypoint_task.read_faces(args.data, config, workers=args.workers)
    if args.align:
        network = hub.load(args.align).module("keypoints").to(memory_format=torch.channels_last)
        faces = keypoint_task.aligned(faces, network.to(device))
    return keypoint_task.KeypointTask(
        faces, config,
        batch_size=args.batch_size, seed=args.seed, workers=args.workers,
        augmentation=augmentation, all_faces=args.all_faces, repeats=args.repeats,
    )  # fmt: skip


def sized(config: Config, args: argparse.Namespace, top_down: str) -> Config:
    """A config with the widths and depths that are asked for; `top_down` names that of the top-down path."""
    asked: dict[str, Any] = {top_down: args.top_down}
    asked |= {"widths": args.widths and tuple(args.widths), "depths": args.blocks and tuple(args.blocks)}
    return replace(config, **{name: value for name, value in asked.items() if value})


def fitted(stored: hub.Weights, task: Task) -> torch.nn.Module:
    """The network of stored weights, a keypoint network with as many channels as the one to be trained."""
    if isinstance(task, keypoint_task.KeypointTask):
        return keypoint_net.resized(stored.module("keypoints"), task.config)
    network = stored.module("detector")
    return Pupil.of(network, stored.detector) if isinstance(task.network, Pupil) else network


def face_detector(stored: hub.Weights) -> detector.Detector:
    """The face detector of stored weights."""
    return detector.Detector(stored.detector, runtime.Runner(stored.files("detector")))


def teach(
    task: keypoint_task.KeypointTask, args: argparse.Namespace, run: RunFolder, other: hub.Weights
) -> distillation.PseudoLabels | None:
    """Lets teachers say what they see in every face, which takes minutes, so a resumed run has it written.

    What is still to be written is returned. Raises CheckpointError where what is written is of other faces.
    """
    earlier = None
    if args.resume and run.pseudo_labels.is_file():
        earlier = distillation.PseudoLabels.load(run.pseudo_labels)
    stored = [hub.load(teacher).module("keypoints") for teacher in args.teacher]
    teachers = [state.folded(teacher).to(args.device) for teacher in stored]
    find = face_detector(other)
    said = task.learn_from(teachers, args.data, find, earlier, args.each_view, args.photos)
    return said if earlier is None else None


class Steps(Dataset):
    """Batches by the number of their step, so that loader processes can make them ahead of time."""

    def __init__(self, task: Task, rank: int, world: int) -> None:
        self.task, self.rank, self.world = task, rank, world

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        return self.task.batch(step, self.rank, self.world)


class Interruption:
    """Ctrl-C or a polite kill: noted at once, obeyed between two steps, so that what is saved is whole.

    All processes stop at the same step. A second Ctrl-C ends the program as usual; a second SIGTERM does not,
    for torchrun passes on what a service manager has sent to every process already.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.noted = False

    def __enter__(self) -> None:
        self.before = {int(s): signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *error: object) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: object) -> None:
        self.noted = True
        if signum == signal.SIGINT:
            signal.signal(signum, self.before[signum])

    @property
    def asked(self) -> bool:
        """Whether any process has been asked to stop; every process must ask equally often."""
        if not dist.is_initialized():
            return self.noted
        votes = torch.tensor(float(self.noted), device=self.device)
        dist.all_reduce(votes)
        return votes.item() > 0


def begin_to_load(worker: int) -> None:
    """Ctrl-C, or a service manager's SIGTERM, reaches loader processes too, which must live until the trainer
    has saved. They end when it says so or is gone, for which torch has them look every five seconds.

    OpenCV's threads are not there in a forked process, and there are as many processes as wanted anyway.
    """
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_IGN)
    cv2.setNumThreads(0)


def shown(figures: dict[str, float | None], form: str) -> list[str]:
    """Each figure with its name, in a format; a dash for None."""
    return [f"{name} {'-' if value is None else format(value, form)}" for name, value in figures.items()]


def learning_rate(step: int, last: int, warmup: float) -> float:
    """Share of the peak: a linear warm-up over a share of the steps, then half a cosine to a hundredth."""
    rising = max(1, int(warmup * last))
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / max(1, last - rising)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def exponential(decay: float):
    """An exponential moving average whose memory grows with the number of steps taken, up to `decay`."""

    def blend(averaged: Any, current: Any, count: torch.Tensor | int) -> None:
        weight = min(decay, (1 + int(count)) / (10 + int(count)))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - weight)
        else:
            torch._foreach_copy_(averaged, current)

    return blend


def make_optimizers(
    args: argparse.Namespace, model: torch.nn.Module, hidden_kernels: list[torch.nn.Parameter]
) -> list[torch.optim.Optimizer]:
    """Muon for the hidden kernels, AdamW for the rest; weight decay for all but biases and normalisation.

    `peak` of each group is its peak learning rate.
    """
    hidden = {id(kernel) for kernel in hidden_kernels}
    rest = [p for p in model.parameters() if id(p) not in hidden and p.requires_grad]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": args.weight_decay, "peak": args.lr},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0, "peak": args.lr},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.99))]
    if kernels := [kernel for kernel in hidden_kernels if kernel.requires_grad]:
        group = {"params": kernels, "weight_decay": args.weight_decay, "peak": args.muon_lr}
        optimizers.append(Muon([group]))
    return optimizers


def descend(
    loss: torch.Tensor,
    model: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    clip: float,
    world: int = 1,
) -> bool:
    """One backward pass and update; `clip` is the largest norm of the gradient.

    Where the loss or the gradient of any process is not finite, nothing is updated, and the answer is False.
    """
    model.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    finite = (torch.isfinite(loss.detach()) & torch.isfinite(norm)).to(torch.int32)
    if world > 1:
        dist.all_reduce(finite, dist.ReduceOp.MIN)
    if not finite:
        return False
    for optimizer in optimizers:
        optimizer.step()
    return True


def digest_of_labels(data: Path) -> str:
    """SHA-256, in hex, of a CSV, or of all in a data folder and the folders in it, with their names."""
    sha256 = hashlib.sha256()
    for path in [data] if data.is_file() else sorted([*data.glob("*.csv"), *data.glob("*/*.csv")]):
        sha256.update(f"{path.relative_to(data).as_posix()}\n".encode())
        sha256.update(path.read_bytes())
    return sha256.hexdigest()


def settings(args: argparse.Namespace, world: int) -> dict[str, str]:
    """What must not change between a run and its resumption, the number of processes among it."""
    free = {"resume", "overwrite", "data", "other", "device", "threads", "workers", "push_to"}
    free |= {"csv", "images", "save_minutes", "preview_every", "validate_every"}
    kept = {name: str(value) for name, value in vars(args).items() if name not in free}
    return {**kept, "processes": str(world)}


def command(args: argparse.Namespace, world: int) -> str:
    """The command that trains these weights anew, for their metrics; it names no place on this machine."""
    usual = vars(parse([args.what, "--data", "DATA"]))
    places = {"what", "data", "runs", "name", "other", "resume", "overwrite", "save_minutes", "push_to"}
    places |= {"csv", "images"}
    parts = ["python train.py" if world == 1 else f"torchrun --nproc-per-node {world} train.py"]
    parts += [args.what, "--csv CSV --images DIR" if args.csv else "--data DATA"]
    for name, value in vars(args).items():
        if name in places | {"device"} or value == usual[name]:
            continue
        values = value if isinstance(value, list | tuple) else [] if value is True else [value]
        place = {"start": "MODEL", "mine": "MODEL", "teacher": "MODEL", "align": "MODEL",
                 "portraits": "CSV", "yunet": "FILE", "photos": "DIR"}.get(name)  # fmt: skip
        words = [place if place and Path(v).exists() else str(v) for v in values]
        parts.append(" ".join([f"--{name.replace('_', '-')}", *words]))
    return " ".join(parts)


def device_named(name: str) -> torch.device:
    """The device of a name; `auto` is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{name!r} is no device: auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("torch finds no GPU here")
    return device


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("keypoints", "faces"), help="the network to train")
    where = parser.add_argument_group("input and output")
    where.add_argument("--data", type=Path, help="folder with ytf/, 300w/ and face_boxes.csv")
    where.add_argument("--csv", type=Path, help="keypoints: labels of your own instead, a row for a face")
    where.add_argument("--images", metavar="DIR", type=Path, help="folder of the pictures of --csv")
    where.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    where.add_argument("--name", help="folder of this run (default: what is trained)")
    where.add_argument("--other", help="model to take the other network from (default: bundled)")
    where.add_argument("--resume", action="store_true", help="go on from the run's checkpoint, exactly")
    where.add_argument("--push-to", metavar="OWNER/NAME",
                       help="upload the model to the Hub when it is trained")  # fmt: skip
    where.add_argument("--overwrite", action="store_true", help="start anew where a run of this name lies")
    where.add_argument("--save-minutes", type=number(0), default=5,
                       help="checkpoint this often within an epoch")  # fmt: skip
    where.add_argument("--validate-every", type=count, default=1, help="epochs between rows of log.csv")
    where.add_argument("--preview-every", type=whole(0), default=5,
                       help="epochs between pictures of predictions (at validations); 0: none")  # fmt: skip
    model = parser.add_argument_group("model")
    model.add_argument("--architecture", choices=("keypointnet", "baseline"), default="keypointnet")
    model.add_argument("--start", metavar="MODEL", nargs="+",
                       help="weights to start from: a folder or OWNER/NAME; the mean of several")  # fmt: skip
    model.add_argument("--only", metavar="NAME",
                       help="train the parameters alone whose names begin so, e.g. 'style', and let all "
                            "others be")  # fmt: skip
    # From 16: with a stem of 4 to 15 channels before 16 or fewer torch 2.14 crashes on CPUs, going backward.
    model.add_argument("--widths", type=whole(16), nargs=4, metavar="CHANNELS",
                       help="channels at 1/2, 1/4, 1/8 and 1/16 (default: "
                            f"{' '.join(map(str, KEYPOINTNET.widths))}; of a wider --start those stay that "
                            "matter most), of faces at 1/4, 1/8, 1/16 and 1/32 (default: "
                            f"{' '.join(map(str, DetectorConfig.widths))})")  # fmt: skip
    model.add_argument("--teacher", metavar="MODEL", nargs="+",
                       help="learn from what this model says, too (distillation): of keypoints, also in "
                            "faces without labels, from the mean of several with --each-view; of faces, in "
                            "each picture")  # fmt: skip
    model.add_argument("--align", metavar="MODEL",
                       help="keypoints: the labels of MERL-RAV's crops are moved and scaled towards what "
                            "this model sees")  # fmt: skip
    model.add_argument("--photos", metavar="DIR", type=Path,
                       help="photos from elsewhere, whose faces nobody has marked, to learn from too: "
                            "faces from what --yunet finds, keypoints from what --teacher says")  # fmt: skip
    model.add_argument("--taught", type=share, default=0.4, metavar="SHARE",
                       help="share of the labelled faces learnt from the teacher; for faces, of the "
                            "scores' loss (default: 0.4)")  # fmt: skip
    model.add_argument("--each-view", action="store_true",
                       help="keypoints: the teacher is asked about each view that is learnt from, and "
                            "not once about each face; for GPUs")  # fmt: skip
    model.add_argument("--blocks", type=whole(0), nargs=3, metavar=("AT4", "AT8", "AT16"),
                       help="residual blocks at 1/4, 1/8 and 1/16 (default: "
                            f"{' '.join(map(str, KEYPOINTNET.depths))}), of faces at 1/8, 1/16 and 1/32 "
                            f"(default: {' '.join(map(str, DetectorConfig.depths))})")  # fmt: skip
    model.add_argument("--top-down", type=whole(8), metavar="CHANNELS",
                       help="channels of the top-down path (default: "
                            f"{KEYPOINTNET.top_down_width}, {DetectorConfig.neck_width} of faces)")
    model.add_argument("--all-faces", action="store_true",
                       help="keypoints: train on the held-out people and photos too")  # fmt: skip
    model.add_argument("--mine", metavar="MODEL",
                       help="faces: its detector's false alarms become hard negatives")  # fmt: skip
    model.add_argument("--yunet", metavar="FILE", type=Path,
                       help="faces: YuNet's ONNX file, whose scores a second head learns")  # fmt: skip
    model.add_argument("--portraits", metavar="CSV", type=Path,
                       help="faces: what 'fkp predict DATA/faces/* --csv CSV --max-faces 1 --passes 2' has "
                            "written, to learn from these portraits too")  # fmt: skip
    learning = parser.add_argument_group("learning")
    learning.add_argument("--epochs", type=whole(0), default=100,
                          help="0 saves what --start names, e.g. the mean of several")  # fmt: skip
    learning.add_argument("--batch-size", type=count, default=64, help="over all processes")
    learning.add_argument("--lr", type=number(0), default=2e-3, help="peak of the learning rate")
    learning.add_argument("--muon-lr", type=number(0), default=0.02,
                          help="the same for kernels that Muon trains")  # fmt: skip
    learning.add_argument("--warmup", type=share, default=0.03, help="share of the steps that warm up")
    learning.add_argument("--weight-decay", type=number(0), default=0.02)
    learning.add_argument("--clip", type=number(0.001), default=5.0, help="largest norm of the gradient")
    learning.add_argument("--augmentation", type=share, nargs=3, default=(1.0, 1.0, 1.0),
                          metavar=("TURN", "FRAMING", "PHOTOMETRY"),
                          help="keypoints: share of the turning, of the shifting and zooming, and of "
                               "the changes of pixels (default: 1 1 1)")  # fmt: skip
    learning.add_argument("--repeats", type=whole(0), nargs=3, default=keypoint_task.REPEATS,
                          metavar=tuple(style.upper() for style in scheme.LABEL_STYLES),
                          help="keypoints: how often an epoch shows the faces of each labelling style "
                               "(default: 3 2 1)")  # fmt: skip
    learning.add_argument("--ema", type=share, default=0.999, help="decay of the averaged weights")
    learning.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", type=device_named, default="auto", help="auto, cpu, cuda or cuda:N")
    machine.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto",
                         help="auto: bf16 on GPUs; CPUs with AVX512-BF16 gain by it too")  # fmt: skip
    machine.add_argument("--threads", type=whole(0), default=0, help="torch's CPU threads (0: torch decides)")
    machine.add_argument("--workers", type=whole(0), default=1, help="processes that prepare batches")
    machine.add_argument("--compile", action="store_true", help="torch.compile the network")
    args = parser.parse_args(arguments)
    if (args.data is None) == (args.csv is None):
        parser.error("either --data or --csv is needed")
    if args.csv and (args.what != "keypoints" or args.images is None or args.teacher):
        parser.error("--csv goes with keypoints and --images, and without --teacher")
    if args.photos and not (args.yunet if args.what == "faces" else args.teacher):
        parser.error("--photos needs --yunet for faces, --teacher for keypoints")
    if args.only and args.yunet:
        parser.error("--only goes without --yunet, whose head learns beside all others")
    if args.teacher and len(args.teacher) > 1 and not (args.each_view and args.what == "keypoints"):
        parser.error("several teachers go with keypoints and --each-view")
    if not args.epochs and not args.start:
        parser.error("--epochs 0 goes with --start: without either the weights would be random")
    # What would do nothing, and yet be recorded as what the weights were made by.
    unread = {
        "with faces": (args.what == "faces", "architecture align each_view augmentation repeats all_faces"),
        "with keypoints": (args.what == "keypoints", "mine yunet portraits"),
        "with --data": (args.data, "images"),
        "with --csv": (args.csv, "align repeats"),
        "with --csv and --start": (args.csv and args.start, "architecture widths blocks top_down"),
        "with --architecture baseline": (args.architecture == "baseline", "blocks top_down muon_lr"),
        "without --teacher": (not args.teacher, "taught each_view"),
    }
    for case, (given, names) in unread.items():
        for name in names.split() if given else ():
            value = getattr(args, name)
            if (tuple(value) if isinstance(value, list) else value) != parser.get_default(name):
                parser.error(f"--{name.replace('_', '-')} does nothing {case}")
    return args


if __name__ == "__main__":
    sys.exit(main())
