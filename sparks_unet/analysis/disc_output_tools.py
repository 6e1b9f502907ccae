"""Write what a prediction gives: TIFF masks and tables; coloured movies: overlays.py.

Sections 8.10 and 8.11 of the specification. T frames, H rows, W columns.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray
from scipy import ndimage

from analysis.preds_processing_tools import Prediction
from common.files import InputError, atomic_path, read_json, write_json
from common.tables import safe_frame
from common.tables import write_table as write_rows
from inputs.calibration import Calibration
from inputs.movie_io import Movie, write_stack
from inputs.stack_writer import write_deflated
from settings.config import CLASSES, EVENT_CLASSES, logger
from settings.recording import Given

if TYPE_CHECKING:
    import pandas as pd

FULL_BITS = 24  # of the significand of a float32
SAMPLE_FRAMES = 16  # looked at for the steps of saved probabilities


def own_name(
    out: Path,
    stem: str,
    movie: Movie,
    calibration: Calibration,
    given: Given | None,
    *,
    network: str = "",
    **how: Any,
) -> None:
    """Write <stem>_source.json: the movie that results of this name belong to, scale and settings.

    Args:
        out: folder.
        stem: beginning of the names.
        movie: Movie with its digest.
        calibration: of the movie, as it is used.
        given: which of its axes, channels and planes were read.
        network: digest of the network that found them, if any.
        how: settings that the results depend on.

    Raises:
        InputError: there are results of another movie, or of another part of it.
    """
    path = Path(out) / f"{stem}_source.json"
    before = read_json(path) if path.is_file() else {}
    read = {name: getattr(given or Given(), name) for name in ("axes", "channel", "z", "linescan")}
    now = {"sha256": movie.sha256, "read": read}
    if before and {name: before.get(name) for name in now} != now:
        what = "another movie of this name"
        if before.get("sha256") == movie.sha256:
            what = "read with another --axes, --channel, --z or --linescan"
        raise InputError(
            f"{out}: holds results {stem} of {before.get('movie')}, {what}, now {movie.source}; "
            "give another --out, or remove them"
        )
    if before and before.get("network_sha256", "") != network:
        logger.warning("%s: the results %s of another network are replaced", out, stem)
    mask = None if movie.cell_mask is None else str(movie.cell_mask)
    told = {"movie": str(movie.source), "cell_mask": mask} | now
    told |= {"network_sha256": network} if network else {}
    write_json(path, told | {"calibration": calibration.record(), "settings": how})


def write_prediction(
    out_dir: str | Path,
    stem: str,
    movie: ndarray,
    prediction: Prediction | None,
    probabilities: ndarray | None,
    *,
    calibration: Calibration,
    table: "pd.DataFrame | None" = None,
    **options: Any,
) -> dict[str, Path]:
    """Write all files of one predicted movie.

    Args:
        out_dir: folder.
        stem: beginning of all names, <run_name>_<epoch>_<id>_<inference>.
        movie: (T, H, W) counts.
        prediction: preds_processing_tools.Prediction, or None to write the probabilities only.
        probabilities: (4, T, H, W) float32, or None.
        calibration: Calibration of the movie.
        table: DataFrame of kinetics.event_table.
        options: raw (default True) writes probabilities, raw_bits (0, FULL_BITS: as they are)
            rounds them to multiples of 2^-raw_bits and deflates them, instances (True) the instance
            masks, source (False) the movie itself as <stem>_xs.tif, truth (None) its class labels
            as <stem>_ys.tif.

    Returns:
        {kind: path}. Source: section 8.11.
    """
    out_dir, written = Path(out_dir), {}

    def stack(kind, array, write=write_deflated):
        written[kind] = write(out_dir / f"{stem}_{kind}.tif", array, calibration=calibration)

    if options.get("raw", True) and probabilities is not None:
        bits = rounding(options.get("raw_bits", 0))
        for name in EVENT_CLASSES:
            one = np.asarray(probabilities[CLASSES[name]], np.float32)
            # all bits of a float32 are noise at the end: deflating saves a twentieth
            stack(f"raw_{name}", *((rounded(one, bits),) if bits else (one, write_stack)))
    if options.get("source"):
        movie = movie if movie.dtype in (np.uint8, np.uint16) else movie.astype(np.float32)
        stack("xs", movie, write_stack)
    if options.get("truth") is not None:
        stack("ys", options["truth"])
    if prediction is None:
        return written
    stack("classes", prediction.classes)
    for name in EVENT_CLASSES:
        stack(f"segmented_{name}", prediction.classes == CLASSES[name])
    if options.get("instances", True):
        stack("instances", sixteen_bit(prediction.instances))
        for name in EVENT_CLASSES:
            stack(f"instances_{name}", sixteen_bit(prediction.instances_of(name)))
    path = out_dir / f"{stem}_spark_locations.csv"
    written["spark_locations"] = write_locations(path, prediction.spark_peaks)
    if table is not None:
        written["events"] = write_table(out_dir / f"{stem}_events.csv", table)
    return written


def rounding(raw_bits: int) -> int:
    """Return the bits that probabilities are rounded to, 0 where all are kept."""
    return raw_bits if raw_bits < FULL_BITS else 0


def rounding_words(raw_bits: int) -> str:
    """Return how probabilities are saved, for the log."""
    bits = rounding(raw_bits)
    how = f"in steps of 2^-{bits} (raw_bits = {FULL_BITS} keeps all)" if bits else "with all bits"
    return f"probabilities are saved {how}; events are found in the exact ones"


def saved_steps(probabilities: ndarray) -> int:
    """Return n where probabilities (T, H, W) are rounded to multiples of 2^-n, otherwise 0.

    Masks of 0 and 1 are not rounded.
    """
    part = probabilities[:: max(1, len(probabilities) // SAMPLE_FRAMES)]
    inside = np.asarray(part[(part > 0) & (part < 1)], np.float64)
    for bits in range(1, FULL_BITS) if inside.size else ():
        scaled = np.ldexp(inside, bits)
        if np.array_equal(scaled, np.rint(scaled)):
            return bits
    return 0


def rounded(probabilities: ndarray, bits: int) -> ndarray:
    """Return float32 probabilities rounded to multiples of 2^-bits: off by half of that at most."""
    return np.ldexp(np.rint(np.ldexp(probabilities, bits)), -bits).astype(np.float32)


def sixteen_bit(instances: ndarray) -> ndarray:
    """Return event ids as uint16; more than 65535 events are an error instead of a wrap-around."""
    highest = int(instances.max(initial=0))
    if highest > np.iinfo(np.uint16).max:
        raise InputError(
            f"{highest} events in one movie do not fit a 16-bit mask; raise thresholds"
        )
    return instances.astype(np.uint16)


def write_table(path: str | Path, table: "pd.DataFrame") -> Path:
    """Write a DataFrame as CSV with six digits; empty cells are quantities that were not found."""
    with atomic_path(path) as temporary:
        safe_frame(table).to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    return Path(path)


def write_locations(path: str | Path, peaks: ndarray) -> Path:
    """Write spark peaks (N, 3) (t, y, x) as CSV with the columns frame,x,y."""
    return write_rows(path, ("frame", "x", "y"), [(int(t), int(x), int(y)) for t, y, x in peaks])


def simple_events(classes: ndarray, events: ndarray) -> list[tuple]:
    """Return a row for each event: id, class, first and last frame, x and y in the first frame.

    Args:
        classes: (T, H, W) class numbers.
        events: (T, H, W) event ids.

    Returns:
        List of tuples; x and y are the centre of mass, rounded to 2 decimals. Source: section 8.10.
    """
    rows = []
    for number, frames, region, box in _regions(events):
        y, x = np.nonzero(region[0])
        kind = int(np.bincount(classes[box][region]).argmax())
        centre = (
            round(float(x.mean()) + box[2].start, 2),
            round(float(y.mean()) + box[1].start, 2),
        )
        rows.append((number, kind, frames.start, frames.stop - 1, *centre))
    return rows


def write_event_lists(
    folder: str | Path, movie_id: str, classes: ndarray, events: ndarray
) -> tuple[Path, Path]:
    """Write <id>_events_simple.csv (a row an event) and <id>_events_full.csv (a row a frame).

    The full list gives the pixels of each event in each frame as "x:y" joined by blanks.
    """
    folder = Path(folder)
    simple = write_rows(
        folder / f"{movie_id}_events_simple.csv",
        ("id", "class", "start_frame", "end_frame", "x", "y"),
        simple_events(classes, events),
    )
    rows = []
    for number, frames, region, box in _regions(events):
        kind = int(np.bincount(classes[box][region]).argmax())
        for frame, mask in enumerate(region, start=frames.start):
            y, x = np.nonzero(mask)
            pixels = " ".join(
                f"{a}:{b}" for a, b in zip(x + box[2].start, y + box[1].start, strict=True)
            )
            rows.append((number, kind, frame, len(x), pixels))
    header = ("id", "class", "frame", "n_pixels", "pixels_x_y")
    return simple, write_rows(folder / f"{movie_id}_events_full.csv", header, rows)


def _regions(events):
    """Yield (id, frames, mask in the box, box) of every event."""
    for number, box in enumerate(ndimage.find_objects(events.astype(np.int32)), start=1):
        if box is not None:
            yield number, box[0], events[box] == number, box
