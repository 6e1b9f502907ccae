"""Resize a recording, cut it in space or time, and write it as NPY, TIFF and CSV.

resize_video resizes (it keeps the whole field); crop_video cuts a part out.
Source: specification, sections 5.1, 5.3 and 5.4.
"""

import argparse
import contextlib
import gzip
import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from common.files import InputError, atomic_path, read_json, write_json
from common.hashes import hashed_file, sha256
from common.limits import check_free_space
from common.locks import hold, writing
from inputs.csv_files import number_labels
from inputs.film import with_bar
from inputs.movie import held_in_float32
from inputs.movie_files import MOVIE_SUFFIXES, Movie, open_movie, read_movie, write_tiff
from inputs.scales import (
    NO_SCALES,
    Known,
    Scales,
    check_times_fit,
    give,
    scales_of_sidecar,
    sidecar_of_scales,
)
from inputs.sidecars import write_sidecar
from settings import RunSettings, given_scales

MOST_OPEN = 200  # files that are held open while they are read: systems allow 256 or more
ROWS_AT_ONCE = 256  # frames written to a CSV at once
READING = ("channel", "haemodynamic", "crop", "axes", "dataset")  # change what is resized


def reader(video_dir: str | Path, *, gray: bool = False) -> np.ndarray:
    """Return the movie in ``video_dir`` (a file of any kind) as (F, H, W), native byte order.

    Differs: the published resize.py calls a function of this name that was deleted.
    """
    return read_movie(video_dir, gray=gray)


def resize_block(block: np.ndarray, new_width: int, new_height: int) -> np.ndarray:
    """Return frames (b, H, W) resized to (b, new_height, new_width) float32.

    Pillow's bilinear filter, antialiased when shrinking; every frame becomes float32 first.
    """
    # Differs: the reference resizes integer frames as they are, which rounds the result.
    frames = np.asarray(block, np.float32)
    size = (new_width, new_height)
    bilinear = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(f).resize(size, bilinear)) for f in frames])


def resized_names(output_dir: str | Path) -> tuple[Path, Path, Path]:
    """Return the names resized_video.tiff, resized.npy and resized.json of a resized movie."""
    tiff = Path(output_dir)
    if tiff.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(
            f"{tiff}: expected the name of a TIFF file, for example resized_video.tiff"
        )
    stem = tiff.stem.removesuffix("_video")
    return tiff, tiff.with_name(f"{stem}.npy"), tiff.with_name(f"{stem}.json")


def resize_video(
    video_dir: str | Path,
    output_dir: str | Path,
    new_width: int,
    new_height: int,
    *,
    gray: bool = False,
    given: RunSettings | None = None,
) -> np.ndarray:
    """Resize a movie, or reuse the files of an earlier call with the same input and size.

    Args:
        video_dir: movie file.
        output_dir: name of the TIFF to write; NPY and JSON go beside it (names kept from the
            published function, although both are files).
        new_width, new_height: pixels, width first.
        given: settings with the scales, channel, crop, axes and dataset of the movie.

    Returns:
        (F, new_height, new_width) float32, memory mapped from the NPY file.
    """
    video_dir = Path(video_dir)
    tiff, npy, record = resized_names(output_dir)
    movie = open_given(video_dir, gray, given)
    files = movie.files or (video_dir,)
    keep_source(files, (tiff, npy, record))
    with contextlib.ExitStack() as opened:
        opened.enter_context(writing(tiff.parent))
        digests = [opened.enter_context(hashed_file(f)).sha256 for f in files[:MOST_OPEN]]
        digests += [sha256(file) for file in files[MOST_OPEN:]]
        key = {
            "source": video_dir.name,
            "source_sha256": digests[0] if len(files) == 1 else ",".join(digests),
            "new_width": new_width,
            "new_height": new_height,
            "gray": gray,
            "libraries": {name: importlib.metadata.version(name) for name in ("numpy", "pillow")},
            "source_scales": sidecar_of_scales(movie.scales),
        }
        key |= {name: value for name in READING if (value := getattr(given, name, ""))}
        return resize_opened(movie, (tiff, npy, record), (new_height, new_width), key)


def open_given(video_dir: Path, gray: bool, given: RunSettings | None) -> Movie:
    """Open the movie that is resized, with the scales that were given for it."""
    movie = open_movie(video_dir, gray=gray, given=given)
    if given is None:
        return movie
    scales = give(movie.scales, given, video_dir, (movie.height, movie.width))
    if movie.n_frames is not None:
        check_times_fit(scales, movie.n_frames, video_dir)
    return replace(movie, scales=scales)


def keep_source(files: Sequence[Path], results: Sequence[Path]) -> None:
    """Refuse results that would take the place of what they are made from."""
    sources = {Path(file).resolve() for file in files}
    for result in results:
        if Path(result).resolve() in sources:
            raise InputError(
                f"{result}: is the movie itself, which the result of that name would replace; give"
                " another folder (--output_dir) or name"
            )


def resize_opened(
    movie: Movie, names: tuple[Path, Path, Path], size: tuple[int, int], key: dict
) -> np.ndarray:
    """Resize an opened movie to ``size`` (height, width), or return what an equal call has left.

    Args:
        names: TIFF, NPY and JSON file.
        key: what the files were made from; they are reused only for the same.
    """
    (tiff, npy, record), (new_height, new_width) = names, size
    # Differs: the reference reuses resized.npy whatever video it was made from.
    if cache_holds(tiff, npy, record, key):
        print(f"{npy}: exists for the same movie and size, reused")
        return np.load(npy, mmap_mode="r", allow_pickle=False)
    factors = movie.height / new_height, movie.width / new_width
    if not 0.95 <= factors[0] / factors[1] <= 1.05:
        print(
            f"warning: {movie.path}: height shrinks {factors[0]:.3g} times, width {factors[1]:.3g} "
            "times: the aspect ratio changes by more than 5 %",
            file=sys.stderr,
        )
    if movie.n_frames is not None:
        frames = movie.n_frames * new_height * new_width * 4
        check_free_space(npy.parent, 2 * frames, f"{npy.name} and {tiff.name}")
    record.unlink(missing_ok=True)
    with atomic_path(npy) as temporary:
        n_frames = write_resized(movie, temporary, new_width, new_height)
        check_times_fit(movie.scales, n_frames, movie.path)
    video = np.load(npy, mmap_mode="r", allow_pickle=False)
    scales = resized_scales(movie, video.shape)
    write_tiff(tiff, video, scales)
    files = {name.name: name.stat().st_size for name in (tiff, npy)}
    write_json(
        record,
        key
        | {"F": n_frames, "H": new_height, "W": new_width, "files": files}
        | {"scales": sidecar_of_scales(scales)},
    )
    return video


def resized_scales(movie: Movie, shape: tuple[int, ...]) -> Scales:
    """Return the Scales of a movie that was resized to ``shape`` (F, H, W): larger pixels."""
    scales = movie.scales
    if not scales.column_um.value:
        return scales
    row, column = scales.row_um, scales.column_um
    return replace(
        scales,
        row_um=Known(row.value * movie.height / shape[1], row.origin),
        column_um=Known(column.value * movie.width / shape[2], column.origin),
    )


def write_resized(movie: Movie, path: Path, new_width: int, new_height: int) -> int:
    """Resize block by block into the NPY file ``path``; return the number of frames."""
    if movie.n_frames is None:  # a video file: only decoding tells the number of frames
        blocks = held_in_float32(movie.blocks(), movie.path)
        done = np.concatenate([resize_block(b, new_width, new_height) for b in blocks])
        np.save(path, done)
        return len(done)
    shape = (movie.n_frames, new_height, new_width)
    out, start = np.lib.format.open_memmap(path, "w+", np.float32, shape), 0
    blocks = held_in_float32(movie.blocks(), movie.path)
    for block in with_bar(blocks, movie.n_frames, "resize"):
        out[start : start + len(block)] = resize_block(block, new_width, new_height)
        start += len(block)
    out.flush()
    return start


def cache_holds(tiff: Path, npy: Path, record: Path, key: dict) -> bool:
    """Return True when the files of an earlier resize belong to ``key`` and are complete."""
    if not (tiff.is_file() and npy.is_file() and record.is_file()):
        return False
    told = read_json(record)
    files = {name.name: name.stat().st_size for name in (tiff, npy)}
    return all(told.get(name) == value for name, value in (key | {"files": files}).items())


def convert_csv(
    video_np: np.ndarray,
    csv_path: str | Path = "resized_data.csv",
    *,
    scales: Scales = NO_SCALES,
) -> Path:
    """Write a movie (F, H, W) as a pixel CSV, one frame a row, header 0..H*W-1.

    Beside it goes <name>.csv.json with F, H, W, the scales and the size of the CSV, so that a cut
    file is noticed.
    Differs: the published header is a comment with one name too few (section 4.3).
    """
    video_np = np.asanyarray(video_np)
    if video_np.ndim != 3:
        raise InputError(f"movie of shape {video_np.shape}, expected (frames, height, width)")
    csv_path = Path(csv_path)
    write_matrix(csv_path, video_np.reshape(len(video_np), -1))
    write_sidecar(csv_path, video_np.shape, scales, bytes=csv_path.stat().st_size)
    return csv_path


def write_matrix(path: Path, matrix: np.ndarray, last: np.ndarray | None = None) -> None:
    """Write a matrix (F, K), and the column ``last`` (F,) behind it, as CSV with labels 0.."""
    count = matrix.shape[1] + (last is not None)
    number = "%d" if matrix.dtype.kind in "iu" else "%.9g"
    line = ",".join([number] * count) + "\n"
    packed = path.name.lower().endswith(".gz")
    with (
        atomic_path(path) as temporary,
        (gzip.open if packed else open)(temporary, "wt", encoding="ascii", newline="\n") as out,
    ):
        out.write(",".join(number_labels(count)) + "\n")
        for start in range(0, len(matrix), ROWS_AT_ONCE):
            rows = np.asarray(matrix[start : start + ROWS_AT_ONCE])
            if last is not None:
                rows = np.column_stack((rows, last[start : start + ROWS_AT_ONCE]))
            out.writelines(line % tuple(row) for row in rows.tolist())


def crop_video(video: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Return the part of a movie (F, H, W) with its upper left pixel at (top, left)."""
    rows, columns = video.shape[1:]
    inside = top >= 0 and left >= 0 and top + height <= rows and left + width <= columns
    if height < 1 or width < 1 or not inside:
        raise InputError(
            f"crop of {height} x {width} at row {top}, column {left}: expected a part of the "
            f"{rows} x {columns} image"
        )
    return video[:, top : top + height, left : left + width]


def crop_tiff_time(
    video_path: str | Path,
    output_path: str | Path,
    start: int | None = None,
    stop: int | None = None,
) -> Path:
    """Write the frames start..stop-1 of a movie as TIFF; the default is the last 30 %.

    The default start is int(0.7 F), the first frame of the test part (8,700 of 29,000 frames).
    """
    movie = open_movie(video_path)
    keep_source(movie.files or (video_path,), (output_path,))
    video = movie.read()
    n_frames = len(video)
    start = int(n_frames * 0.7) if start is None else start
    stop = n_frames if stop is None else stop
    if not 0 <= start < stop <= n_frames:
        raise InputError(
            f"{video_path}: frames {start} to {stop} asked for, expected 0 <= start < stop <= "
            f"{n_frames}"
        )
    part = {"of": Path(video_path).name, "first_frame": start}
    write_tiff(output_path, video[start:stop], part_of(movie.scales, start, stop), part)
    return Path(output_path)


def part_of(scales: Scales, start: int, stop: int) -> Scales:
    """Return the Scales of frames start .. stop-1."""
    times = scales.frame_times_s
    if times.value is None:
        return scales
    return replace(scales, frame_times_s=Known(times.value[start:stop], times.origin))


def split_borders(width: int, number_splits: int) -> list[tuple[int, int]]:
    """Return (left, right) of each strip: the first width mod n strips are one pixel wider.

    Differs: the reference divides by 7 whatever n is and drops the remaining columns.
    """
    if not 1 <= number_splits <= width:
        raise InputError(f"{number_splits} splits asked for, expected 1 to {width} (the width)")
    base, rest = divmod(width, number_splits)
    rights = np.cumsum([base + (i < rest) for i in range(number_splits)]).tolist()
    return list(zip([0, *rights[:-1]], rights, strict=True))


def find_pixel(video: np.ndarray, series: np.ndarray) -> tuple[int, int]:
    """Return (row, column) of the only pixel of ``video`` whose series equals ``series``."""
    series = np.asarray(series)
    if series.shape != (len(video),):
        raise InputError(
            f"target series of shape {series.shape}, expected one value for each of {len(video)} "
            "frames"
        )
    same = np.argwhere((video == series[:, None, None]).all(axis=0))
    if len(same) != 1:
        raise InputError(
            f"{len(same)} pixels equal the target series, expected one; give target_rc=(row, "
            "column)"
        )
    return tuple(same[0].tolist())


def crop_numpy_width(
    numpy_array: np.ndarray,
    output_dir: str | Path,
    target_col: np.ndarray | None,
    number_splits: int,
    target_rc: tuple[int, int] | None = None,
    *,
    scales: Scales | None = None,
) -> list[Path]:
    """Cut a movie into vertical strips, each with the target series, as CSV and TIFF.

    Args:
        numpy_array: (F, H, W).
        output_dir: folder for crop_<i>.csv, video_<i>.tiff and splits.json.
        target_col: (F,) series of the target, or None when ``target_rc`` is given.
        number_splits: number of strips n.
        target_rc: (row, column) of the target; found from the series when it is left out.
        scales: Scales of the movie, told in splits.json.

    Returns:
        list of the CSV paths. A strip without the target pixel carries the target's series as last
        column, labelled H * width of the strip.
    """
    video = np.asanyarray(numpy_array)
    if video.ndim != 3:
        raise InputError(f"movie of shape {video.shape}, expected (frames, height, width)")
    n_frames, height, width = video.shape
    borders = split_borders(width, number_splits)
    row, column = find_pixel(video, target_col) if target_rc is None else map(int, target_rc)
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(
            f"target row {row}, column {column} lies outside the movie, expected rows "
            f"0..{height - 1} and columns 0..{width - 1}"
        )
    series = np.asarray(video[:, row, column])
    if target_col is not None and not np.array_equal(series, target_col):
        raise InputError(
            f"the target series is not that of row {row}, column {column}; leave one of them out"
        )
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    record = output_dir / "splits.json"
    if record.is_file():
        remove_split_files(output_dir, read_json(record).get("n_splits", 0))
        record.unlink()
    entries, paths = [], []
    for index, (left, right) in enumerate(borders):
        crop = np.ascontiguousarray(video[:, :, left:right])  # (F, H, w)
        inside = left <= column < right
        position = row * (right - left) + column - left if inside else height * (right - left)
        path = output_dir / f"crop_{index}.csv"
        write_matrix(path, crop.reshape(n_frames, -1), None if inside else series)
        write_tiff(output_dir / f"video_{index}.tiff", crop, scales or NO_SCALES)
        entries.append(
            {
                "left": left,
                "right": right,
                "width": right - left,
                "target_label": str(position),
                "target_column": position,
                "contains_target": inside,
                "bytes": path.stat().st_size,
            }
        )
        paths.append(path)
    told = {"F": n_frames, "H": height, "W": width, "n_splits": number_splits}
    if scales is not None:
        told["scales"] = sidecar_of_scales(scales)
    # Written last: splits.json tells of complete files only.
    write_json(record, told | {"target_row": row, "target_col": column, "splits": entries})
    return paths


def remove_split_files(folder: Path, count: int) -> None:
    """Remove the files of an earlier call, so that strips of two calls never stand together."""
    for index in range(count):
        for name in (f"crop_{index}.csv", f"video_{index}.tiff", f"video_{index}.tiff.json"):
            (folder / name).unlink(missing_ok=True)


def row_column(parts: Sequence[str]) -> tuple[int, int]:
    """Return (row, column) from two texts."""
    try:
        row, column = (int(part) for part in parts)
    except ValueError:
        given = ",".join(parts)
        raise InputError(f"--target: found {given}, expected row,column such as 20,25") from None
    return row, column


def check_further_files(chosen: argparse.Namespace) -> None:
    """Refuse, before anything is written, names and frames of further files that cannot be."""
    out = Path(chosen.output_dir)
    results = [out / "test_part.tiff"] if chosen.crop_time else []
    if chosen.csv_path:
        path = out / chosen.csv_path
        in_splits = path.parent.resolve() == (out / "splits").resolve()
        if in_splits or path.suffix.lower() in (*MOVIE_SUFFIXES, ".json"):
            raise InputError(
                f"--csv_path: found {chosen.csv_path}, expected the name of a CSV that is none of"
                " the other results, such as resized.csv or resized.csv.gz"
            )
        results.append(path)
    keep_source((chosen.video_dir,), results)
    if Path(chosen.video_dir).resolve().parent == (out / "splits").resolve():
        raise InputError(
            f"{chosen.video_dir}: lies in the folder of the splits, which are made anew; give"
            " another folder (--output_dir)"
        )
    if {"start", "stop"} & chosen.given and not chosen.crop_time:
        print(
            "warning: --start and --stop: without --crop_time no part is cut out", file=sys.stderr
        )
    if chosen.crop_time and chosen.start >= 0 and -1 < chosen.stop <= chosen.start:
        raise InputError(
            f"--start {chosen.start} --stop {chosen.stop}: expected a stop behind the start"
        )


def resize_and_split(chosen: argparse.Namespace) -> None:
    """Resize one movie and write its splits; ``chosen`` holds the flags of resize.py."""
    target = row_column(chosen.target)
    if not (target[0] < chosen.new_height and target[1] < chosen.new_width and min(target) >= 0):
        raise InputError(
            f"--target {target[0]},{target[1]} lies outside the resized movie of "
            f"{chosen.new_height} rows and {chosen.new_width} columns"
        )
    split_borders(chosen.new_width, chosen.number_splits)
    out = chosen.output_dir
    check_further_files(chosen)
    hold(out)
    tiff = out / "resized_video.tiff"
    size = chosen.new_width, chosen.new_height
    given = given_scales(chosen)
    video = resize_video(chosen.video_dir, tiff, *size, gray=chosen.gray, given=given)
    scales = scales_of_sidecar(read_json(out / "resized.json"), "resized.json")
    splits = crop_numpy_width(
        video, out / "splits", None, chosen.number_splits, target_rc=target, scales=scales
    )
    print(f"{tiff}: {video.shape[0]} frames of {video.shape[1]} x {video.shape[2]}")
    print(f"{out / 'splits'}: {len(splits)} splits, target row {target[0]}, column {target[1]}")
    if chosen.csv_path:
        print(convert_csv(video, out / chosen.csv_path, scales=scales))
    if chosen.crop_time:
        start, stop = (None if frame < 0 else frame for frame in (chosen.start, chosen.stop))
        print(crop_tiff_time(tiff, out / "test_part.tiff", start, stop))
