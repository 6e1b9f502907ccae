"""The data of a training run: set and display, held-out barcodes, draws, the control's labels."""

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from common.files import InputError
from inputs.ca_dataloader import CalciumDataset, Layout
from inputs.display import Display
from inputs.recordings import commonest_grey, read_movies, read_recordings

log = logging.getLogger(__name__)
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def open_dataset(
    settings: dict, *, lc_types: list[str] | None = None, neuron_uids: dict | None = None
) -> CalciumDataset:
    """Return the configured data set."""
    config = settings["dataset"]
    rate = config["sampling_rate"]
    recordings = read_recordings(config["ca_path"], rate_hz=rate, nan=config.get("nan", "reject"))
    needed = {
        barcode
        for sessions in recordings.values()
        for session in sessions.values()
        for barcode in session
    }
    movies = read_movies(config["mov_path"], rate_hz=rate, needed=needed)
    dataset = CalciumDataset(
        recordings, movies, Layout.from_config(config), lc_types=lc_types, neuron_uids=neuron_uids
    )
    dataset.display = display_of(config, movies)
    return dataset


def display_of(config: dict, movies: dict) -> Display:
    """Return the display of a data set: the field from its movies, the rest from its block.

    The rate was compared with every time axis. Grey levels do not name the background, but most
    pixels show it: another one is said.
    """
    display = Display(
        config["sampling_rate"],
        config["mov_res"],
        config["mov_bg_int"],
        tuple(next(iter(movies.values())).shape[1:]),
        origin={
            "rate_hz": "dataset.sampling_rate, as in the files' time axes",
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


def expand_barcodes(entries: Iterable) -> set[int]:
    """Return the set of barcodes meant by entries such as 321 or "321-329"."""
    barcodes = set()
    for entry in entries:
        low, _, high = str(entry).partition("-")
        try:
            barcodes.update(range(int(low), int(high or low) + 1))
        except ValueError:
            raise InputError(f"stimulus {entry!r}: expected a number or first-last") from None
    return barcodes


def draws_per_epoch(dataset: CalciumDataset, rows: Sequence[int], oversample: dict) -> list[int]:
    """Return how often each of ``rows`` is drawn in an epoch."""
    times = {code: n for entry, n in oversample.items() for code in expand_barcodes([entry])}
    return [times.get(dataset.items[row].barcode, 1) for row in rows]


def shuffled_movies(
    dataset: CalciumDataset, rows: Sequence[int], seed: int
) -> dict[int, torch.Tensor]:
    """Return the movies with those of the training stimuli dealt round: the negative control."""
    barcodes = sorted({dataset.items[row].barcode for row in rows})
    other = dict(zip(barcodes, dealt(barcodes, seed), strict=True))
    return {code: dataset.movies[other.get(code, code)] for code in dataset.movies}


def dealt(cards: list, seed: int) -> list:
    """Return ``cards`` dealt round so that neighbours get cards from all over the list.

    Numbers of stimuli count along families, sizes and speeds. A plain shuffle now and then deals
    the stimuli of a family to one another, and a control then learns the family; steps of the
    golden section spread every run of neighbours evenly. No card stays where it is, except alone.
    """
    n = len(cards)
    steps = [step for step in range(1, n) if math.gcd(step, n) == 1]
    step = min(steps, key=lambda value: abs(value - GOLDEN * n), default=1)
    start = np.random.default_rng([seed, 2]).integers(n)
    other = (start + step * np.arange(n)) % n
    for i in np.flatnonzero(other == np.arange(n)) if n > 1 else ():
        after = (i + 1) % n
        other[[i, after]] = other[[after, i]]
    return [cards[i] for i in other]


def data_files(settings: dict) -> list[Path]:
    """Return the data files that settings.json records by their hash, up to 200."""
    config = settings["dataset"]
    found = [*Path(config["ca_path"]).glob("*/*.*"), *Path(config["mov_path"]).glob("vstim_*.*")]
    return sorted(found)[:200]
