"""The training run: data, model, loop, bounds, checkpoints, resume (specification 7 and 4.3)."""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch.nn import functional
from tqdm import tqdm

from analysis.metrics import COLUMNS, score_rows, told, unanswered
from common.device import why_no_gpu
from common.files import InputError, atomic_path, git_commit, write_json, write_settings
from common.locks import hold
from common.tables import read_rows, write_rows
from inputs.ca_dataloader import CalciumDataset, EpochOrder, make_loader
from inputs.dealing import DealtOrder
from inputs.safe_load import load_tree
from network.checkpoints import (
    checkpoint_epochs,
    load_history,
    load_read_outs,
    load_trunk,
    model_from_config,
    read_config,
    save_checkpoint,
    save_history,
)
from network.model_factory import read_out_blocks
from network.models import STCNN, batch_loss
from network.positions import sample_moved
from network.temporal import route_for
from runs.configuration import check_ranges
from runs.continuing import (
    DEALT,
    check_same_data,
    check_same_labels,
    new_run_dir,
    resume_settings,
)
from runs.data import draws_per_epoch, open_dataset, split_of
from runs.positions import (
    add_jitter,
    anchors_of,
    entries_of,
    jitters,
    learned_offsets,
    make_optimiser,
    rest_of,
    sampled_of,
    start_gains,
    write_neurons,
)
from runs.processes import Place, check_batches, join

log = logging.getLogger(__name__)
DEAD_ACTIVITY_SD = 1e-3  # below it a read-out's indicator no longer follows the stimulus (D7)
LIBRARIES = ("torch", "hydra-core", "omegaconf", "numpy", "scipy", "safetensors")


def pick_device(wish: str) -> torch.device:
    """Return the torch device for auto, cpu, gpu or cuda."""
    if wish not in ("auto", "cpu", "gpu", "cuda"):
        raise InputError(f"device={wish}: expected auto, cpu, gpu or cuda")
    wish = "cuda" if wish == "gpu" else wish
    if wish == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device=cuda: no CUDA device found ({why_no_gpu('torch')}); use device=cpu or auto"
        )
    return torch.device("cpu" if wish == "cpu" or not torch.cuda.is_available() else "cuda")


def bounds_of(clip_param: dict) -> list[tuple]:
    """Return [(substring, low, high)] from the clip_param block; None is unbounded."""
    return [(rule["name"], rule["min"], rule["max"]) for rule in clip_param.values()]


@torch.no_grad()
def clip_parameters(model: torch.nn.Module, rules: list[tuple]) -> None:
    """Keep parameters inside their bounds: the first rule whose substring the name contains."""
    for name, parameter in model.named_parameters():
        for pattern, low, high in rules:
            if pattern in name:
                parameter.clamp_(low, high)
                break


def model_settings(settings: dict, dataset: CalciumDataset) -> dict:
    """Return the contents of config.json (without the run's path) for a data set."""
    model = settings["model"]
    lobula, defaulted = read_out_blocks(model, dataset.cell_types)
    for name in defaulted:
        log.warning("cell type %s: no read-out block of its own, readout_default is used", name)
    counts = [len(dataset.neuron_uids[name]) for name in dataset.cell_types]
    return {
        "pr_config": model["pr"],
        "network_config": model["network"],
        "L_config": {**lobula, "lc_count": counts},
        "ca_config": {**model["ca"], "cell_types": dataset.cell_types, "cell_count": counts},
        "data_count": dataset.data_count,
        "sampling_rate": settings["dataset"]["sampling_rate"],
        "dataset_config": settings["dataset"],
        "field": list(dataset.display.field),
        "display": dataset.display.record(),
        "readout": settings["readout"],
        "init": settings["init"],
        "prepad": settings["prepad"],
        "position": settings["position"],
        "position_sd": settings["position_sd"],
        "seed": settings["seed"],
        "labels": DEALT if settings["shuffle_labels"] else "own",
        "neuron_uids": dataset.neuron_uids,
    }


def train(
    settings: dict,
    *,
    explicit: Iterable[str] = (),
    run_dir: Path | None = None,
    score_training: bool = True,
) -> Path:
    """Train a model and return its run folder.

    Args:
        settings: the resolved configuration as a plain dict (conf/config.yaml).
        explicit: keys given on the command line, checked when resuming.
        run_dir: folder for the run; default a new dated one below expt_path.
        score_training: score the training items as well as the held-out ones.
    """
    resuming, old = settings["resume"] is not None, {}
    if resuming:
        run_dir = Path(settings["resume"])
        if (run_dir / "settings.json").is_file():  # nothing is locked, or made, elsewhere
            hold(run_dir)
        settings = resume_settings(run_dir, settings, explicit)
        old = read_config(run_dir / "config.json")
    check_ranges(settings)
    place = join(pick_device(settings["device"]))
    dataset = open_dataset(
        settings,
        lc_types=old["L_config"]["lc_types"] if old else None,
        neuron_uids=old.get("neuron_uids"),
    )
    log.info("%s", dataset.display.describe())
    if resuming:
        check_same_data(run_dir, dataset.digests)
        check_same_labels(run_dir, settings, old)
    config = model_settings(settings, dataset)
    impl = route_for(settings["temporal_impl"], place.device)
    model = model_from_config(config, impl=impl, seed=settings["seed"])
    if settings["trunk"]:
        load_trunk(model, settings["trunk"])
        model.freeze_trunk()
    if settings["read_outs"] == "kept":
        load_read_outs(model, settings["trunk"])
        model.freeze_read_outs()
    model.norm_skip_frames = settings["norm_skip_frames"]
    rows, val_rows = split_of(settings, dataset)
    if not resuming:
        if place.first:
            run_dir = begun(settings, run_dir, dataset, config)
        run_dir = place.agreed(run_dir)
    new = {dataset.items[row].uid for row in val_rows} - {dataset.items[row].uid for row in rows}
    if new:
        log.info("%d neurons have no training data: their gain and offset are fitted on every "
                 "second of their stimuli, the others are scored", len(new))  # fmt: skip
    parts = {"run_dir": run_dir, "rows": rows, "val_rows": val_rows}
    fit(model.to(place.device), dataset, settings, place=place, **parts)
    if place.first:
        scored = score_training or not val_rows
        write_scores(model, dataset, run_dir, rows=rows, val_rows=val_rows, score_training=scored)
    return place.agreed(run_dir)  # nobody leaves before the first has written


def begun(settings: dict, run_dir: Path | None, dataset: CalciumDataset, config: dict) -> Path:
    """Make the folder of a new run, with settings.json and config.json, and return it."""
    run_dir = Path(run_dir) if run_dir else new_run_dir(settings)
    hold(run_dir)
    write_settings(run_dir, settings, inputs=dataset.digests, libraries=LIBRARIES)
    record = {"versions": {name: version(name) for name in LIBRARIES}, "git": git_commit()}
    write_json(run_dir / "config.json", {"experiment_path": str(run_dir), **config, **record})
    return run_dir


def fit(
    model: STCNN,
    dataset: CalciumDataset,
    settings: dict,
    *,
    run_dir: Path,
    rows: Sequence[int],
    val_rows: Sequence[int],
    place: Place | None = None,
) -> None:
    """Run the epochs that are left, from the last checkpoint in ``run_dir`` when there is one."""
    device = next(model.parameters()).device
    place = place or Place(device)
    model.shared = place.world > 1
    show_through(dataset, model)
    drawn = {
        "seed": settings["seed"],
        "shuffle": settings["shuffle_dataset"],
        "repeats": draws_per_epoch(dataset, rows, settings["oversample"]),
    }
    if settings["shuffle_labels"]:
        order = DealtOrder(rows, items=dataset.items, **drawn)
    else:
        order = EpochOrder(rows, **drawn)
    loader = make_loader(
        entries_of(model, dataset),
        order,
        batch_size=settings["batch_size"],
        num_workers=settings["num_workers"],
        pin=device.type == "cuda",
    )
    check_batches(place, len(order), settings["batch_size"])
    optimiser = make_optimiser(model, settings)
    anchors = anchors_of(model, dataset, rows)
    rules = bounds_of(settings["clip_param"])
    done, history, epochs = restore(run_dir, model, optimiser)
    place.agreed()  # all have looked before the first writes
    if done is None:
        done = 0
        if settings["read_outs"] == "kept":
            start_gains(model, dataset, rows)
        if place.first:
            save_checkpoint(run_dir, 0, model, optimiser)
    elif done < settings["n_epochs"]:
        log.info("resuming after epoch %d of %d", done, settings["n_epochs"])
    steps = len(loader) * settings["n_epochs"]
    seen = {dataset.items[row].uid for row in rows}
    quality = Quality(run_dir, settings, done=done)
    for epoch in range(done + 1, settings["n_epochs"] + 1):
        start, liveliness = time.monotonic(), {}
        order.epoch = epoch
        model.train()
        draws = jitters(settings["seed"], epoch)
        quiet = None if place.first else True
        bar = tqdm(loader, desc=f"epoch {epoch}/{settings['n_epochs']}", disable=quiet, leave=False)
        for i, batch in enumerate(bar):
            rate = learning_rate(settings, (epoch - 1) * len(loader) + i, steps)
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("scale", 1.0)
            add_jitter(batch, draws)
            losses, spread = train_step(model, batch, optimiser, settings, place)
            clip_parameters(model, rules)
            if model.positions is not None:
                model.positions.keep_in_bounds(anchors)
            for name, value in losses.items():
                history[name].append(value)
                epochs[name].append(epoch)
                liveliness[name] = max(liveliness.get(name, 0.0), spread[name])
            if (i + 1) % settings["print_freq"] == 0:
                last = ", ".join(
                    f"{name} {values[-1]:.4g}" for name, values in history.items() if values
                )
                log.info("epoch %d iteration %d: %s", epoch, i + 1, last)
        say_dead(liveliness)
        stop = False
        if place.first:
            save_history(run_dir, history, epochs)
            scores = {}
            if val_rows:
                show_through(dataset, model)
                scores, _ = score_rows(model, dataset, val_rows, device=device, seen=seen)
            seconds = time.monotonic() - start
            stop = quality.log_epoch(epoch, model, history, epochs, scores, seconds)
            save_checkpoint(run_dir, epoch, model, optimiser)
        if place.agreed(stop):
            log.info("no better validation loss for %s epochs: stopped", settings["early_stop"])
            break
    model.eval()


def learning_rate(settings: dict, step: int, steps: int) -> float:
    """Return the rate of step ``step`` of ``steps``: warm-up, then as lr_decay says."""
    rate = settings["lr"] * min(1.0, (step + 1) / max(settings["lr_warmup"], 1))
    if settings["lr_decay"] == "cosine":
        rate *= 0.5 * (1.0 + math.cos(math.pi * step / steps))
    return rate


def say_dead(liveliness: dict[str, float]) -> None:
    """Warn of the types whose indicator no longer follows any stimulus, {type: largest sd}."""
    for name, value in liveliness.items():
        if value < DEAD_ACTIVITY_SD:
            log.warning(
                "%s: the read-out is dead (activity sd %.1e); restart with init=fast or a lower lr",
                name, value,
            )  # fmt: skip


def train_step(
    model: STCNN,
    batch: dict,
    optimiser: torch.optim.Optimizer,
    settings: dict,
    place: Place | None = None,
) -> tuple[dict, dict]:
    """Do one step; return ({type: loss}, {type: sd of the indicator's activity}).

    Several processes load the same batch; each computes its share, the loss is that of the whole.
    """
    device = next(model.parameters()).device
    place = place or Place(device)
    types, neurons = batch["lc_type"], batch["neuron_num"][:, 0]
    recorded, scored = (batch[key].to(device, non_blocking=True) for key in ("ca_trace", "scored"))
    half = settings["mixed_precision"] and device.type == "cuda"
    with torch.autograd.set_detect_anomaly(settings["detect_anomaly"]):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            if place.world == 1:
                sampled = sampled_of(model, batch, slice(None), device)
                predicted = model.predict_items(sampled, types, neurons)
            else:
                own = place.share(len(types))
                kinds = [types[i] for i in own.tolist()]
                sampled = sampled_of(model, batch, own, device)
                predicted = model.predict_items(sampled, kinds, neurons[own])
                predicted = place.whole(predicted, len(types))
        total, losses = batch_loss(predicted.float(), recorded, scored, types)
        if not torch.isfinite(total):
            shown = ", ".join(
                f"{kind} vstim_{int(code)}"
                for kind, code in zip(types, batch["vstim_barcode"], strict=True)
            )
            raise InputError(
                f"the loss is {float(total.detach())} on the batch of {shown}: training stops, "
                "the last checkpoint is untouched; lower lr or look at these traces"
            )
        optimiser.zero_grad()
        total.backward()
        place.sum_gradients(model)
    if settings["clip_max_norm"] is not None:
        torch.nn.utils.clip_grad_norm_(rest_of(model), settings["clip_max_norm"])
    optimiser.step()
    return read_losses(model, losses, predicted.detach(), types, neurons)


@torch.no_grad()
def read_losses(
    model: STCNN, losses: dict, predicted: torch.Tensor, types: Sequence[str], neurons: torch.Tensor
) -> tuple[dict, dict]:
    """Return ({type: loss}, {type: sd of the indicator's activity}) as numbers, after one wait."""
    gains = torch.stack([
        functional.softplus(model.calcium_of(kind)["beta"][neuron])
        for kind, neuron in zip(types, neurons.tolist(), strict=True)
    ])  # fmt: skip
    moved = predicted.float().std(dim=1) / gains
    numbers = torch.cat([moved, torch.stack([loss.detach() for loss in losses.values()])]).tolist()
    spread = {}
    for kind, sd in zip(types, numbers, strict=False):
        spread[kind] = max(spread.get(kind, 0.0), sd)
    return dict(zip(losses, numbers[len(types) :], strict=True)), spread


def restore(
    run_dir: Path, model: STCNN, optimiser: torch.optim.Optimizer
) -> tuple[int | None, dict, dict]:
    """Load the last checkpoint; return (epoch or None, history, epochs per entry)."""
    history = {name: [] for name in model.cell_types}
    epochs = {name: [] for name in model.cell_types}
    checkpoints = {
        e: path for e, path in checkpoint_epochs(run_dir).items() if path.suffix == ".pt"
    }
    if not checkpoints:
        return None, history, epochs
    done = max(checkpoints)
    tree = load_tree(checkpoints[done])
    model.load_state_dict(tree["model"])
    optimiser.load_state_dict(tree["optim"])
    if done:
        old, old_epochs = load_history(run_dir)
        for name in model.cell_types:
            # An interrupted epoch may have left entries; they are repeated, so they are dropped.
            keep = [i for i, epoch in enumerate(old_epochs[name]) if epoch <= done]
            history[name] = [old[name][i] for i in keep]
            epochs[name] = [old_epochs[name][i] for i in keep]
    log.info("going on after epoch %d of %s", done, run_dir)
    return done, history, epochs


class Quality:
    """log.csv of a run, its best checkpoint and its early stop."""

    def __init__(self, run_dir, settings, *, done=0):
        """Go on after epoch ``done``: the best one so far is read from log.csv."""
        self.path, self.settings = Path(run_dir) / "log.csv", settings
        self.best, self.since = math.inf, 0
        for row in self._rows(done + 1):
            losses = [v for k, v in row.items() if k.startswith("val_") and k.endswith("_mse")]
            if any(losses):
                self._count(sum(float(value) for value in losses if value))

    def log_epoch(
        self,
        epoch: int,
        model: STCNN,
        history: dict[str, list[float]],
        epochs: dict[str, list[int]],
        scores: dict,
        seconds: float,
    ) -> bool:
        """Append the epoch's row; return True when training should stop early."""
        row = {"epoch": epoch, "seconds": round(seconds, 3)}
        for name in model.cell_types:
            values = [v for v, e in zip(history[name], epochs[name], strict=True) if e == epoch]
            row[f"loss_{name}"] = float(np.mean(values)) if values else ""
        for name in model.cell_types if scores else ():
            row |= {f"val_{name}_{key}": scores.get(name, {}).get(key, "") for key in COLUMNS}
        self._rewrite(row)
        if not scores:
            return False
        best = self._count(sum(entry["mse"] for entry in scores.values()))
        if best and self.settings["keep_best"]:
            with atomic_path(self.path.with_name("best.safetensors")) as temporary:
                state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
                temporary.write_bytes(save(state))
        limit = self.settings["early_stop"]
        return limit is not None and self.since >= limit

    def _count(self, loss):
        """Take in the validation loss of an epoch; return whether it is the best so far."""
        better = loss < self.best
        self.best, self.since = (loss, 0) if better else (self.best, self.since + 1)
        return better

    def _rows(self, epoch):
        """Return the rows before ``epoch``."""
        if not self.path.is_file():
            return []
        return [old for old in read_rows(self.path, ["epoch"]) if int(old["epoch"]) < epoch]

    def _rewrite(self, row):
        """Write all rows before this epoch and this one, so that a repeated epoch has one row."""
        write_rows(self.path, [*self._rows(row["epoch"]), row])


def write_scores(
    model: STCNN,
    dataset: CalciumDataset,
    run_dir: Path,
    *,
    rows: Sequence[int],
    val_rows: Sequence[int],
    score_training: bool = True,
) -> None:
    """Write scores.csv (type by score, training and held-out) and items.csv (one line an item)."""
    device = next(model.parameters()).device
    show_through(dataset, model)
    seen = {dataset.items[row].uid for row in rows}
    summary, table = [], []
    for part, chosen in (("training", rows if score_training else []), ("held_out", val_rows)):
        if not chosen:
            continue
        scores, items = score_rows(model, dataset, chosen, device=device, seen=seen)
        if unanswered(scores):
            log.warning(
                "%s, %s: what trials share is within the noise: normalised scores are left empty",
                part.replace("_", " "), ", ".join(unanswered(scores)),
            )  # fmt: skip
        summary += [
            {"part": part, "cell_type": name, **told(values)} for name, values in scores.items()
        ]
        table += [{"part": part, **entry} for entry in items]
    write_rows(Path(run_dir) / "scores.csv", summary)
    write_rows(Path(run_dir) / "items.csv", table)
    if model.positions is not None:
        write_neurons(model, dataset, run_dir, rows=rows)


def sampler_of(model: STCNN) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that samples contrast frames with the model's lens, on the CPU."""
    lens = copy.deepcopy(model.pr).cpu()
    return torch.no_grad()(lens.sample)


def show_through(dataset: CalciumDataset, model: STCNN) -> None:
    """Show the items of ``dataset`` through the model's lens, from the places it has learned."""
    dataset.sample = sampler_of(model)
    if model.positions is not None:
        lens = copy.deepcopy(model.pr).cpu()

        @torch.no_grad()
        def sample_at(contrast, shift):
            return sample_moved(lens, contrast[None], torch.tensor([shift]))[0]

        dataset.move(learned_offsets(model), sample_at)
