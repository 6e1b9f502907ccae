"""The data of a training run: set and display, held-out barcodes, draws, the control's labels."""

import logging
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.files import InputError
from common.hashes import sha256
from common.locks import visible
from inputs.ca_dataloader import CalciumDataset, Layout
from inputs.display import Display
from inputs.recordings import (
    SUFFIXES,
    TRACE_SUFFIXES,
    Movies,
    commonest_grey,
    read_movies,
    read_recordings,
    say_clocks,
)

log = logging.getLogger(__name__)
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def open_dataset(
    settings: dict, *, lc_types: list[str] | None = None, neuron_uids: dict | None = None
) -> CalciumDataset:
    """Return the configured data set."""
    config = settings["dataset"]
    rate = config["sampling_rate"]
    digests = {}
    recordings = read_recordings(
        config["ca_path"], nan=config.get("nan", "reject"), digests=digests
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
    return CalciumDataset(
        recordings, movies, layout, lc_types=lc_types,
        neuron_uids=neuron_uids, display=display_of(config, movies) if movies else None,
        digests=digests,
    )  # fmt: skip


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


def draws_per_epoch(dataset: CalciumDataset, rows: Sequence[int], oversample: dict) -> list[int]:
    """Return how often each of ``rows`` is drawn in an epoch."""
    known = {item.barcode for item in dataset.items}
    times = {}
    for entry, n in oversample.items():
        times |= dict.fromkeys(expand_barcodes([entry], known), n)
    return [times.get(dataset.items[row].barcode, 1) for row in rows]


def shuffled_movies(dataset: CalciumDataset, rows: Sequence[int], seed: int) -> Movies:
    """Return the movies with those of the training stimuli dealt round: the negative control."""
    barcodes = sorted({dataset.items[row].barcode for row in rows})
    other = dict(zip(barcodes, dealt(barcodes, seed), strict=True))
    source = {code: other.get(code, code) for code in dataset.movies}
    first = dataset.movies.first
    return Movies(
        {code: dataset.movies[other] for code, other in source.items()},
        first={code: first[other] for code, other in source.items() if other in first},
        rate_hz=dataset.movies.rate_hz,
    )


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


def data_digests(settings: dict) -> dict[str, str]:
    """Return {file: SHA-256} of the recordings and movies, named as read_recordings names them."""
    config = settings["dataset"]
    traces = {f"{p.parent.name}/{p.name}": p for p in visible(Path(config["ca_path"]), "*/*")}
    movies = {path.name: path for path in visible(Path(config["mov_path"]), "vstim_*")}
    return {
        name: sha256(path)
        for name, path in (traces | movies).items()
        if path.suffix in (TRACE_SUFFIXES if name in traces else SUFFIXES) and path.is_file()
    }
