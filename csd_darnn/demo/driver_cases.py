"""Movies with and without a planted driver, to try the search for drivers on."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from analysis.drivers import find_drivers
from analysis.importance import pixel_blocks
from demo.synthetic import LAG_FRAMES, synthesise
from inputs.custom_types import TrainData
from inputs.windows import WindowRule
from runs.drivers import NEAR_PIXELS
from settings import DemoMovie, RunSettings


@dataclass(frozen=True)
class Case:
    """A movie as the search sees it.

    Attributes:
        data: TrainData of the training rows in z-units.
        blocks: candidates, index arrays over the driving series.
        near: (N,) bool, series next to the target.
        planted: (K,) bool, candidates that touch the driver patch.
    """

    data: TrainData
    blocks: list[np.ndarray]
    near: np.ndarray
    planted: np.ndarray


def recorded(seed: int, *, driver: bool = True, blur: float = 0.0, block: int = 4) -> Case:
    """Return the Case of a demo movie whose frames are blurred by ``blur`` pixels (sd)."""
    movie, truth = synthesise(DemoMovie(seed=seed, driver=driver))
    movie = movie[: int(RunSettings.train_fraction * len(movie))]
    if blur:
        movie = gaussian_filter(movie, (0, blur, blur))
    height, width = movie.shape[1:]
    values = movie.reshape(len(movie), -1)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    target = truth["target"][0] * width + truth["target"][1]
    pixels = np.delete(np.arange(height * width), target)
    row, column = np.divmod(pixels, width)
    near = np.hypot(row - truth["target"][0], column - truth["target"][1]) <= NEAR_PIXELS
    blocks = [b[~near[b]] for b in pixel_blocks(len(pixels), pixels, (height, width), block)]
    blocks = [b for b in blocks if len(b)]
    mask = np.array(truth["driver_mask"], bool).ravel()[pixels]
    data = TrainData(values[:, pixels], values[:, [target]])
    return Case(data, blocks, near, np.array([mask[b].any() for b in blocks]))


def driver_table(seeds: range, *, error_rate: float = 0.05) -> list[dict]:
    """Return one row a kind of movie: discoveries, false ones, lags of the surest.

    Returns:
        dicts: kind, movies, with_any (discoveries), found (the planted driver), right_lag (within
        a frame), rate (mean over movies of the false among the discovered), with_false.
    """
    rows = []
    kinds = {
        "no driver": {"driver": False}, "no driver, blurred": {"driver": False, "blur": 1.5},
        "driver": {}, "driver, blurred": {"blur": 1.5},
    }  # fmt: skip
    for kind, options in kinds.items():
        row = dict.fromkeys(("with_any", "found", "right_lag", "with_false"), 0)
        shares = []
        for seed in seeds:
            case = recorded(seed, **options)
            planted = case.planted & options.get("driver", True)
            drivers = find_drivers(case.data, case.blocks, WindowRule(10), near=case.near)
            hit = drivers.q <= error_rate
            row["with_any"] += hit.any()
            row["with_false"] += (hit & ~planted).any()
            shares.append((hit & ~planted).sum() / max(1, hit.sum()))
            if (hit & planted).any():
                row["found"] += 1
                surest = np.argmin(np.where(planted, drivers.q - 1e-6 * drivers.gain, np.inf))
                row["right_lag"] += abs(int(drivers.lag[surest]) - LAG_FRAMES) <= 1
        rows.append({"kind": kind, "movies": len(seeds)} | {k: int(v) for k, v in row.items()}
                    | {"rate": float(np.mean(shares))})  # fmt: skip
    return rows
