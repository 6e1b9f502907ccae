"""Open and write movies (frames, height, width) of every kind through one interface.

A movie is handed on in blocks, so that a recording larger than the memory can be resized.
Source: specification, sections 4.2 and 5.1.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

from common.files import InputError, atomic_path
from inputs.array_files import (
    BINARY_SUFFIXES,
    HDF5_SUFFIXES,
    load_array,
    open_binary,
    open_hdf5,
    open_numpy,
)
from inputs.movie import Movie, reader_faults
from inputs.movie_changes import changed
from inputs.scales import NO_SCALES, Scales, scales_of_sidecar
from inputs.sidecars import find_sidecar, remove_sidecar, write_sidecar
from inputs.tiff_files import TIFF_SUFFIXES, open_folder, open_tiff
from inputs.video_files import VIDEO_SUFFIXES, open_gif, open_video
from settings import RunSettings

MOVIE_SUFFIXES = (
    *TIFF_SUFFIXES,
    ".npy",
    ".npz",
    *HDF5_SUFFIXES,
    *BINARY_SUFFIXES,
    *VIDEO_SUFFIXES,
    ".gif",
)
__all__ = [
    "MOVIE_SUFFIXES",
    "Movie",
    "load_array",
    "open_movie",
    "read_movie",
    "reader_faults",
    "write_tiff",
]


SIDECAR_FIELDS = ("rate_hz", "frame_times_s", "row_um", "column_um", "offset")


def open_movie(path: str | Path, *, gray: bool = False, given: RunSettings | None = None) -> Movie:
    """Open a movie file by its suffix, or a folder of single frames.

    Args:
        path: a folder, or one of MOVIE_SUFFIXES.
        gray: True takes the mean of the colour channels; without it colour is refused.
        given: settings with channel, haemodynamic, crop, axes and dataset, None for none of them.
    """
    path, given = Path(path), given or RunSettings()
    if path.is_dir():
        with reader_faults(path):
            return changed(open_folder(path, gray), given)
    if not path.is_file():
        raise InputError(f"{path}: not found, expected a movie file; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes), expected a movie; copy it again")
    suffix = path.suffix.lower()
    with reader_faults(path):
        if suffix in TIFF_SUFFIXES:
            movie = open_tiff(path, gray, given.channel or given.haemodynamic)
        elif suffix in (".npy", ".npz"):
            movie = open_numpy(path, gray, given.axes)
        elif suffix in HDF5_SUFFIXES:
            movie = open_hdf5(path, given.dataset, given.axes)
        elif suffix in BINARY_SUFFIXES:
            movie = open_binary(path)
        elif suffix in VIDEO_SUFFIXES:
            movie = open_video(path, gray)
        elif suffix == ".gif":
            movie = open_gif(path, gray)
        else:
            raise InputError(
                f"{path}: unknown suffix {suffix or '(none)'}, expected one of "
                f"{' '.join(MOVIE_SUFFIXES)}; convert the recording"
            )
    return changed(with_sidecar(movie), given)


def with_sidecar(movie: Movie) -> Movie:
    """Return the movie with the scales that the JSON file beside it tells and its own tags do not.

    The file's own tags win: the JSON file may be older.
    """
    told, name = find_sidecar(movie.path)
    if not told.get("scales"):
        return movie
    beside = scales_of_sidecar(told, name)
    missing = {
        field: getattr(beside, field) for field in SIDECAR_FIELDS
        if getattr(beside, field).value is not None and getattr(movie.scales, field).value is None
    }  # fmt: skip
    scales = replace(movie.scales, **missing)
    if isinstance(part := told.get("part"), dict):  # of crop_tiff_time
        text = f"frames from {part.get('first_frame')} of {part.get('of')} on ({name})"
        scales = replace(scales, note="; ".join(filter(None, (scales.note, text))))
    return replace(movie, scales=scales)


def read_movie(path: str | Path, *, gray: bool = False) -> np.ndarray:
    """Return the movie in ``path`` as (F, H, W), file type, native byte order."""
    return open_movie(path, gray=gray).read()


def write_tiff(
    path: str | Path, movie: np.ndarray, scales: Scales = NO_SCALES, part: dict | None = None
) -> None:
    """Write ``movie`` (F, H, W) as one contiguous TIFF, atomically.

    ``part`` tells which frames of another movie these are: {"of": its name, "first_frame": 8700}.

    ImageJ's format keeps rate and size, but holds three types, no file above 4 GB and no width of
    1; every other movie becomes a plain TIFF (BigTIFF above 2 GB). What the TIFF itself cannot tell
    stands in the JSON file beside it.
    """
    movie = np.asarray(movie)
    large = movie.nbytes > 2**31
    types = (np.uint8, np.uint16, np.float32)
    imagej = not large and movie.shape[2] > 1 and movie.dtype in types
    metadata = {"axes": "TYX"} if imagej else None
    rate_hz = scales.rate_hz.value
    if imagej and rate_hz:
        metadata |= {"fps": rate_hz, "finterval": 1 / rate_hz}
    options = {}
    if imagej and scales.column_um.value:
        metadata["unit"] = "um"
        options["resolution"] = (1 / scales.column_um.value, 1 / scales.row_um.value)
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            movie,
            photometric="minisblack",
            imagej=imagej,
            bigtiff=large,
            metadata=metadata,
            **options,
        )
    beside = scales.frame_times_s.value is not None or scales.offset.value is not None
    if beside or part or (not imagej and scales.known()):
        write_sidecar(path, movie.shape, scales, **({"part": part} if part else {}))
    else:
        remove_sidecar(path)
