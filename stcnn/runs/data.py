"""The data of a training run: set and display, held-out barcodes, draws, the control's labels."""

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from common.files import InputError, read_json
from common.hashes import sha256
from common.locks import visible
from inputs.ca_dataloader import CalciumDataset, Layout, split_rows
from inputs.display import TOLERANCE, Display
from inputs.places import check_places
from inputs.recordings import (
    TRACE_SUFFIXES,
    commonest_grey,
    movie_files,
    read_movies,
    read_recordings,
    say_clocks,
)

log = logging.getLogger(__name__)


def open_dataset(
    settings: dict, *, lc_types: list[str] | None = None, neuron_uids: dict | None = None
) -> CalciumDataset:
    """Return the configured data set."""
    config = settings["dataset"]
    check_lens(settings)
    rate = config["sampling_rate"]
    digests = {}
    learned = settings.get("position") == "learned"
    recordings = read_recordings(
        config["ca_path"], nan=config.get("nan", "reject"), digests=digests, unplaced=learned
    )
    say_clocks(recordings, rate)
    needed = {
        barcode
        for sessions in recordings.values()
        for session in sessions.values()
        for barcode in session
    }
    movies = read_movies(config["mov_path"], rate_hz=rate, needed=needed, digests=digests)
    layout = Layout.from_config(config)
    if settings.get("prepad") == "settled":
        layout = replace(layout, n_prepad=1)  # one frame stands for all the grey
    dataset = CalciumDataset(
        recordings, movies, layout, lc_types=lc_types,
        neuron_uids=neuron_uids, display=display_of(config, movies) if movies else None,
        digests=digests,
    )  # fmt: skip
    if learned:
        check_places(dataset)
    return dataset


def check_lens(settings: dict) -> None:
    """Refuse a lens that counts in other pixels than the movies have: its blur would be another."""
    lens = settings.get("model", {}).get("pr", {}).get("ds_input")
    res = settings["dataset"]["mov_res"]
    if lens and any(abs(own - res) > TOLERANCE * res for own in lens):
        raise InputError(
            f"dataset.mov_res={res:g}, but the lens takes pixels of {' x '.join(map(str, lens))} "
            f"degrees; set model.pr.ds_input=[{res:g},{res:g}] (and see its x_kernel_size and "
            "x_stride, which count pixels)"
        )


def display_of(config: dict, movies: dict) -> Display:
    """Return the display of a data set: the field from its movies, the rest from its block.

    Recordings and movies are placed on its rate by their time axes. Grey levels do not name the
    background, but most pixels show it: another one is said.
    """
    display = Display(
        config["sampling_rate"],
        config["mov_res"],
        config["mov_bg_int"],
        tuple(next(iter(movies.values())).shape[1:]),
        origin={
            "rate_hz": "dataset.sampling_rate",
            "deg_per_px": "dataset.mov_res",
            "background": "dataset.mov_bg_int",
            "field": "file: movies",
        },
    )
    grey = commonest_grey(movies)
    if abs(grey - display.background) > 0.01:
        log.warning(
            "dataset.mov_bg_int=%g, but most pixels at the movies' edges are %.3g: is that the "
            "background?", display.background, grey,
        )  # fmt: skip
    return display


def expand_barcodes(entries: Iterable, known: Collection[int] | None = None) -> set[int]:
    """Return the set of barcodes meant by entries such as 321 or "321-329".

    With ``known`` barcodes, an entry that means none of them is refused.
    """
    barcodes = set()
    for entry in entries:
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", str(entry))
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if low > high:
            raise InputError(f"stimulus {entry!r}: expected a number or first-last")
        if known is not None and not any(low <= code <= high for code in known):
            raise InputError(
                f"stimulus {entry}: not among the recorded ones, from {min(known)} to {max(known)}"
            )
        barcodes.update(range(low, high + 1) if known is None else
                        (code for code in known if low <= code <= high))  # fmt: skip
    return barcodes


def split_of(settings: dict, dataset: CalciumDataset) -> tuple[list[int], list[int]]:
    """Return the rows of a run's training items and of those that it holds out."""
    known = {item.barcode for item in dataset.items}
    return split_rows(
        dataset,
        fraction=settings["val_fraction"],
        by=settings["val_by"],
        seed=settings["seed"],
        held_out=expand_barcodes(settings["val_stimuli"], known),
    )


def draws_per_epoch(dataset: CalciumDataset, rows: Sequence[int], oversample: dict) -> list[int]:
    """Return how often each of ``rows`` is drawn in an epoch."""
    known = {item.barcode for item in dataset.items}
    times = {}
    for entry, n in oversample.items():
        times |= dict.fromkeys(expand_barcodes([entry], known), n)
    return [times.get(dataset.items[row].barcode, 1) for row in rows]


def data_digests(settings: dict) -> dict[str, str]:
    """Return {file: SHA-256} of the recordings and movies, named as read_recordings names them."""
    config = settings["dataset"]
    traces = {f"{p.parent.name}/{p.name}": p for p in visible(Path(config["ca_path"]), "*/*")}
    traces = {name: path for name, path in traces.items() if path.suffix.lower() in TRACE_SUFFIXES}
    movies = {path.name: path for path in movie_files(Path(config["mov_path"]))}
    return {name: sha256(path) for name, path in (traces | movies).items() if path.is_file()}


def truth_file(settings: dict) -> Path:
    """Return the path of the planted truth of a synthetic set."""
    return Path(settings["dataset"]["ca_path"]).parent / "truth.json"


def is_synthetic(settings: dict) -> bool:
    """Return whether the data set is made by us, now or earlier."""
    return bool(settings["dataset"].get("make")) or truth_file(settings).is_file()


def stimulus_names(settings: dict) -> dict[int, str]:
    """Return {barcode: name} of the stimuli of a synthetic set; of recordings, none is known."""
    if not is_synthetic(settings) or not truth_file(settings).is_file():
        return {}
    families = read_json(truth_file(settings), remedy="make the set anew").get("families", {})
    return {int(code): label for code, (_, label) in families.items()}
