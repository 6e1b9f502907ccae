"""The data set: one item is one neuron and one stimulus, padded and shifted as the network expects.

Source: specification 5. Letters: T frames of an item, H and W the coarse grid of the
photoreceptors."""

import bisect
import hashlib
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from common.files import InputError, raise_faults
from inputs.clocks import TOLERANCE_S, check_overlap, sample_ticks
from inputs.display import Display
from inputs.recordings import Movies

log = logging.getLogger(__name__)
START_SAMPLES = 18  # samples averaged for the padding before a trace
END_SLICE = slice(-18, -1)  # Faithful: 17 samples, the last one is left out
CACHE_MB = 1024  # of sampled stimuli kept between epochs


@dataclass(frozen=True)
class Item:
    """Where one item comes from. ``trial`` is None when trials are averaged."""

    cell_type: str
    file: str
    barcode: int
    uid: int
    neuron_num: int
    trial: int | None


@dataclass(frozen=True)
class Placing:
    """Where the samples of a recording lie on the ticks of its item, without the padding."""

    at: np.ndarray  # (samples,) tick of each sample, 0 is the item's first
    onset: int  # tick of the stimulus onset
    length: int  # ticks of the recording
    each: bool  # every tick is a sample: the recording runs at the model's rate

    @classmethod
    def of(cls, t_axis: torch.Tensor, rate_hz: float | None) -> "Placing":
        """Place the samples of a time axis; None takes the axis as the ticks themselves."""
        ticks = sample_ticks(t_axis, rate_hz).numpy()
        first = min(int(ticks[0]), 0)
        at = ticks - first
        length = max(int(at[-1]), -first) + 1
        each = len(at) == length and bool((at == np.arange(length)).all())
        return cls(at, -first, length, each)

    def spread(self, trace: np.ndarray) -> np.ndarray:
        """Return a trace (samples,) on the ticks (length,), straight between its samples."""
        if self.each:
            return trace
        ticks, inverse, counts = np.unique(self.at, return_inverse=True, return_counts=True)
        mean = np.bincount(inverse, weights=trace) / counts  # samples of one tick
        return np.interp(np.arange(self.length), ticks, mean).astype(np.float32)


@dataclass(frozen=True)
class Layout:
    """How traces and movies are cut: the dataset block of the configuration."""

    avg_trials: bool = True
    px_res_deg: float = 1.0
    background: float = 0.498
    loss_start_s: float = -0.5
    n_prepad: int = 360

    @classmethod
    def of_display(cls, display: Display) -> "Layout":
        """Return the layout of a data set as it was recorded: no padding, loss from the onset."""
        return cls(True, display.deg_per_px, display.background, 0.0, 0)

    @classmethod
    def from_config(cls, config: dict) -> "Layout":
        """Read the keys of ``conf/dataset/*.yaml``."""
        return cls(
            config["avg_xTrials"],
            config["mov_res"],
            config["mov_bg_int"],
            config["loss_meas_t_start"],
            config["num_t_pts_prepad"],
        )


class CalciumDataset(Dataset):
    """Map-style data set over recordings and movies held in memory (see recordings.py)."""

    def __init__(self, recordings, movies, layout, *, lc_types=None, neuron_uids=None,
                 display=None, digests=None, sample=None):  # fmt: skip
        """Index all items; nothing is built yet.

        Args:
            recordings, movies: as read_recordings and read_movies return them.
            layout: Layout.
            display: Display, whose rate gives the ticks on which all is placed by time; None
                takes every time axis as the ticks themselves.
            digests: {file: SHA-256} of what was read, kept with the data.
            lc_types: order of the cell types (from a config.json), or None for the given order.
            neuron_uids: {type: [uid, ...]} of a trained model, so that numbers keep their meaning.
            sample: function (frames, rows, columns) -> (frames, H, W); when given, items hold the
                sampled stimulus instead of the movie (15 times smaller, cached).
        """
        self.movies = movies if isinstance(movies, Movies) else Movies(movies)
        self.layout, self.display, self.sample = layout, display, sample
        self.sample_at, self.moved = None, {}  # see move
        self.digests = dict(digests or {})
        self.cell_types = list(lc_types or recordings)
        unknown = sorted(set(recordings) ^ set(self.cell_types))
        if unknown:
            raise InputError(
                f"cell types {', '.join(unknown)} are in the data or in the configuration, but not "
                f"in both (data: {', '.join(recordings)}; configuration: "
                f"{', '.join(self.cell_types)})"
            )
        self.recordings = {name: recordings[name] for name in self.cell_types}
        self.neuron_uids = {
            name: list((neuron_uids or {}).get(name, [])) for name in self.cell_types
        }
        self.items, self._rows, self._placings = [], {}, {}
        self._cache, self._cache_bytes = OrderedDict(), 0
        self.n_max = 0
        self._index(fixed=neuron_uids is not None)

    def _index(self, fixed):
        faults, missing = [], {}
        for name, sessions in self.recordings.items():
            uids = self.neuron_uids[name]
            number = {uid: i for i, uid in enumerate(uids)}
            for file, session in sessions.items():
                for barcode, entry in session.items():
                    place = Placing.of(entry["t_axis"], self.display and self.display.rate_hz)
                    self._placings[name, file, barcode] = place
                    self.n_max = max(self.n_max, place.length)
                    if barcode not in self.movies:
                        missing.setdefault(barcode, []).append(f"{name}/{file}")
                    try:
                        self._first_scored(entry["t_axis"])
                        if place.each:
                            last_index_before(entry["t_axis"], 0.0)
                        self._check_shown(barcode, place)
                    except InputError as error:
                        faults.append(f"{name}/{file}, vstim_{barcode}: {error}")
                    for uid, neuron in entry["neuron"].items():
                        if uid not in number:
                            if fixed:
                                faults.append(
                                    f"{name}/{file}: neuron {uid} is unknown to the trained "
                                    f"model (it has {len(uids)} neurons of {name})"
                                )
                                continue
                            number[uid] = len(uids)
                            uids.append(uid)
                        trials = [None] if self.layout.avg_trials else range(len(neuron["traces"]))
                        for trial in trials:
                            self._add(Item(name, file, barcode, uid, number[uid], trial))
        for barcode, places in sorted(missing.items()):
            faults.append(
                f"vstim_{barcode}: no movie of this stimulus, needed by "
                f"{', '.join(sorted(set(places)))}; add the movie or remove the traces"
            )
        raise_faults(faults)

    def _check_shown(self, barcode, place):
        first = place.onset + self.movies.first.get(barcode, 0)
        movie = range(first, first + len(self.movies.get(barcode, ())))
        if movie:
            item = range(-self.layout.n_prepad, place.length)
            rate_hz = self.display.rate_hz if self.display else 1.0
            check_overlap(movie, item, place.onset, rate_hz)

    def _add(self, item):
        row = len(self.items)
        self.items.append(item)
        for who in (item.cell_type, "any", item.uid):
            self._rows.setdefault((who, item.barcode), []).append(row)

    def __len__(self):
        return len(self.items)

    def rows_of(self, who: str | int, barcode: int) -> list[int]:
        """Return item numbers by (cell type | "any" | uid, barcode)."""
        return list(self._rows.get((who, barcode), []))

    @property
    def data_count(self) -> dict[str, int]:
        """Items per type, counted from the index."""
        counts = dict.fromkeys(self.cell_types, 0)
        for item in self.items:
            counts[item.cell_type] += 1
        return counts

    @property
    def n_frames(self) -> int:
        """T: frames of every item."""
        return self.layout.n_prepad + self.n_max

    def session_of(self, item: Item) -> dict:
        """Return the stimulus entry (t_axis, neuron) of an Item."""
        return self.recordings[item.cell_type][item.file][item.barcode]

    def placing(self, item: Item) -> Placing:
        """Return where the samples of an Item lie on its ticks."""
        return self._placings[item.cell_type, item.file, item.barcode]

    def trace(self, item: Item) -> torch.Tensor:
        """Return the padded trace (T,) of an Item, dF/F; straight between samples of its own."""
        traces = self.session_of(item)["neuron"][item.uid]["traces"]
        trace = traces.mean(0) if item.trial is None else traces[item.trial]
        place = self.placing(item)
        if not place.each:
            trace = torch.from_numpy(place.spread(trace.numpy().astype(np.float64)))
        tail = trace[END_SLICE].mean() if len(trace) > 1 else trace[-1]
        trace = torch.cat([trace, tail.expand(self.n_max - len(trace))])
        head = trace[:START_SAMPLES].mean().expand(self.layout.n_prepad)
        return torch.cat([head, trace])

    def samples(self, item: Item) -> tuple[int, int]:
        """Return (start, stop) of the samples in the loss.

        Faithful: at the model's own rate the last recorded sample is not scored.
        """
        t_axis = self.session_of(item)["t_axis"]
        return self._first_scored(t_axis), len(t_axis) - self.placing(item).each

    def scored(self, item: Item) -> np.ndarray:
        """Return the frames of the loss, rising: those at which the Item was imaged."""
        start, stop = self.samples(item)
        return np.unique(self.placing(item).at[start:stop]) + self.layout.n_prepad

    def window(self, item: Item) -> tuple[int, int]:
        """Return (start, stop) of the frames from the first to the last one in the loss."""
        frames = self.scored(item)
        return int(frames[0]), int(frames[-1]) + 1

    def _first_scored(self, t_axis):
        return last_index_before(t_axis, self.layout.loss_start_s)

    def onset(self, item: Item) -> int:
        """Return the frame of the item at which the stimulus starts."""
        return self.placing(item).onset + self.layout.n_prepad

    def move(self, moved: dict[tuple[str, int], Sequence[float]], sample_at: Callable) -> None:
        """Show every neuron its stimuli from a learned place, no longer rounded to pixels.

        Args:
            moved: {(cell type, uid): (azimuth, elevation)}, degrees beyond the recorded place.
            sample_at: function (frames, rows, columns), (row, column) shift in pixels ->
                (frames, H, W).
        """
        self.moved, self.sample_at = moved, sample_at
        self._cache, self._cache_bytes = OrderedDict(), 0

    def recorded_place(self, item: Item) -> tuple[float, float]:
        """Return (azi_shift, ele_shift) of the file, degrees; NaN where it does not say."""
        neuron = self.session_of(item)["neuron"][item.uid]
        return neuron["azi_shift"], neuron["ele_shift"]

    def place(self, item: Item) -> tuple[float, float]:
        """Return (azimuth, elevation), degrees: what the file says, or 0, and what is learned."""
        moved = self.moved.get((item.cell_type, item.uid), (0.0, 0.0))
        known = (0.0 if math.isnan(at) else float(at) for at in self.recorded_place(item))
        return tuple(at + by for at, by in zip(known, moved, strict=True))

    def pixel_shift(self, item: Item) -> tuple[int, int]:
        """Return (row_shift, col_shift) in pixels, rounded half to even."""
        azimuth, elevation = self.place(item)
        res = self.layout.px_res_deg
        return -int(np.rint(elevation / res)), int(np.rint(azimuth / res))

    def movie(self, item: Item, onset: int | None = None) -> torch.Tensor:
        """Return the padded, shifted contrast movie (T, 1, rows, columns) of an Item.

        ``onset`` is the frame at which the stimulus starts, default the Item's own.
        """
        first, frames = self._placed_frames(item, onset)
        # numpy hands out zero pages untouched; torch.zeros would write all 50 MB
        out = torch.from_numpy(np.zeros((self.n_frames, 1, *frames.shape[1:]), np.float32))
        into, source = shift_slices(self.pixel_shift(item), frames.shape[1:])
        torch.sub(
            frames[(slice(None), *source)],
            self.layout.background,
            out=out[(slice(first, first + len(frames)), 0, *into)],
        )
        return out

    def sampled(self, item: Item, onset: int | None = None) -> torch.Tensor:
        """Return the sampled stimulus (T, 1, H, W) of an Item; grey frames sample to zero.

        ``onset`` is the frame at which the stimulus starts, default the Item's own.
        """
        first, frames = self._placed_frames(item, onset)
        shift = self.pixel_shift(item)
        if self.sample_at is not None:
            res, (azimuth, elevation) = self.layout.px_res_deg, self.place(item)
            shift = -elevation / res, azimuth / res
        key = (item.barcode, shift, frames.storage_offset(), len(frames))
        small = self._cache.get(key)
        if small is None:
            contrast = frames - self.layout.background
            if self.sample_at is None:
                small = self.sample(shift_movie(contrast, shift))
            else:
                small = self.sample_at(contrast, shift)
            self._cache[key] = small
            self._cache_bytes += small.nbytes
            while self._cache_bytes > CACHE_MB << 20:
                self._cache_bytes -= self._cache.popitem(last=False)[1].nbytes
        out = torch.zeros(self.n_frames, 1, *small.shape[1:])
        out[first : first + len(small), 0] = small
        return out

    def shown(self, item: Item, onset: int | None = None) -> tuple[int, torch.Tensor]:
        """Return (frame at which the movie of an Item starts, its contrast frames), not shifted."""
        first, frames = self._placed_frames(item, onset)
        return first, frames - self.layout.background

    def _placed_frames(self, item, onset=None):
        """Return (frame of the item at which the movie starts, its frames inside the item)."""
        frames = self.movies[item.barcode]
        onset = self.onset(item) if onset is None else onset
        first = onset + self.movies.first.get(item.barcode, 0)
        early, late = max(-first, 0), max(first + len(frames) - self.n_frames, 0)
        if early:
            log.warning("vstim_%d: %d frames of its movie, before the item, are cut",
                        item.barcode, early)  # fmt: skip
        if late:
            log.warning(
                "vstim_%d: movie of %d frames is longer than its trace; %d frames are cut",
                item.barcode, len(frames), late,
            )  # fmt: skip
        return first + early, frames[early : max(len(frames) - late, early)]

    def _mask(self, item):
        """Return the frames of the loss as a mask (T,) bool."""
        mask = torch.zeros(self.n_frames, dtype=torch.bool)
        mask[torch.from_numpy(self.scored(item))] = True
        return mask

    def __getitem__(self, row):
        """Return the item ``row``; a pair (row, label row) shows the one with the other's trace."""
        item, label = self.shown_and_told(row)
        picture = self.movie if self.sample is None else self.sampled
        shown = {"movie" if self.sample is None else "sampled": picture(item, self.onset(label))}
        return {**shown, **self.record(item, label)}

    def shown_and_told(self, row: int | tuple[int, int]) -> tuple[Item, Item]:
        """Return the Item that is shown and the one whose trace is told of it."""
        row, label_row = row if isinstance(row, tuple) else (row, row)
        return self.items[row], self.items[label_row]

    def record(self, item: Item, label: Item) -> dict:
        """Return all of an entry but its picture."""
        return {
            "ca_trace": self.trace(label),
            "lc_type": item.cell_type,
            "recording_indices": torch.tensor(self.window(label)),
            "scored": self._mask(label),
            "uid": torch.tensor(item.uid),
            "neuron_num": torch.tensor([item.neuron_num]),
            "vstim_barcode": item.barcode,
        }


def last_index_before(t_axis: torch.Tensor, seconds: float) -> int:
    """Return the last index with t <= ``seconds`` (tolerance 1e-4 s)."""
    index = bisect.bisect_right(t_axis.tolist(), seconds + TOLERANCE_S) - 1
    if index < 0:
        raise InputError(
            f"t_axis starts at {float(t_axis[0]):.3f} s, after the requested {seconds} s; shorten "
            "the window (dataset.loss_meas_t_start) or record earlier"
        )
    return index


def shift_slices(
    shift: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return (destination, source) slices that move a picture rows up and columns left."""
    into, source = [], []
    for step, n in zip(shift, size, strict=True):
        step = max(-n, min(n, step))  # a shift beyond the picture leaves background only
        into.append(slice(max(-step, 0), n - max(step, 0)))
        source.append(slice(max(step, 0), n - max(-step, 0)))
    return tuple(into), tuple(source)


def shift_movie(contrast: torch.Tensor, shift: tuple[int, int]) -> torch.Tensor:
    """Return contrast frames (T, rows, columns) moved by ``shift``; vacated pixels are 0."""
    if shift == (0, 0):
        return contrast
    out = torch.zeros_like(contrast)
    into, source = shift_slices(shift, contrast.shape[1:])
    out[(slice(None), *into)] = contrast[(slice(None), *source)]
    return out


class EpochOrder(Sampler):
    """The order of the items in epoch e: a function of (seed, e) alone."""

    def __init__(self, rows, *, seed, shuffle=True, repeats=None):
        """Order ``rows`` (item numbers); ``repeats`` gives how often each is drawn in an epoch."""
        repeats = np.ones(len(rows), dtype=int) if repeats is None else np.asarray(repeats)
        self.rows = np.repeat(np.asarray(rows), repeats)
        self.seed, self.shuffle, self.epoch = seed, shuffle, 0

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        rows = self.rows
        if self.shuffle:
            rows = np.random.default_rng([self.seed, self.epoch]).permutation(rows)
        return iter(rows.tolist())


def make_loader(
    dataset: CalciumDataset,
    order: Sampler,
    *,
    batch_size: int,
    num_workers: int = 0,
    pin: bool = False,
) -> DataLoader:
    """Return the loader of ``dataset`` in ``order``; the last, smaller batch is kept."""
    return DataLoader(
        dataset, batch_size=batch_size, sampler=order, num_workers=num_workers, pin_memory=pin,
        persistent_workers=num_workers > 0,
    )  # fmt: skip


def twins_of(movies: Movies) -> dict[int, int]:
    """Return {barcode: lowest barcode with the very same movie}."""
    first, twins = {}, {}
    for barcode in sorted(movies):
        frames = movies[barcode]
        key = (
            hashlib.sha256(np.ascontiguousarray(frames)).hexdigest(), tuple(frames.shape),
            movies.first.get(barcode, 0),
        )  # fmt: skip
        twins[barcode] = first.setdefault(key, barcode)
    return twins


def split_rows(
    dataset: CalciumDataset,
    *,
    fraction: float,
    by: str = "stimulus",
    seed: int = 0,
    held_out: Collection[int] = (),
) -> tuple[list[int], list[int]]:
    """Return (training rows, validation rows).

    Stimuli with the very same movie stay together: a model that saw one has seen the other.

    Args:
        dataset: CalciumDataset.
        fraction: share of stimuli (or neurons) held out, 0 to 1.
        by: stimulus (all neurons lose the same stimuli) or neuron (whole neurons).
        seed: of the draw.
        held_out: barcodes held out whatever the draw; leave out one stimulus family with it.
    """
    if not 0.0 <= fraction < 1.0:
        raise InputError(f"val_fraction={fraction}: expected 0 to below 1")
    if by not in ("stimulus", "neuron"):
        raise InputError(f"val_by={by}: expected stimulus or neuron")
    twin = twins_of(dataset.movies) if fraction or held_out else {}
    value = (lambda item: twin.get(item.barcode)) if by == "stimulus" else (lambda item: item.uid)
    names = sorted({value(item) for item in dataset.items}) if fraction else []
    # One from each block of neighbours: numbers count along sizes and speeds, so the held-out
    # ones span them.
    blocks = np.array_split(names, max(round(fraction * len(names)), 1)) if fraction else []
    generator = np.random.default_rng([seed, 1])
    chosen = {int(generator.choice(block)) for block in blocks}
    taken = {twin[code] for code in held_out if code in twin}
    recorded = {item.barcode for item in dataset.items}
    more = sorted(code for code in recorded if twin.get(code) in taken and code not in held_out)
    if more:
        log.warning("vstim_%s: held out as well, their movies are those of held-out stimuli",
                    ", ".join(map(str, more)))  # fmt: skip
    held = [
        row
        for row, item in enumerate(dataset.items)
        if (fraction and value(item) in chosen) or twin.get(item.barcode) in taken
    ]
    kept = sorted(set(range(len(dataset))) - set(held))
    if not kept:
        raise InputError("no item is left for training; hold out less (val_fraction, val_stimuli)")
    return kept, held
