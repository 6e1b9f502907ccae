"""Search for the drivers of a target with a stated error rate: table, maps and one sentence.

The search takes no network and no seed of a training, see analysis/drivers.py. It reads the rows
that the network is fitted on and the lags of its window.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.drivers import SHIFTS, Drivers, find_drivers, least_together
from analysis.heatmap import to_image
from analysis.importance import pixel_blocks
from analysis.map_figures import draw_bars, draw_stills
from common.tables import write_rows
from inputs.custom_types import TrainData
from inputs.prepare import Prepared
from settings import RunSettings

MEASURED = "asked for 5 %, planted movies gave 8 %"  # demo/driver_cases.py, see README
NEAR_PIXELS = 3.0  # pixels around the target that share its light and are no candidates
COLUMNS = ("target", "candidate", "row_first", "row_last", "column_first", "column_last",
           "n_series", "gain", "lag_frames", "lag_s", "p", "q", "discovered")  # fmt: skip


def near_target(prepared: Prepared, position: int) -> np.ndarray:
    """Return (N,) bool, the driving series whose pixels lie next to a target's."""
    pixels, shape = prepared.feature_pixels, prepared.recording.shape
    if shape is None or pixels is None:
        return np.zeros(len(prepared.features), bool)
    row, column = np.divmod(np.asarray(pixels), shape[1])
    own = np.divmod(prepared.target_pixels[position], shape[1])
    return np.hypot(row - own[0], column - own[1]) <= NEAR_PIXELS


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
    for position, label in enumerate(prepared.target_labels):
        near = near_target(prepared, position)
        blocks = pixel_blocks(
            len(near), prepared.feature_pixels, prepared.recording.shape, settings.block
        )
        blocks = [block[~near[block]] for block in blocks]
        blocks = [block for block in blocks if len(block)]
        drivers = find_drivers(
            data, blocks, prepared.rule, target=position, near=near, seed=settings.seed
        )
        if drivers is None:
            sentences.append(
                f"Target {label}: no search for drivers, {prepared.fit_size} training frames are"
                " too few for records shifted by more than some windows."
            )
            continue
        told = driver_rows(prepared, str(label), blocks, drivers, settings.error_rate, rate)
        rows += told
        sentences.append(sentence(told, settings.error_rate, rate))
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
    rows = []
    for number in np.lexsort((-drivers.gain, drivers.q)):
        block, lag = blocks[number], int(drivers.lag[number])
        row = dict.fromkeys(COLUMNS, "") | {
            "target": label, "candidate": int(number), "n_series": len(block),
            "gain": float(drivers.gain[number]), "lag_frames": lag,
            "lag_s": lag / rate_hz if rate_hz else "", "p": float(drivers.p[number]),
            "q": float(drivers.q[number]), "discovered": bool(drivers.q[number] <= error_rate),
        }  # fmt: skip
        if shape is None:
            row["candidate"] = prepared.recording.columns[prepared.features[block[0]]]
        else:
            down, across = np.divmod(np.asarray(pixels)[block], shape[1])
            row["row_first"], row["row_last"] = int(down.min()), int(down.max())
            row["column_first"], row["column_last"] = int(across.min()), int(across.max())
        rows.append(row)
    return rows


def out_of_reach(rows: list[dict], error_rate: float) -> str:
    """Return what a search without discoveries cannot have seen, "" where it sees a lone driver."""
    least = least_together(len(rows), error_rate)
    if least == 1:
        return ""
    way = "fewer series" if rows[0]["row_first"] == "" else "a larger --block"
    return (
        f" That is no evidence against a lone one: {SHIFTS} shifted records tell no chance below"
        f" {1 / (1 + SHIFTS):.1g}, so that of {len(rows)} candidates at least {least} must stand"
        f" out together; {way} or a larger --error_rate makes it fewer."
    )


def sentence(rows: list[dict], error_rate: float, rate_hz: float | None) -> str:
    """Return what the search found for one target."""
    hits = [row for row in rows if row["discovered"]]
    asked = f"{100 * error_rate:.3g} %"
    head = f"Target {rows[0]['target']}: "
    if not hits:
        return head + (
            f"no driver found at an asked false discovery rate of {asked} (smallest q"
            f" {rows[0]['q']:.2g} of {len(rows)} candidates)." + out_of_reach(rows, error_rate)
        )
    best = hits[0]
    place = f"series {best['candidate']}"
    if best["row_first"] != "":
        place = (f"rows {best['row_first']} to {best['row_last']}, columns"
                 f" {best['column_first']} to {best['column_last']}")  # fmt: skip
    lag = f"{best['lag_frames']} frames" + (f" ({best['lag_s']:.3g} s)" if rate_hz else "")
    return head + (
        f"{len(hits)} of {len(rows)} candidates hold something about it that its own past and the"
        f" field do not, at an asked false discovery rate of {asked} ({MEASURED}); the"
        f" surest is {place}, {lag} before (q {best['q']:.2g})."
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
    hit = drivers.q <= error_rate
    values = {
        "q (false discovery rate)": drivers.q,
        f"lag in frames, q <= {error_rate:g}": np.where(hit, drivers.lag, np.nan),
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
    )  # fmt: skip
