"""Learned places in a training: their optimiser, what a step sees, their bounds, neurons.csv."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from analysis.metrics import fit_gain, predict_rows
from common.tables import write_rows
from inputs.ca_dataloader import CalciumDataset
from inputs.places import Unmoved, recorded_places
from network.adam import Adam
from network.models import STCNN
from network.positions import pixels_of, sample_moved

log = logging.getLogger(__name__)
LEAST_GAIN = 0.1  # of the ratio of sizes, recorded to predicted, at the start


def make_optimiser(model: STCNN, settings: dict) -> Adam:
    """Return the optimiser of a training; learned places have a rate of their own."""
    if model.positions is None:
        return Adam(model.parameters(), lr=settings["lr"])
    scale = settings["position_lr"] / settings["lr"]
    groups = [{"params": rest_of(model)}, {"params": list(model.positions.parameters()),
                                           "scale": scale}]  # fmt: skip
    return Adam(groups, lr=settings["lr"])


def rest_of(model: STCNN) -> list[torch.nn.Parameter]:
    """Return the parameters of the network itself, without the places."""
    return [value for name, value in model.named_parameters() if not name.startswith("positions.")]


def entries_of(model: STCNN, dataset: CalciumDataset) -> CalciumDataset | Unmoved:
    """Return what a training loads: sampled stimuli, or movies while places are learned."""
    return dataset if model.positions is None else Unmoved(dataset)


def jitters(seed: int, epoch: int) -> np.random.Generator:
    """Return the generator of an epoch's draws around the places, a function of both."""
    return np.random.default_rng([seed, 2, epoch])


def add_jitter(batch: dict, generator: np.random.Generator) -> None:
    """Add ``jitter`` (B, 2) to a batch of unmoved movies: how far from its mean each is drawn."""
    if "movie" in batch:
        drawn = generator.standard_normal((len(batch["movie"]), 2))
        batch["jitter"] = torch.from_numpy(drawn).float()


def sampled_of(
    model: STCNN, batch: dict, rows: slice | torch.Tensor, device: torch.device
) -> torch.Tensor:
    """Return the sampled stimuli (B, T, 1, H, W) of a batch's ``rows``, from drawn places."""
    if model.positions is None:
        return batch["sampled"][rows].to(device, non_blocking=True)
    kinds, neurons = batch["lc_type"], batch["neuron_num"][:, 0]
    drawn = model.positions.draw(kinds, neurons, batch["jitter"].to(device))
    place = (batch["place_deg"].to(device) + drawn)[rows]
    movie = batch["movie"][rows].to(device, non_blocking=True)
    shift = pixels_of(place, model.display.deg_per_px)
    return sample_moved(model.pr, movie, shift)[:, :, None]


def anchors_of(model: STCNN, dataset: CalciumDataset, rows: Sequence[int]) -> dict[str, list[int]]:
    """Return {type: numbers of its neurons in ``rows``} where the type's read-out trains."""
    anchors = {}
    for row in rows:
        item = dataset.items[row]
        if model.read_out_of(item.cell_type).x_weight.requires_grad:
            anchors.setdefault(item.cell_type, set()).add(item.neuron_num)
    alone = [kind for kind, neurons in anchors.items() if len(neurons) == 1]
    if model.positions is not None and alone:
        log.warning(
            "%s: one neuron, whose read-out trains and can look aside itself: its place stays that "
            "of the file", ", ".join(alone),
        )  # fmt: skip
    return {kind: sorted(neurons) for kind, neurons in anchors.items()}


@torch.no_grad()
def start_gains(model: STCNN, dataset: CalciumDataset, rows: Sequence[int]) -> None:
    """Start gains and offsets of neurons on kept read-outs where they leave least.

    The activity of a read-out that is not trained may be a thousand times what a drawn gain fits.
    A neuron that follows nothing yet, its place being wrong, starts at a tenth of its own size.
    """
    device = next(model.parameters()).device
    own = {}
    for row, curve in zip(rows, predict_rows(model, dataset, rows, device=device), strict=True):
        item = dataset.items[row]
        frames = dataset.scored(item)
        pairs = own.setdefault((item.cell_type, item.neuron_num), [])
        pairs.append((dataset.trace(item).numpy()[frames], curve[frames]))
    for (kind, neuron), pairs in own.items():
        recorded, predicted = (np.concatenate(part) for part in zip(*pairs, strict=True))
        calcium = model.calcium_of(kind)
        raw, offset = calcium["beta"][neuron], calcium["alpha"][neuron]
        least = LEAST_GAIN * float(recorded.std()) / max(float(predicted.std()), 1e-12)
        factor = max(fit_gain(recorded, predicted)[0], least)
        gain = max(factor * float(functional.softplus(raw)), 1e-12)
        raw.fill_(gain + math.log(-math.expm1(-gain)))  # softplus of it is the gain
        level = factor * (float(predicted.astype(np.float64).mean()) - float(offset))
        offset.fill_(float(recorded.mean()) - level)


def learned_offsets(model: STCNN) -> dict[tuple[str, int], tuple[float, float]]:
    """Return {(cell type, uid): learned (azimuth, elevation), degrees beyond the file's}."""
    offsets = {}
    for kind, uids in model.neuron_uids.items():
        rows = model.positions.of(kind)["moved"].detach().cpu().double().tolist()
        offsets |= {(kind, uid): tuple(row) for uid, row in zip(uids, rows, strict=True)}
    return offsets


@torch.no_grad()
def write_neurons(
    model: STCNN, dataset: CalciumDataset, run_dir: Path, *, rows: Sequence[int]
) -> None:
    """Write neurons.csv: recorded and learned place, spread, gain, offset of every neuron.

    Degrees; ``recorded`` columns are empty where the file does not say, and means where it says
    another place for another stimulus (``azimuth_deg`` and ``elevation_deg`` then as well).
    ``items`` counts the training items: with none, the place is that of the file.
    """
    counts, table = {}, []
    for row in rows:
        item = dataset.items[row]
        counts[item.cell_type, item.uid] = counts.get((item.cell_type, item.uid), 0) + 1
    recorded = recorded_places(dataset)
    for (kind, uid), moved in learned_offsets(model).items():
        if (kind, uid) not in recorded:
            continue
        number = model.neuron_uids[kind].index(uid)
        entry, calcium = model.positions.of(kind), model.calcium_of(kind)
        known = [float(np.mean(values)) for values in zip(*recorded[kind, uid], strict=True)]
        place = [(0.0 if math.isnan(at) else at) + by for at, by in zip(known, moved, strict=True)]
        told = ["" if math.isnan(at) else round(at, 4) for at in known]
        table.append({
            "cell_type": kind, "uid": uid, "items": counts.get((kind, uid), 0),
            "azimuth_recorded_deg": told[0], "elevation_recorded_deg": told[1],
            "azimuth_deg": round(place[0], 4), "elevation_deg": round(place[1], 4),
            "spread_deg": round(float(entry["log_sd"][number].exp()), 4),
            "gain": float(functional.softplus(calcium["beta"][number])),
            "offset": float(calcium["alpha"][number]),
        })  # fmt: skip
    write_rows(Path(run_dir) / "neurons.csv", table)
