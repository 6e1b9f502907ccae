"""The job of locate_neurons.py: places, gains and offsets of neurons that a network has not seen.

Letters: S stimuli.
"""

import argparse
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis.metrics import correlation
from analysis.place_figures import plot_places
from common.files import InputError, read_json, write_settings
from common.hashes import sha256
from common.locks import visible, writing
from common.tables import write_rows
from inputs.ca_dataloader import CalciumDataset, Layout
from inputs.recordings import read_movies, read_recordings, say_clocks
from network.checkpoints import load_model, resolve_checkpoint
from network.models import STCNN
from runs.data import open_dataset, split_of
from runs.new_neurons import MOST_STIMULI, Found, Neuron, locate, refine
from runs.place_calibration import Calibration, calibrate
from runs.showing import run_name

log = logging.getLogger(__name__)
LEAST_STIMULI = 3
CALIBRATION_NEURONS, CALIBRATION_STIMULI = 4, 100  # at most, of each cell type and neuron


def locate_all(args: argparse.Namespace, default_out: Path) -> str:
    """Locate the neurons of the parsed flags' recordings; return the closing line."""
    model = load_model(args.checkpoint, config=args.config)
    model.settle(1)  # one frame of grey stands for all that was shown before
    dataset = new_recordings(model, args.ca_path, args.mov_path, nan=args.nan)
    out = args.out or default_out / run_name(args.checkpoint)
    same = {
        "checkpoint_sha256": sha256(resolve_checkpoint(args.checkpoint)),
        "recordings_sha256": digest_of(dataset.digests), "stimuli": args.stimuli,
        "nan": args.nan, "calibration": args.calibration,
    }  # fmt: skip
    with writing(out):
        claim(out, same)
        print(model.display.describe())
        record = {key: str(value) for key, value in vars(args).items()}
        record |= {"display": model.display.record(), "same": same}
        write_settings(out, record, inputs=dataset.digests, libraries=("torch", "numpy"))
        calibration = calibration_of(args, model, set(dataset.cell_types))
        rows = [told(*job) for job in located(model, dataset, args.stimuli, calibration)]
        write_rows(out / "neurons.csv", rows)
        plot_places(out / "neurons.png", rows)
    lost = [f"{row['cell_type']}/{row['uid']}" for row in rows if row["located"] == "no"]
    line = f"new neurons: {len(rows) - len(lost)} of {len(rows)} located"
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        line += f", not located: {', '.join(lost[:3])}{more} (column why)"
    return f"{line}; table: {out / 'neurons.csv'}"


def new_recordings(model: STCNN, ca_path: Path, mov_path: Path, *, nan: str) -> CalciumDataset:
    """Return recordings for a trained network, at its rate and field; places may be unknown.

    Raises:
        InputError: cell types that the network does not have, or movies of another field.
    """
    display, digests = model.display, {}
    recordings = read_recordings(ca_path, nan=nan, digests=digests, unplaced=True)
    unknown = [kind for kind in recordings if kind not in model.cell_types]
    if unknown:
        raise InputError(
            f"{ca_path}: {', '.join(unknown)} not among the cell types of the network, which has "
            f"{', '.join(model.cell_types)}; move other folders out of --ca-path"
        )
    say_clocks(recordings, display.rate_hz)
    needed = {code for own in recordings.values() for part in own.values() for code in part}
    movies = read_movies(mov_path, rate_hz=display.rate_hz, needed=needed, digests=digests)
    sizes = {tuple(frames.shape[1:]) for frames in movies.values()} - {tuple(display.field)}
    if sizes:
        rows, columns = min(sizes)
        raise InputError(
            f"{mov_path}: movies of {rows} x {columns} px, the model was trained on "
            f"{display.field[0]} x {display.field[1]}; give movies of its field"
        )
    layout = replace(Layout.of_display(display), n_prepad=1)
    return CalciumDataset(recordings, movies, layout, display=display, digests=digests)


def digest_of(digests: dict[str, str]) -> str:
    """Return one digest of {file: digest}."""
    return hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()


def claim(out: Path, same: dict) -> None:
    """Refuse a folder that holds something else than earlier results of this very job."""
    if not (out / "settings.json").is_file():
        if visible(out, "*"):
            raise InputError(f"{out}: holds files of something else; give another --out")
        return
    record = read_json(out / "settings.json", remedy="give another --out")
    old = record.get("settings", {}).get("same")
    if not isinstance(old, dict) or set(old) != set(same):
        raise InputError(f"{out}: holds results of another script or version; give another --out")
    changed = [name for name in same if old[name] != same[name]]
    if changed:
        raise InputError(
            f"{out}: holds neurons located with another {', '.join(changed)}; give another --out"
        )


def evenly(rows: Sequence[int], most: int) -> list[int]:
    """Return at most ``most`` of ``rows``, evenly spread over them."""
    at = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
    return [rows[i] for i in at]


def neurons_of(dataset: CalciumDataset, rows: Sequence[int]) -> dict[tuple[str, int], list[int]]:
    """Return {(cell type, uid): its items among ``rows``, by the number of their stimulus}."""
    neurons = {}
    for row in sorted(rows, key=lambda row: dataset.items[row].barcode):
        item = dataset.items[row]
        neurons.setdefault((item.cell_type, item.uid), []).append(row)
    order = {kind: i for i, kind in enumerate(dataset.cell_types)}
    return dict(sorted(neurons.items(), key=lambda entry: (order[entry[0][0]], entry[0][1])))


def calibration_of(args: argparse.Namespace, model: STCNN, kinds: set[str]) -> Calibration:
    """Return what the run's own neurons of ``kinds`` are off by, or nothing, and say which.

    Left out where it cannot be known: no training set at hand, another one at its place, or places
    that were learned, which the network was never told.
    """
    nothing = Calibration({}, {}, {})
    if args.calibration == "none":
        return nothing
    folder = resolve_checkpoint(args.checkpoint).parent
    reason, settings, recorded = "", {}, {}
    if (folder / "settings.json").is_file():
        record = read_json(folder / "settings.json", remedy="use --calibration none")
        settings, recorded = record.get("settings", {}), record.get("inputs", {})
    places = [settings.get("dataset", {}).get(key) or "" for key in ("ca_path", "mov_path")]
    if not all(place and Path(place).is_dir() for place in places):
        reason = "the run's training set is not at hand"
    elif settings.get("position") == "learned":
        reason = "the run learned the places of its neurons"
    elif settings.get("shuffle_labels"):
        reason = "the run is a control on dealt labels"
    if not reason:
        dataset = open_dataset({**settings, "prepad": "settled"})
        if any(recorded.get(name) != value for name, value in dataset.digests.items()):
            reason = f"{places[0]} and {places[1]} are not the files that the run was trained on"
    if reason:
        print(f"places: as the network sees them, without calibration ({reason})")
        return nothing
    neurons, counts = {}, dict.fromkeys(kinds, 0)
    for (kind, uid), rows in neurons_of(dataset, split_of(settings, dataset)[0]).items():
        if kind in kinds and counts[kind] < CALIBRATION_NEURONS and len(rows) >= LEAST_STIMULI:
            counts[kind] += 1
            neurons[kind, uid] = evenly(rows, CALIBRATION_STIMULI)
    print(f"places: calibrated by {len(neurons)} neurons of the run's training set")
    return calibrate(model, dataset, neurons)


def located(model, dataset, most, calibration):
    """Yield (dataset, first item, found or None, correlation before, offset of the calibration)."""
    for (kind, _), rows in neurons_of(dataset, range(len(dataset))).items():
        used = evenly(rows, most)
        known = np.nan_to_num(np.array(dataset.recorded_place(dataset.items[rows[0]]), float))
        neuron = Neuron(model, dataset, used)
        curves = np.concatenate(neuron.activity(known))
        before = correlation(neuron.whole, curves)
        found, off = None, np.zeros(2)
        if len(used) >= LEAST_STIMULI:
            found = locate(model, dataset, evenly(used, MOST_STIMULI))
            if len(used) > MOST_STIMULI and not found.doubt():
                found = replace(refine(model, dataset, used, found.place), chance=found.chance)
            off = calibration.off_at(kind, found.place)
        yield dataset, used, found, before, off


def told(
    dataset: CalciumDataset, used: Sequence[int], found: Found | None, before: float,
    off: np.ndarray,
) -> dict:  # fmt: skip
    """Return the row of a neuron: degrees, dF/F; empty where nothing was found or is known."""
    item = dataset.items[used[0]]
    recorded = ["" if np.isnan(at) else round(float(at), 4) for at in dataset.recorded_place(item)]
    why = f"{len(used)} stimuli, at least {LEAST_STIMULI} are needed"
    why = why if found is None else found.doubt()
    row = {"cell_type": item.cell_type, "uid": item.uid, "stimuli": len(used),
           "located": "no" if why else "yes"}  # fmt: skip
    values = dict.fromkeys(
        ("azimuth_deg", "azimuth_sd_deg", "elevation_deg", "elevation_sd_deg", "gain", "gain_sd",
         "offset"), "",
    )  # fmt: skip
    if not why:
        values |= {key: getattr(found, key) for key in values}
        values["azimuth_deg"] -= float(off[0])
        values["elevation_deg"] -= float(off[1])
    return row | values | {
        "correlation_before": "" if np.isnan(before) else before,
        "correlation_after": "" if why else found.fit_correlation,
        "p_of_chance": "" if found is None else found.chance,
        "calibration_azimuth_deg": "" if why else -float(off[0]),
        "calibration_elevation_deg": "" if why else -float(off[1]),
        "azimuth_recorded_deg": recorded[0], "elevation_recorded_deg": recorded[1], "why": why,
    }  # fmt: skip
