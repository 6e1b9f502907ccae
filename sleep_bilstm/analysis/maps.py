"""Export Grad-CAM and occlusion maps of one or more mice: subject maps, region table, figure.

One pass over the data serves all states; only running sums and one low-resolution map per epoch
number are kept.
Source: specification sections 4.5 and 8.3.
"""

import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.atlas import (
    fit_to,
    front_back_index,
    front_back_table,
    permutation_test,
    read_atlas,
    region_table,
)
from analysis.gradcam import GradCam, upsample
from analysis.map_figures import SIGNED_LOOK, save_maps_figure
from analysis.occlusion import Z_SCORES, Occlusion, parcel_pair_masks, patch_masks
from analysis.tables import write_table
from common.files import InputError, write_json
from inputs.dataloader_sleep import Epochs, View
from inputs.feed import make_dataset
from inputs.hypnogram import places_of_mice
from inputs.mat_writer import save_mat
from inputs.shards import read_mask_of
from inputs.states import STATE_NAMES
from network.forward import fault_lines, states_of
from network.model_attention_bilstm import AttentionBiLSTM
from settings import Settings

log = logging.getLogger(__name__)
PATCH_FRACTION = 8  # patches per side of a full-size frame
LAST_LAYER = "last activation of frame_encoder"


class SubjectMaps:
    """Running sums of the maps per state, the first qualifying epoch as example, and front/back
    indices.

    Args:
        mask: (H, W) bool brain mask, with ``masks`` the union of them.
        num_classes: number of states.
        only_correct: count epochs with prediction = truth only.
        masks: (H, W) bool brain mask of every epoch, where the runs of a mouse differ.
    """

    def __init__(
        self,
        mask: np.ndarray,
        num_classes: int,
        *,
        only_correct: bool,
        masks: Sequence[np.ndarray] | None = None,
    ):
        self.mask = mask
        self.masks = masks
        self.only_correct = only_correct
        self.inside = np.zeros((num_classes, *mask.shape))  # sums over epochs that hold the pixel
        self.cover = np.zeros((num_classes, *mask.shape), int)
        self.sums = [None] * num_classes
        self.counts = [0] * num_classes
        self.examples = [None] * num_classes
        self.indices = [[] for _ in range(num_classes)]

    def add(
        self,
        maps: np.ndarray,
        frames: np.ndarray,
        labels: np.ndarray,
        predicted: np.ndarray,
        items: np.ndarray,
    ) -> None:
        """Add maps (B, h, w) of frames (B, F, H, W) with their labels, predictions and item
        numbers.
        """
        for one, movie, label, state, item in zip(
            maps, frames, labels, predicted, items, strict=True
        ):
            if self.only_correct and label != state:
                continue
            if self.sums[state] is None:
                self.sums[state] = np.zeros(one.shape)
                self.examples[state] = (int(item), np.array(movie))
            self.sums[state] += one
            self.counts[state] += 1
            full = (
                upsample(one[None], *self.mask.shape) if one.shape != self.mask.shape else one[None]
            )
            own = self.mask if self.masks is None else self.masks[int(item)]
            self.indices[state].append(float(front_back_index(full, own)[0]))
            if self.masks is not None:
                self.inside[state] += full[0] * own
                self.cover[state] += own

    def average(self, state: int) -> np.ndarray:
        """Return the subject map (H, W) of a state, NaN when no epoch qualifies.

        Resizing is linear, so the average is taken at low resolution and resized once. A pixel that
        only some runs have inside their mask is averaged over the epochs of those.
        """
        if not self.counts[state]:
            return np.full(self.mask.shape, np.nan)
        mean = self.sums[state] / self.counts[state]
        mean = mean if mean.shape == self.mask.shape else upsample(mean, *self.mask.shape)
        partly = (self.cover[state] > 0) & (self.cover[state] < self.counts[state])
        mean[partly] = self.inside[state][partly] / self.cover[state][partly]
        return mean


def masks_of(epochs: Epochs) -> tuple[np.ndarray, list[np.ndarray] | None]:
    """Return the union (H, W) of the brain masks of all runs, as the network sees them, and the
    mask of every epoch where runs differ.
    """
    by_file = {record.path: record for record in reversed(epochs.records)}
    runs = {(r.date, r.mouse, r.run): r for r in by_file.values()}
    own = {key: seen(read_mask_of(record), epochs.view) for key, record in runs.items()}
    every = list(own.values())
    union = np.any(every, axis=0)
    if all(np.array_equal(union, one) for one in every):
        return union, None
    return union, [own[r.date, r.mouse, r.run] for r in epochs.records]


def collect(
    method: GradCam | Occlusion,
    epochs: Epochs,
    mask: np.ndarray,
    settings: Settings,
    masks: list[np.ndarray] | None = None,
) -> SubjectMaps:
    """Run ``method`` over all epochs in one pass; ``mask`` and ``masks`` as of masks_of."""
    subject = SubjectMaps(
        mask, epochs.view.num_classes, only_correct=settings.only_correct, masks=masks
    )
    dataset = make_dataset(
        epochs, np.arange(len(epochs)), settings.batch_size, workers=settings.workers
    )
    done = 0
    for batch, labels in fault_lines(dataset):
        frames = batch.numpy()[..., 0]
        maps, probs = method(frames)
        items = np.arange(done, done + len(frames)) // epochs.view.inputs_per_epoch
        subject.add(maps, frames, labels.numpy(), states_of(probs), items)
        done += len(frames)
    return subject


def save_subject(
    subject: SubjectMaps,
    epochs: Epochs,
    mouse: str,
    out: Path,
    about: dict,
    states: Sequence[int],
) -> dict[str, np.ndarray]:
    """Write one .mat per state and return the maps by state name."""
    hemis = "_hemis" if epochs.view.hemisphere else ""
    frames, height, width = epochs.shape
    maps = {}
    for state in states:
        name = STATE_NAMES[epochs.view.num_classes][state]
        maps[name] = subject.average(state)
        item, movie = subject.examples[state] or (
            None,
            np.full((frames, height, width), np.nan, np.float32),
        )
        if not subject.counts[state]:
            log.info("mouse %s: no epoch of %s qualifies; its map is NaN", mouse, name)
        save_mat(
            out / f"{mouse}_avg{hemis}_label{state}.mat",
            {
                "subject_avg_gradcam": maps[name],
                "example_data": movie,
                "n_epochs": subject.counts[state],
                "num_classes": epochs.view.num_classes,
                "example_epoch": -1 if item is None else epochs.records[item].epoch,
                **about,
            },
        )
    return maps


def seen(image: np.ndarray, view: View) -> np.ndarray:
    """Return the part (H, W) of an image of the whole frame that the network sees."""
    return view.frames(image[None].repeat(view.num_frames, 0))[0][0]


def occlusion_masks(
    epochs: Epochs, settings: Settings, parcels: np.ndarray | None
) -> tuple[np.ndarray, str]:
    """Return the masks (n, H, W) bool of what is hidden in turn, and their description."""
    if settings.occlusion_parcels:
        if parcels is None:
            raise InputError("occlusion_parcels needs --atlas AtlasandIsbrain.mat")
        return parcel_pair_masks(parcels), "pairs of atlas parcels"
    patch = settings.occlusion_patch or max(1, epochs.shape[1] // PATCH_FRACTION)
    return patch_masks(*epochs.shape[1:], patch), f"input patches of {patch} x {patch} pixels"


def method_of(
    network: AttentionBiLSTM,
    epochs: Epochs,
    settings: Settings,
    parcels: np.ndarray | None,
    normalization: str,
) -> tuple[GradCam | Occlusion, dict, dict]:
    """Return the kind of map that the mode asks for, what the files say of it, and its look."""
    if settings.mode == "occlusion":
        masks, layer = occlusion_masks(epochs, settings, parcels)
        method = Occlusion(
            network, masks, frame_chunk=settings.frame_chunk, normalization=normalization
        )
        hidden = "0" if normalization in Z_SCORES else "the mean of the epoch inside the brain"
        about = {"method": "occlusion", "layer": layer, "hidden_with": hidden}
        return method, about, SIGNED_LOOK
    method = GradCam(
        network,
        method=settings.gradcam_method,
        target=settings.gradcam_target,
        frame_chunk=settings.frame_chunk,
    )
    return method, {"method": f"{method.method} on {method.target}", "layer": LAST_LAYER}, {}


def front_back_tests(subject: SubjectMaps, names: tuple[str, ...], states: Sequence[int]) -> dict:
    """Return index and number of epochs per state, and the permutation test of every pair."""
    return {
        "front_back_index": {
            names[s]: float(np.mean(subject.indices[s])) if subject.counts[s] else None
            for s in states
        },
        "n_epochs": {names[s]: subject.counts[s] for s in states},
        "permutation_test": {
            f"{names[a]} - {names[b]}": permutation_test(
                np.array(subject.indices[a]), np.array(subject.indices[b])
            )
            for a, b in combinations(states, 2)
        },
    }


def map_rows(results: dict[str, dict]) -> pd.DataFrame:
    """Return the maps as a table, one row per mouse, state and row of pixels."""
    return pd.DataFrame(
        [
            {
                "mouse": mouse,
                "state": state,
                "row": row,
                **{f"column{c}": v for c, v in enumerate(values)},
            }
            for mouse, maps in results.items()
            for state, value in maps.items()
            for row, values in enumerate(value)
        ]
    )


def export_maps(
    network: AttentionBiLSTM,
    epochs: Epochs,
    out: Path,
    settings: Settings,
    normalization: str = "temporal",
) -> dict[str, dict]:
    """Write maps, figure, region table and front/back test of every mouse in ``epochs``.

    Occlusion depends on the ``normalization`` of the frames.

    Returns:
        mouse -> state name -> subject map (H, W).
    """
    atlas = read_atlas(Path(settings.atlas)) if settings.atlas else None
    first = epochs.records[0]
    parcels = atlas and seen(fit_to(atlas.parcels, first.height, first.width), epochs.view)
    method, about, look = method_of(network, epochs, settings, parcels, normalization)
    about["stage"] = "first: single epochs"
    names = STATE_NAMES[epochs.view.num_classes]
    last = len(names) - 1
    states = (
        range(len(names)) if settings.gradcam_label < 0 else [min(settings.gradcam_label, last)]
    )
    # Differs: the maps of all mice lie in maps/, apart from the figure and the tables.
    folder, results, backgrounds, tests = out / "maps", {}, {}, {}
    tables, halves = [], []
    for mouse, places in places_of_mice(epochs.records).items():
        own = Epochs([epochs.records[i] for i in places], epochs.view)
        mask, masks = masks_of(own)
        subject = collect(method, own, mask, settings, masks)
        results[mouse] = save_subject(subject, own, mouse, folder, about, states)
        examples = ((names[s], subject.examples[s]) for s in states)
        backgrounds[mouse] = {name: example and example[1] for name, example in examples}
        halves.append(front_back_table(results[mouse], mask).assign(mouse=mouse))
        if atlas is not None:
            table = region_table(results[mouse], parcels, atlas.names, mask)
            tables.append(table.assign(mouse=mouse))
        tests[mouse] = front_back_tests(subject, names, states)
    write_json(out / "front_back.json", {**about, "mice": tests})
    write_table(pd.concat(halves, ignore_index=True), out / "front_back.csv")
    picture = out / f"{settings.mode}.png"
    save_maps_figure(results, backgrounds, picture, map_rows(results), **look)
    if tables:
        write_table(pd.concat(tables, ignore_index=True), out / "regions.csv")
    return results
