"""Predict hypnograms of recordings (.mat) or tfrecords without labels.

Called by main.py --mode predict. Source: specification sections 8.1 and 13, item 1.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from analysis.evaluation import add_smoothed, prediction_table, save_mouse
from analysis.tables import write_table
from common.files import InputError, raise_faults
from inputs.dataloader_sleep import View, load_epochs
from inputs.hypnogram import Hypnogram, hypnograms_of
from inputs.preprocess import frames_of, to_frames
from inputs.recordings import Recording, find_recordings
from inputs.shards import Record
from inputs.states import MAX_SECONDS, NO_LABEL, seconds_of
from inputs.storage import Storage
from inputs.tfrecords import epochs_of
from network.forward import run_over
from network.model_attention_bilstm import AttentionBiLSTM
from runs.trained import check_shape, check_storage, storage_rules, view_of_network
from settings import Settings

log = logging.getLogger(__name__)


class RecordingEpochs:
    """Epochs of recordings, as prediction_table takes them; labels are unknown."""

    def __init__(self, records: list[Record]):
        self.records = records
        self.labels = np.full(len(records), NO_LABEL, np.int32)


def predict_recording(
    network: AttentionBiLSTM, path: Path, how: Storage, view: View, settings: Settings
) -> tuple[list[Record], np.ndarray]:
    """Return the epochs of one recording and their probabilities (N, K), computed in batches."""
    numbers, batch, parts = [], [], []

    def flush():
        probs = network.infer(np.stack(batch), settings.frame_chunk)["probs"]
        parts.append(probs.reshape(-1, view.inputs_per_epoch, probs.shape[1]).mean(axis=1))
        batch.clear()

    with Recording(path) as recording:
        for epoch, _, mask, signals in epochs_of(recording, how, labelled=False):
            batch.extend(view.frames(to_frames(signals, mask)))
            numbers.append(epoch)
            if len(batch) >= settings.batch_size * view.inputs_per_epoch:
                flush()
        if batch:
            flush()
        if not numbers:
            raise InputError(
                f"{path}: no epoch has both neighbours, which the network is trained with (--edge "
                "drop); leave this recording out"
            )
        name = recording.name
    records = [
        Record(path, 0, 0, NO_LABEL, name.date, name.mouse, name.run, e, k, 0, 0, 0, "")
        for k, e in enumerate(numbers)
    ]
    return records, np.concatenate(parts)


def check_recordings(network: AttentionBiLSTM, paths: list[Path], how: Storage, view: View) -> None:
    """Read all headers before the first hour is spent; report every recording that does not fit."""
    a, faults = network.architecture, []
    for path in paths:
        try:
            with Recording(path) as recording:
                height, width = (n // how.downsample for n in recording.shape[1:])
        except InputError as error:
            faults.append(str(error))
            continue
        frames = min(frames_of(how.seconds), a.num_frames)
        found = frames, height, width // 2 if view.hemisphere else width
        if found != (a.num_frames, a.height, a.width):
            faults.append(
                f"{path}: an input is {found} (frames, rows, columns); the network takes "
                f"{(a.num_frames, a.height, a.width)}: give recordings of the size it is trained on"
            )
    raise_faults(faults)


def storage_of_network(network: AttentionBiLSTM, data: dict) -> Storage:
    """Return how recordings are cut for ``network``: as its training data, or by its frames."""
    frames = network.architecture.num_frames
    fitting = (s for s in range(1, MAX_SECONDS + 1) if frames_of(s) >= frames)
    rules = storage_rules(data.get("storage", {})) or {"seconds": next(fitting, MAX_SECONDS)}
    return Storage(**rules)


def predict_folder(
    network: AttentionBiLSTM, data: dict, folder: Path, settings: Settings
) -> tuple[pd.DataFrame, dict[str, Hypnogram]]:
    """Return the prediction table of all recordings, or else all tfrecords, of ``folder``, and the
    time axis of every animal.

    Raises:
        InputError: nothing usable in the folder, or smoothing that needs labels.
    """
    if settings.smooth == "hmm":
        raise InputError(
            "smooth hmm needs training labels, which predict does not have: choose median or bout"
        )
    view = view_of_network(network, data)
    if any(folder.rglob("*.mat")):
        how = storage_of_network(network, data)
        paths = find_recordings(folder)
        check_recordings(network, paths, how, view)
        bar = tqdm(paths, desc="recordings", disable=None)
        found = [predict_recording(network, path, how, view, settings) for path in bar]
        epochs = RecordingEpochs([record for records, _ in found for record in records])
        probs = np.concatenate([own for _, own in found])
    else:
        check_storage(folder, data)
        epochs = load_epochs(folder, view)
        check_shape(network, epochs, folder)
        epochs.labels = np.full(len(epochs.records), NO_LABEL, np.int32)
        probs = run_over(network, epochs, settings)["probs"]
    table = prediction_table(epochs, probs, min_confidence=settings.min_confidence)
    axes = hypnograms_of(epochs.records, epochs.labels)
    return add_smoothed(table, settings.smooth, None), axes


def write_predictions(
    table: pd.DataFrame, axes: dict[str, Hypnogram], out: Path, num_frames: int
) -> None:
    """Write one CSV, .mat and hypnogram per mouse, and `predictions.csv`."""
    for mouse, part in table.groupby("mouse", sort=False):
        name = f"{mouse}_{seconds_of(num_frames):g}s"
        save_mouse(part.reset_index(drop=True), axes[mouse], out, name)
    write_table(table.drop(columns="true"), out / "predictions.csv")
    log.info("%d epochs of %d mice predicted", len(table), table["mouse"].nunique())
