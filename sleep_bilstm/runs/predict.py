"""Predict hypnograms of recordings (.mat) or tfrecords without labels.

Called by main.py --mode predict. Source: specification sections 8.1 and 13, item 1.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import delayed
from tqdm import tqdm

from analysis.evaluation import add_smoothed, prediction_table, save_mouse, without_evidence
from analysis.evidence import Usual, flags_of, missing_share, quality_features
from analysis.maps import seen
from analysis.tables import write_table
from common.cluster import run_jobs
from common.files import InputError, raise_faults
from inputs.dataloader_sleep import Epochs, View, load_epochs
from inputs.hypnogram import Hypnogram, hypnograms_of
from inputs.names import files_below, find_recordings, parse_name
from inputs.preprocess import frames_of, to_frames
from inputs.recordings import Recording
from inputs.shards import Record, read_mask_of
from inputs.states import EPOCH_S, MAX_SECONDS, NO_LABEL, seconds_of
from inputs.storage import Storage
from inputs.tfrecords import epochs_of
from network.context import ContextNet, keys_of, output_keys, vectors_of
from network.forward import run_over
from network.model_attention_bilstm import AttentionBiLSTM
from runs.adapt import Adaptation
from runs.setup import choose_device, run_folder
from runs.trained import check_shape, check_storage, load_network, storage_rules, view_of_network
from settings import Settings

log = logging.getLogger(__name__)


class RecordingEpochs:
    """Epochs of recordings, as prediction_table takes them; labels are unknown."""

    def __init__(self, records: list[Record], view: View):
        self.records = records
        self.view = view
        self.labels = np.full(len(records), NO_LABEL, np.int32)


def predict_recording(
    network: AttentionBiLSTM, path: Path, how: Storage, view: View, settings: Settings
) -> tuple[list[Record], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the epochs of one recording, their probabilities (N, K), computed in batches, the
    vectors (N, V) that a second stage sees, the share of missing values (N,) and the features (N,
    D) that tell artifacts.
    """
    numbers, batch, parts, vectors, missing, features = [], [], [], [], [], []

    def flush():
        outputs = network.infer(np.stack(batch), settings.frame_chunk)
        for held, values in ((parts, outputs["probs"]), (vectors, vectors_of(outputs))):
            held.append(values.reshape(-1, view.inputs_per_epoch, values.shape[1]).mean(axis=1))
        batch.clear()

    with open_unscored(path, settings) as recording:
        for epoch, _, mask, signals in epochs_of(recording, how, labelled=False):
            inputs = view.frames(to_frames(signals, mask))
            batch.extend(inputs)
            numbers.append(epoch)
            missing.append(missing_share(inputs[0], seen(mask, view)))
            features.append(quality_features(inputs[0]))
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
    arrays = np.concatenate(parts), np.concatenate(vectors), np.array(missing), np.stack(features)
    return records, *arrays


def predict_far(
    given: tuple[dict, frozenset], folder: Path, path: Path
) -> tuple[list[Record], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what predict_recording does, on a worker that reads the network from its run folder.

    Args:
        given: values and given names of the Settings.
        folder, path: folder of the data and one recording in it.
    """
    settings = Settings(*given)
    choose_device(settings.device)
    network, data = load_network(settings, run_folder(settings), folder)
    how, view = storage_of_network(network, data), view_of_network(network, data)
    return predict_recording(network, path, how, view, settings)


def judge(missing: np.ndarray, features: np.ndarray, data: dict) -> tuple[list[str], np.ndarray]:
    """Return why each epoch has no evidence of a state, and its artifact score; see flags_of."""
    usual = Usual(**data["usual"]) if data.get("usual") else None
    if usual is None:
        log.info(
            "note: this network does not know what usual epochs look like; no artifact is told"
        )
    return flags_of(missing, features, usual)


def quality_of(epochs: Epochs) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of missing values (N,) and the features (N, D) of stored epochs."""
    masks, missing, features = {}, [], []
    for place, record in enumerate(epochs.records):
        if record.path not in masks:
            masks[record.path] = seen(read_mask_of(record), epochs.view)
        frames = epochs.read(place * epochs.view.inputs_per_epoch)
        missing.append(missing_share(frames, masks[record.path]))
        features.append(quality_features(frames))
    return np.array(missing), np.stack(features)


def open_unscored(path: Path, settings: Settings) -> Recording:
    """Open a recording without a look at its scores: nothing that is predicted depends on them."""
    return Recording(path, mask_file=settings.mask or None, scores=False)


def check_recordings(
    network: AttentionBiLSTM, paths: list[Path], how: Storage, view: View, settings: Settings
) -> None:
    """Read all headers before the first hour is spent; report every recording that does not fit."""
    a, faults = network.architecture, []
    for path in paths:
        try:
            with open_unscored(path, settings) as recording:
                height, width = (n // how.downsample for n in recording.shape[1:])
        except InputError as error:
            faults.append(str(error))
            continue
        frames = min(frames_of(how.seconds), a.num_frames)
        shape = frames, height, width // 2 if view.hemisphere else width
        if shape != (a.num_frames, a.height, a.width):
            faults.append(
                f"{path}: an input is {shape} (frames, rows, columns); the network takes "
                f"{(a.num_frames, a.height, a.width)}: give recordings of the size it is trained on"
            )
    raise_faults(faults)


def storage_of_network(network: AttentionBiLSTM, data: dict) -> Storage:
    """Return how recordings are cut for ``network``: as its training data, or by its frames."""
    frames = network.architecture.num_frames
    fitting = (s for s in range(1, MAX_SECONDS + 1) if frames_of(s) >= frames)
    rules = storage_rules(data.get("storage", {})) or {"seconds": next(fitting, MAX_SECONDS)}
    return Storage(**rules)


def labels_learnt(data: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return transitions (K, K) and shares (K,) of the training labels, from config.json.

    Raises:
        InputError: they are not known for this network.
    """
    held = data.get("labels")
    if not held:
        raise InputError(
            "smooth hmm needs the frequencies of the training labels, which are not known for this "
            "network (published, or trained by an older version): choose median or bout"
        )
    return np.asarray(held["transitions"], float), np.asarray(held["shares"], float)


def holds_recordings(folder: Path, pattern: str) -> bool:
    """Tell whether ``folder`` is or holds recordings: .mat files that are named like one.

    A folder of tfrecords may hold an atlas or a mask as well.
    """
    if not folder.exists():
        raise InputError(f"{folder}: not found; expected recordings (.mat) or tfrecords")
    if folder.is_file():
        return folder.suffix.lower() == ".mat"
    shards = files_below(folder, "*.tfrecord*")
    matlab = files_below(folder, pattern)
    named = [path for path in matlab if parse_name(path)]
    if named and shards:
        log.info("%s: %d recordings are read, the tfrecords there are not", folder, len(named))
    return bool(named) or (bool(matlab) and not shards)


def predict_folder(
    network: AttentionBiLSTM,
    data: dict,
    folder: Path,
    settings: Settings,
    net: ContextNet | None = None,
    adaptation: Adaptation | None = None,
) -> tuple[pd.DataFrame, dict[str, Hypnogram]]:
    """Return the prediction table of all recordings, or else all tfrecords, of ``folder``, and the
    time axis of every animal; with a second stage ``net`` or an ``adaptation`` of the first.

    Raises:
        InputError: nothing usable in the folder, or smoothing that needs labels.
    """
    learnt = None
    if settings.smooth == "hmm":
        learnt = labels_learnt(data)
    view = view_of_network(network, data)
    if holds_recordings(folder, settings.pattern):
        how = storage_of_network(network, data)
        paths = find_recordings(folder, pattern=settings.pattern)
        check_recordings(network, paths, how, view, settings)
        if how.artifact_neighbours == "zeros" and how.seconds > EPOCH_S:
            log.info(
                "note: the network is trained with zeros in the place of artifact neighbours; "
                "prediction does not look at scores and takes every neighbour as it is"
            )
        if settings.cluster:
            given = settings.values, settings.given
            calls = (delayed(predict_far)(given, folder, path) for path in paths)
            place = settings.result_savedir or run_folder(settings)
            parts = run_jobs(calls, 1, cluster=settings.cluster, folder=place)
        else:
            parts = (predict_recording(network, path, how, view, settings) for path in paths)
        parts = list(tqdm(parts, desc="recordings", total=len(paths), disable=None))
        records, *arrays = zip(*parts, strict=True)
        epochs = RecordingEpochs([one for part in records for one in part], view)
        probs, vectors, missing, features = (np.concatenate(part) for part in arrays)
    else:
        check_storage(folder, data)
        epochs = load_epochs(folder, view)
        check_shape(network, epochs, folder)
        epochs.labels = np.full(len(epochs.records), NO_LABEL, np.int32)
        outputs = run_over(network, epochs, settings, output_keys(network))
        probs, vectors = outputs["probs"], vectors_of(outputs)
        missing, features = quality_of(epochs)
    if adaptation is not None:
        probs = adaptation.probabilities(vectors)
    flags, scores = judge(missing, features, data)
    if net is not None:
        # An epoch without evidence of its own state says nothing about that of its neighbours.
        keys = [
            key if not flag else (*key[:2], ("flagged", i), key[3])
            for i, (key, flag) in enumerate(zip(keys_of(epochs.records), flags, strict=True))
        ]
        probs = net.probabilities(vectors, keys)
        probs = probs if view.num_classes > 2 else probs[:, 1:]
    table = prediction_table(epochs, probs, min_confidence=settings.min_confidence)
    table = without_evidence(table, flags, scores, keep=settings.keep_artifacts)
    axes = hypnograms_of(epochs.records, epochs.labels, epochs.view.num_classes)
    return add_smoothed(table, settings.smooth, learnt), axes


def write_predictions(
    table: pd.DataFrame, axes: dict[str, Hypnogram], out: Path, num_frames: int
) -> None:
    """Write one CSV, .mat and hypnogram per mouse, and `predictions.csv`."""
    for mouse, part in table.groupby("mouse", sort=False):
        name = f"{mouse}_{seconds_of(num_frames):g}s"
        save_mouse(part.reset_index(drop=True), axes[mouse], out, name)
    write_table(table.drop(columns="true"), out / "predictions.csv")
    log.info("%d epochs of %d mice predicted", len(table), table["mouse"].nunique())
    reasons = table["flag"].str.replace(r"^\d+ %", "most", regex=True).value_counts()
    for reason, count in reasons.drop("", errors="ignore").items():
        log.info("%d epochs: %s", count, reason)
    if (table["pred"] < 0).any():
        log.info("they have no state; --keep_artifacts gives one to every epoch")
