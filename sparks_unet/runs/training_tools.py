"""The training loop with its log, its checkpoints and its optional loggers.

Letters: B batch, D frames of a chunk, H rows, W columns.

Source: specification sections 7.3 to 7.7.
"""

import contextlib
import csv
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.device import describe_device, why_no_gpu
from common.files import InputError, atomic_path
from inputs.datasets import batch_keys
from network.architecture import build_model
from network.checkpoints import (
    checkpoint_path,
    load_network,
    load_state,
    save_checkpoint,
    save_state,
)
from network.custom_losses import drop_margins, make_loss
from network.optimizers import unmarked
from network.shared_batch import gathered_batch, share_norms
from runs.validation import validate
from settings.config import Params, logger, to_dict

DEBUG_CHUNKS = 4
LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


@dataclass(frozen=True)
class Place:
    """Where this process runs: its device, its rank and the number of processes of the run."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0


def set_up_logging(params: Params, logfile: str | Path | None = None) -> None:
    """Send the messages of the run to stderr and, when given, to ``logfile``."""
    logger.setLevel(LEVELS[params.verbosity])
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    handlers = [logging.StreamHandler(sys.stderr)]
    for path in {str(path) for path in (logfile, params.logfile) if path}:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    logger.propagate = False


def choose_device(params: Params, wanted: str = "auto") -> tuple[str, bool]:
    """Return (device name, whether flag or INI file ask for it) without touching the device."""
    has_gpu = torch.cuda.is_available()
    wanted = "cuda" if wanted == "gpu" else wanted
    if wanted == "cuda" and not has_gpu:
        raise InputError(
            f"--device cuda: no CUDA device is available ({why_no_gpu('torch')}); use --device cpu"
        )
    if wanted == "cpu" or (wanted == "auto" and not params.cuda):
        return "cpu", True
    return (f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if has_gpu else "cpu"), wanted != "auto"


def pick_place(params: Params, wanted: str = "auto", threads: int | None = None) -> Place:
    """Choose the device, set the number of CPU threads and join the other processes of torchrun."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    name, asked = choose_device(params, wanted)
    if name == "cpu" and not asked:
        logger.warning("cuda = yes, but no CUDA device is available: the CPU is used")
    if threads:
        torch.set_num_threads(threads)
    logger.info(describe_device("torch", name, asked=asked))
    logger.debug("%d CPU threads", torch.get_num_threads())
    device = torch.device(name)
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if device.type == "cuda":
            torch.cuda.set_device(device)
    return Place(device, rank, world)


def seeded_model(params: Params, device: torch.device) -> torch.nn.Module:
    """Return the network with first weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        model = build_model(params)
    model = model.to(device)
    return model.to(memory_format=torch.channels_last_3d) if params.channels_last else model


def make_optimizer(params: Params, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of the configuration."""
    kinds = {
        "adam": torch.optim.Adam,
        "adadelta": torch.optim.Adadelta,
        "sgd": torch.optim.SGD,
    }
    return unmarked(kinds[params.optimizer])(model.parameters(), lr=params.lr_start)


def make_scheduler(params: Params, optimizer: torch.optim.Optimizer) -> LRScheduler | None:
    """Return the learning rate schedule, stepped every iteration, or None."""
    if params.scheduler == "none":
        return None
    if params.scheduler == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, params.step_size, params.scheduler_gamma)
    warmup, last, low = params.warmup_iterations, params.step_size, params.scheduler_gamma

    def share(iteration):
        """Return the learning rate as a share of lr_start: linear rise, then half a cosine."""
        if iteration < warmup:
            return (iteration + 1) / warmup
        fallen = min(1.0, (iteration - warmup) / (last - warmup))
        return low + (1 - low) * (1 + math.cos(math.pi * fallen)) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def train_mode(model: torch.nn.Module, *, fixed_norms: bool) -> None:
    """Put a network into train mode; ``fixed_norms`` keeps its batch norms at their statistics."""
    model.train()
    if fixed_norms:
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.eval()


def rows_before(path: str | Path, iteration: int) -> None:
    """Keep the rows of a log whose iteration is below ``iteration``; they belong to this run."""
    path = Path(path)
    if not path.is_file():
        return
    with open(path, newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle))
    kept = [row for n, row in enumerate(rows) if n == 0 or (row and int(row[0]) < iteration)]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows(kept)


def append_row(path: str | Path, row: dict[str, object]) -> None:
    """Append one row {column: value} to a CSV log and flush it; None is an empty cell."""
    path = Path(path)
    new = not path.is_file() or path.stat().st_size == 0
    with open(path, "a", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def open_loggers(params: Params, run_dir: Path) -> list[Callable[[dict, int], None]]:
    """Return functions log({name: value}, iteration): wandb and TensorBoard when asked for."""
    loggers = []
    if params.tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("tensorboard = yes: pip install tensorboard, or say no") from None
        writer = SummaryWriter(run_dir / "summary")

        def to_tensorboard(values, iteration):
            for name, value in values.items():
                writer.add_scalar(name, value, iteration)
            writer.flush()

        loggers.append(to_tensorboard)
    if params.wandb_enable:
        try:
            import wandb
        except ImportError:
            raise InputError("wandb_enable = yes: pip install wandb, or say no") from None
        continuing = params.load_epoch and params.load_dir == params.output_dir
        session = wandb.init(
            project=params.wandb_project_name,
            name=params.run_name,
            id=params.run_name,
            notes=params.wandb_notes,
            mode=params.wandb_mode,
            dir=str(run_dir),
            config=to_dict(params),
            resume="allow" if continuing else None,
        )
        loggers.append(lambda values, iteration: session.log(values, step=iteration))
    return loggers


class TrainingRun:
    """One training run: network, optimiser, schedule, iteration, loss since the last log.

    A class, because these are saved, loaded and continued together.

    Args:
        params: Params.
        dataset: SparkDataset with augmentation.
        samples: validation recordings (list of Sample).
        place: Place.
    """

    def __init__(self, params, dataset, samples, place):
        self.params, self.dataset, self.samples, self.place = params, dataset, samples, place
        self.run_dir = params.output_dir
        self.model = seeded_model(params, place.device)
        if place.world > 1:
            share_norms(self.model)
        self.optimizer = make_optimizer(params, self.model)
        self.scheduler = make_scheduler(params, self.optimizer)
        self.iteration = 0
        self.validated_at, self.validated = -1, None  # iteration and result of the last validation
        self.loss_sum, self.loss_count = 0.0, 0
        self.mean, self.mean_count = None, 0  # of the weights since average_iteration
        weights = None if dataset is None else dataset.class_weights()
        if weights is not None:
            weights = torch.from_numpy(weights).to(place.device)
        self.loss_function = make_loss(params, weights)
        # validation runs on the CPU side of the probabilities
        self.validation_loss = make_loss(params, None if weights is None else weights.cpu())
        self.loggers = []

    def load(self, folder: Path, iteration: int) -> None:
        """Continue the run whose checkpoint ``iteration`` lies in ``folder``."""
        load_network(self.model, checkpoint_path(folder, "network", iteration))
        self._load_mean(checkpoint_path(folder, "iterate", iteration))
        for part, owner in (("optimizer", self.optimizer), ("scheduler", self.scheduler)):
            path = checkpoint_path(folder, part, iteration)
            if owner is None:
                continue
            if path.is_file():
                self._load_part(owner, path)
            else:
                logger.warning("%s is missing: a fresh %s is used", path, part)
        path = checkpoint_path(folder, "rng", iteration)
        if path.is_file():
            state = load_state(path)
            torch.set_rng_state(state["torch"])
            self.loss_sum, self.loss_count = state["loss_sum"], state["loss_count"]
        self.iteration = iteration

    def _load_mean(self, path):
        """Take the loaded network as the mean that it is; train on from the weights at ``path``."""
        if not self.params.average_iteration or not path.is_file():
            return
        state = load_state(path, self.place.device)
        self.mean = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.mean_count = state["count"]
        load_network(self.model, path)

    @staticmethod
    def _load_part(owner, path):
        try:
            # Adam counts steps on the CPU; counters on a GPU would be waited for at every step.
            owner.load_state_dict(load_state(path))
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{path}: does not fit this configuration ({error}); remove the file to start "
                "with a fresh state"
            ) from None

    def save(self) -> None:
        """Write the checkpoint of the present iteration (first process only)."""
        if not self.place.first:
            return
        states = {
            "network": self.model.state_dict() if self.mean is None else self.mean,
            "optimizer": self.optimizer.state_dict(),
            "rng": {
                "torch": torch.get_rng_state(),
                "loss_sum": self.loss_sum,
                "loss_count": self.loss_count,
            },
        }
        if self.scheduler is not None:
            states["scheduler"] = self.scheduler.state_dict()
        if self.mean is not None:
            states["iterate"] = {"network": self.model.state_dict(), "count": self.mean_count}
        save_checkpoint(self.run_dir, self.iteration, states)

    def validate(self) -> tuple[dict, list[dict]] | None:
        """Validate, write a row of metrics.csv; return (metrics, counts), None off rank 0.

        Every process predicts its share of the movies: none waits for the others longer than for
        one movie.
        """
        movies_dir = None
        if self.params.save_validation_movies:
            movies_dir = self.run_dir / "predictions"
        with self._mean_weights():
            metrics, counts = validate(
                self.model,
                self.samples,
                self.params,
                self.validation_loss,
                iteration=self.iteration,
                movies_dir=movies_dir,
                share=(self.place.rank, self.place.world),
            )
        self.validated_at = self.iteration
        if not self.place.first:
            return None
        self.validated = (metrics, counts)
        numbers = {k: v for k, v in metrics.items() if v is None or np.isscalar(v)}
        append_row(self.run_dir / "metrics.csv", {"iteration": self.iteration, **numbers})
        logger.info("validation at %d, loss %.4f", self.iteration, metrics["loss"])
        logger.info("voxels, rows truth, columns prediction: %s", metrics["confusion"])
        self._log({name: value for name, value in numbers.items() if value is not None})
        return metrics, counts

    @contextlib.contextmanager
    def _mean_weights(self):
        """Let the network have its mean weights, where there are any, then those it trains."""
        if self.mean is None:
            yield
            return
        own = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.mean)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def _add_to_mean(self):
        """Add the present weights to their mean, every iteration with the same weight."""
        if not self.params.average_iteration or self.iteration < self.params.average_iteration:
            return
        self.mean_count += 1
        state = self.model.state_dict()
        if self.mean is None:
            self.mean = {name: value.clone() for name, value in state.items()}
            return
        for name, value in state.items():
            if value.is_floating_point():
                self.mean[name].lerp_(value, 1 / self.mean_count)
            else:
                self.mean[name].copy_(value)

    def _log(self, values):
        for log in self.loggers:
            log(values, self.iteration)

    def _batches(self, last):
        """Yield the batches of iterations ``self.iteration`` .. ``last`` - 1 of this process."""
        params, place = self.params, self.place
        count = min(len(self.dataset), DEBUG_CHUNKS) if params.debug_mode else len(self.dataset)
        if min(params.batch_size, count) < place.world:
            raise InputError(
                f"[dataset] batch_size = {params.batch_size} with {count} chunks and "
                f"{place.world} processes; expected at least one chunk per process"
            )
        laws = {"seed": params.seed, "sampling": params.sampling}
        batches = (
            batch_keys(count, params.batch_size, iteration, **laws)[place.rank :: place.world]
            for iteration in range(self.iteration, last)
        )
        return DataLoader(
            self.dataset,
            batch_sampler=_Once(batches),
            num_workers=params.num_workers,
            pin_memory=place.device.type == "cuda",
            generator=torch.Generator(),  # its draws never touch the global state
        )

    def train(self, iterations: int) -> bool:
        """Run ``iterations`` iterations; save, validate and log on the way."""
        params, device = self.params, self.place.device
        last = self.iteration + iterations
        model = self.model
        if self.place.world > 1:
            model = DistributedDataParallel(model)
        if params.compile:
            model = torch.compile(model)
        bar = tqdm(
            self._batches(last),
            total=last,
            initial=self.iteration,
            desc=params.run_name,
            disable=None if self.place.first else True,
        )
        saved = validated = -1
        with bar, torch.autograd.set_detect_anomaly(params.debug_mode):
            for batch in bar:
                loss = self._step(model, batch, device)
                if not math.isfinite(loss):
                    self._stop_diverged(loss)
                self.loss_sum += loss
                self.loss_count += 1
                self._add_to_mean()
                if self.iteration % params.print_every == 0:
                    self._log_loss(bar)
                self.iteration += 1
                # saved first: an interrupted validation loses nothing
                if self.iteration % params.save_every == 0:
                    self.save()
                    saved = self.iteration
                if self.iteration % params.test_every == 0:
                    self.validate()
                    validated = self.iteration
        if saved != self.iteration:
            self.save()
        return validated == self.iteration

    def _step(self, model, batch, device):
        """Run forward, loss, backward and the optimiser on one batch; return the loss."""
        params = self.params
        x = batch["data"].to(device, non_blocking=True)
        x = x.unsqueeze(1) if x.dim() == 4 else x  # (B, C_in, D, H, W)
        if params.channels_last:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        labels = batch["labels"].to(device, non_blocking=True).long()  # (B, D, H, W)
        first_fixed = params.freeze_norm_iteration or math.inf
        train_mode(model, fixed_norms=self.iteration >= first_fixed)
        with torch.autocast(device.type, torch.bfloat16, enabled=params.amp):
            log_p = model(x)
        log_p = log_p.float()
        labels = crop_labels(labels, log_p.shape[2:])
        log_p, labels = drop_margins(log_p, labels, params.ignore_frames_loss // self._shrink)
        world = self.place.world
        if world > 1:
            log_p, labels = gathered_batch(log_p, labels)
        loss = self.loss_function(log_p, labels, self.iteration)
        self.optimizer.zero_grad(set_to_none=True)
        # gradients are averaged over processes, each of which has its share of this loss
        (loss * world).backward()
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return float(loss.detach())

    @property
    def _shrink(self):
        return 4 if self.params.temporal_reduction else 1

    def _log_loss(self, bar):
        mean = self.loss_sum / self.loss_count
        self.loss_sum, self.loss_count = 0.0, 0
        if self.place.first:
            row = {
                "iteration": self.iteration,
                "loss": f"{mean:.9g}",
                "unix_s": f"{time.time():.1f}",
            }
            append_row(self.run_dir / "loss.csv", row)
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
            self._log({"U-Net training loss": mean})

    def _stop_diverged(self, loss):
        path = self.run_dir / "network_diverged.pth"
        if self.place.first:
            save_state(path, self.model.state_dict())
        raise InputError(
            f"{self.run_dir}: loss {loss} at iteration {self.iteration}, expected a finite value; "
            f"weights in {path.name}; lower lr_start or check the movies"
        )


def crop_labels(labels: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Centre-crop labels (B, D, H, W) to the output size of a network with valid borders."""
    for axis, wanted in enumerate(size, start=1):
        labels = labels.narrow(axis, (labels.shape[axis] - wanted) // 2, wanted)
    return labels


class _Once:
    """A batch sampler over a generator that is used for one pass."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)
