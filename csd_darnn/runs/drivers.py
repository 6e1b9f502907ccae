"""Search for the drivers of a target with a stated error rate: table, maps and one sentence.

The search takes no network and no seed of a training, see analysis/drivers.py. It reads the rows
that the network is fitted on and the lags of its window.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.drivers import LEAST_GAIN, Drivers, find_drivers
from analysis.heatmap import to_image
from analysis.importance import pixel_blocks
from analysis.map_figures import draw_bars, draw_stills
from analysis.shared_light import light_radius
from common.tables import write_rows
from inputs.custom_types import TrainData
from inputs.prepare import Prepared
from settings import RunSettings

MEASURED = (  # DETAILS.md
    "in 40 planted movies without a driver, seeds 800 to 819, none was found, in 40 with one"
    " all were"
)
NEAR_PIXELS = 3.0  # pixels around the target that are no candidates, more in a blurred movie
COLUMNS = ("target", "candidate", "row_first", "row_last", "column_first", "column_last",
           "n_series", "gain", "lag_frames", "lag_s", "p", "q", "discovered")  # fmt: skip


def near_target(
    pixels: np.ndarray, shape: tuple[int, int], target_pixel: int, radius: float
) -> np.ndarray:
    """Return (N,) int, the distance in whole pixels of series within ``radius``, 0 elsewhere."""
    row, column = np.divmod(np.asarray(pixels), shape[1])
    own = np.divmod(target_pixel, shape[1])
    distance = np.hypot(row - own[0], column - own[1])
    return np.where(distance <= radius, np.maximum(1, np.round(distance)), 0).astype(int)


def shared_radius(feats: np.ndarray, pixels: np.ndarray | None, shape: tuple | None) -> float:
    """Return within how many pixels of a target series share its light, 0 without an image."""
    if shape is None or pixels is None:
        return 0.0
    return max(NEAR_PIXELS, light_radius(feats, pixels, shape))


def show_drivers(
    prepared: Prepared, settings: RunSettings, run_dir: Path, outline: np.ndarray | None = None
) -> list[str]:
    """Write drivers.csv and plots/drivers.png and .csv; return one sentence a target.

    Args:
        outline: (H, W) bool of planted drivers, drawn into the maps.
    """
    rows, sentences = [], []
    rate = prepared.recording.scales.rate_hz.value
    data = TrainData(*(part[: prepared.fit_size] for part in prepared.data))
    pixels, shape = prepared.feature_pixels, prepared.recording.shape
    radius = shared_radius(data.feats, pixels, shape)
    names = zip(prepared.target_labels, prepared.target_words, strict=True)
    for position, (label, words) in enumerate(names):
        near = np.zeros(len(prepared.features), int)
        if radius:
            near = near_target(pixels, shape, prepared.target_pixels[position], radius)
        blocks = pixel_blocks(len(near), pixels, shape, settings.block)
        blocks = [block[near[block] == 0] for block in blocks]
        blocks = [block for block in blocks if len(block)]
        drivers = find_drivers(
            data, blocks, prepared.rule, target=position, near=near, seed=settings.seed
        )
        if drivers is None:
            sentences.append(
                f"Target {words}: no search for drivers, {prepared.fit_size} training frames are"
                " too few for records shifted by more than some windows."
            )
            continue
        told = driver_rows(prepared, str(label), blocks, drivers, settings.error_rate, rate)
        rows += told
        sentences.append(sentence(told, words, settings.error_rate, drivers.least_q, rate))
        path = run_dir / "plots" / (f"drivers_{label}.png" if position else "drivers.png")
        draw_drivers(prepared, path, blocks, drivers, settings.error_rate, outline)
    write_rows(run_dir / "drivers.csv", rows, COLUMNS)
    return sentences


def driver_rows(
    prepared: Prepared,
    label: str,
    blocks: Sequence[np.ndarray],
    drivers: Drivers,
    error_rate: float,
    rate_hz: float | None,
) -> list[dict]:
    """Return one row a candidate, the surest first; cells of what is unknown are empty."""
    shape, pixels = prepared.recording.shape, prepared.feature_pixels
    rows, found = [], drivers.found(error_rate)
    for number in np.lexsort((-drivers.gain, drivers.q)):
        block, lag = blocks[number], int(drivers.lag[number])
        row = dict.fromkeys(COLUMNS, "") | {
            "target": label, "candidate": int(number), "n_series": len(block),
            "gain": float(drivers.gain[number]), "lag_frames": lag,
            "lag_s": lag / rate_hz if rate_hz else "", "p": float(drivers.p[number]),
            "q": float(drivers.q[number]), "discovered": bool(found[number]),
        }  # fmt: skip
        if shape is None:
            row["candidate"] = prepared.recording.columns[prepared.features[block[0]]]
        else:
            down, across = np.divmod(np.asarray(pixels)[block], shape[1])
            row["row_first"], row["row_last"] = int(down.min()), int(down.max())
            row["column_first"], row["column_last"] = int(across.min()), int(across.max())
        rows.append(row)
    return rows


def sentence(
    rows: list[dict], words: str, error_rate: float, least_q: float, rate_hz: float | None
) -> str:
    """Return what the search found for one target, which ``words`` name."""
    hits = [row for row in rows if row["discovered"]]
    asked = f"at most {100 * error_rate:.3g} % of records without a driver shall give any"
    head = f"Target {words}: "
    if not hits:
        told = f"no driver found where {asked} (smallest q {rows[0]['q']:.2g} of {len(rows)}"
        told += f" candidates; {MEASURED})."
        if error_rate < least_q:
            told += (
                f" That is no evidence against one: a record of this length tells no q below"
                f" {least_q:.2g}; take a longer one or a larger --error_rate."
            )
        return head + told
    best = hits[0]
    place = f"series {best['candidate']}"
    if best["row_first"] != "":
        place = (f"rows {best['row_first']} to {best['row_last']}, columns"
                 f" {best['column_first']} to {best['column_last']}")  # fmt: skip
    lag = f"{best['lag_frames']} frames" + (f" ({best['lag_s']:.3g} s)" if rate_hz else "")
    return head + (
        f"{len(hits)} of {len(rows)} candidates hold something about it that its own past and the"
        f" field do not (each at least {100 * LEAST_GAIN:g} % of what is left unexplained), where"
        f" {asked} ({MEASURED}); the surest is {place}, {lag} before (q {best['q']:.2g})."
    )


def draw_drivers(
    prepared: Prepared,
    path: Path,
    blocks: Sequence[np.ndarray],
    drivers: Drivers,
    error_rate: float,
    outline: np.ndarray | None,
) -> None:
    """Draw q, lag of the discovered candidates, and gain: images, or bars for named series."""
    hit = drivers.found(error_rate)
    values = {
        "q (chance of any as high)": drivers.q,
        f"lag in frames where q <= {error_rate:g}": np.where(hit, drivers.lag, np.nan),
        "gain (share of what is left unexplained)": drivers.gain,
    }
    spread = {}
    for name, value in values.items():
        spread[name] = np.full(len(prepared.features), np.nan)
        for block, one in zip(blocks, value, strict=True):
            spread[name][block] = one
    if prepared.recording.shape is None:
        names = [prepared.recording.columns[position] for position in prepared.features]
        surest = np.lexsort((-drivers.gain, drivers.q))
        order = np.concatenate([blocks[number] for number in surest])
        draw_bars(path, spread, names, order=order)
        return
    images = {
        name: to_image(vector, prepared.feature_pixels, prepared.recording.shape)
        for name, vector in spread.items()
    }
    draw_stills(
        path, images, target_pixels=prepared.target_pixels, outline=outline,
        outline_label="planted driver" if outline is not None else "",
        scales=prepared.recording.scales,
    )  # fmt: skip
