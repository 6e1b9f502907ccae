"""Read movies that lie in arrays: NPY, NPZ, HDF5 (and MATLAB 7.3), and the binary of wfield."""

import re
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np

from common.files import InputError
from common.limits import check_shape
from inputs.movie import Movie, frames_per_block, native, to_gray
from inputs.scales import NO_SCALES, Scales

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".mat", ".nwb")
BINARY_SUFFIXES = (".dat", ".bin")
# wfield: frames_<channels>_<height>_<width>_<type>.dat
BINARY_NAME = re.compile(r".*_(\d+)_(\d+)_(\d+)_(u?int(?:8|16|32)|float(?:32|64))\.(?:dat|bin)")
FRAME, ROW, COLUMN, SERIES = "FT", "HY", "WX", "KN"
SWAPPED = 3  # an axis that many times longer than both others is that of the frames
SWAPPED_FRAMES = 100  # with fewer frames the lengths of the axes tell nothing


def load_array(path: Path) -> np.ndarray:
    """Return the array of an NPY file (memory mapped) or the only array of an NPZ file."""
    with open(path, "rb") as handle:
        head = handle.read(6)
    wanted = b"\x93NUMPY" if path.suffix.lower() == ".npy" else b"PK"
    if head and not head.startswith(wanted):  # NumPy would take it for pickled objects
        kind = path.suffix.lower().removeprefix(".").upper()
        raise InputError(f"{path}: found no {kind} file, expected one; save it with NumPy again")
    if path.suffix.lower() == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        try:
            with np.load(path, allow_pickle=False) as archive:
                names = [n for n in ("movie", "video") if n in archive.files] or archive.files
                if len(names) != 1:
                    raise InputError(
                        f"{path}: found arrays {', '.join(archive.files)}, expected one, or one "
                        "named movie; save it alone"
                    )
                check_npz_member(path, names[0])
                array = archive[names[0]]
        except (zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: the archive is damaged ({error}); save it again") from error
    check_type(path, array)
    return array


def check_npz_member(path: Path, name: str) -> None:
    """Refuse an array of an NPZ whose header asks for more memory than there is."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as handle:
        version = np.lib.format.read_magic(handle)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(handle)
    check_shape(shape, dtype.itemsize, f"{path}: an array")


def check_type(path: Path, array: np.ndarray) -> None:
    """Refuse an array that holds no plain numbers, or none at all."""
    if array.dtype.kind not in "uif" or array.dtype.itemsize > 8:
        raise InputError(
            f"{path}: found values of type {array.dtype}, expected integers or floats up to 64 bits"
        )
    if array.size == 0:
        raise InputError(f"{path}: found an empty array of shape {array.shape}, expected frames")


def axis_order(text: str, n_axes: int, path: Path) -> tuple[int, ...] | None:
    """Return the order that brings axes named by ``text`` to frames first, or None without it.

    F (or T) frames, H (Y) rows, W (X) columns, K (N) series.
    """
    if not text:
        return None
    wanted = (FRAME, ROW, COLUMN) if n_axes == 3 else (FRAME, SERIES)
    names = text.upper()
    order = [next((i for i, name in enumerate(names) if name in kind), -1) for kind in wanted]
    if len(names) != n_axes or sorted(order) != list(range(n_axes)):
        expected = "F, H and W, such as HWF" if n_axes == 3 else "F and K, such as KF"
        raise InputError(f"{path}: --axes: found {text!r}, expected {expected}, one letter an axis")
    return tuple(order)


def ordered(array: np.ndarray, axes: str, path: Path) -> np.ndarray:
    """Return an array of three axes with the frames first; axes that look swapped are asked for."""
    order = axis_order(axes, array.ndim, path)
    if order is not None:
        return array.transpose(order)
    first, second, last = array.shape
    if last >= SWAPPED * max(first, second) and last >= SWAPPED_FRAMES:
        raise InputError(
            f"{path}: found axes of {first} x {second} x {last}, expected frames x height x width:"
            " are the frames last? give --axes HWF, or --axes FHW if they are first"
        )
    return array


def open_numpy(path: Path, gray: bool, axes: str = "") -> Movie:
    """Open an array (F, H, W), or (F, H, W, 3) with ``gray``; ``axes`` names another order."""
    array = load_array(path)
    colour = array.ndim == 4 and array.shape[-1] in (3, 4)
    if array.ndim != 3 and not colour:
        raise InputError(
            f"{path}: found an array of shape {array.shape}, expected (frames, height, width)"
        )
    array = array if colour else ordered(array, axes, path)
    n_frames, height, width = array.shape[:3]
    step = frames_per_block(height, width, array.itemsize)

    whole = isinstance(array, np.memmap) and array.flags.c_contiguous

    def part_of(start):
        if not whole:
            return array[start : start + step]
        # Mapped anew for each block: pages of a file mapped whole stay in memory.
        shape = (min(step, n_frames - start), *array.shape[1:])
        place = array.offset + start * array.strides[0]
        return np.memmap(path, array.dtype, "r", place, shape)

    def blocks():
        for start in range(0, n_frames, step):
            block = native(part_of(start))
            yield to_gray(block, path, gray) if colour else block  # (b, H, W)

    dtype = np.dtype(np.float32) if colour and gray else array.dtype.newbyteorder("=")
    # In order and in this machine's byte order: such frames can stay where they are.
    plain = not colour and array.dtype.isnative and array.flags.c_contiguous
    mapped = array if plain else None
    return Movie(path, n_frames, height, width, dtype, blocks, mapped=mapped)


def open_hdf5(path: Path, dataset: str = "", axes: str = "") -> Movie:
    """Open a dataset of three axes in an HDF5 file; ``dataset`` names it where there are several.

    MATLAB writes its arrays the other way round: (H, W, F) there is (F, W, H) in the file.
    """
    if not h5py.is_hdf5(path):
        matlab = path.suffix.lower() == ".mat"
        kind = "no HDF5, or a MATLAB file of before 7.3" if matlab else "no HDF5"
        raise InputError(
            f"{path}: found {kind}, expected HDF5; save it with -v7.3, or as NPY or TIFF"
        )
    with h5py.File(path, "r") as handle:
        names = []
        handle.visititems(
            lambda name, item: (
                names.append(name)
                if isinstance(item, h5py.Dataset) and item.ndim == 3 and item.dtype.kind in "uif"
                else None
            )
        )
        chosen = dataset.strip("/")
        if chosen and chosen not in names:
            raise InputError(
                f"{path}: found no dataset {dataset!r} of three axes, expected one of"
                f" {', '.join(names[:8]) or 'none'}; see --dataset"
            )
        if not chosen and len(names) != 1:
            raise InputError(
                f"{path}: found {len(names)} datasets of three axes ({', '.join(names[:8])}),"
                " expected one; name it with --dataset"
            )
        chosen = chosen or names[0]
        item = handle[chosen]
        check_type(path, item)
        matlab = "MATLAB_class" in item.attrs
        shape, dtype = item.shape, item.dtype.newbyteorder("=")
    # The letters of the axes as they lie in the file.
    letters = axes or ("FWH" if matlab else "")
    order = axis_order(letters, 3, path)
    if order is None:
        ordered(np.broadcast_to(np.zeros((), dtype), shape), "", path)  # asks when it looks swapped
        order = (0, 1, 2)
    n_frames, height, width = (shape[axis] for axis in order)
    step = frames_per_block(height, width, dtype.itemsize)

    def blocks():
        with h5py.File(path, "r") as handle:
            stored = handle[chosen]
            for start in range(0, n_frames, step):
                part = [slice(None)] * 3
                part[order[0]] = slice(start, start + step)
                yield native(stored[tuple(part)].transpose(order))

    turned = ", axes turned as MATLAB writes them" if matlab and not axes else ""
    note = f"dataset {chosen}{turned}"
    return Movie(path, n_frames, height, width, dtype, blocks, Scales(note=note))


def open_binary(path: Path) -> Movie:
    """Open the bare binary of wfield, whose name tells channels, height, width and type."""
    told = BINARY_NAME.fullmatch(path.name)
    if not told:
        raise InputError(
            f"{path}: found a binary of unknown layout, expected a name as wfield gives it:"
            " frames_<channels>_<height>_<width>_<type>.dat; rename it so"
        )
    channels, height, width = (int(part) for part in told.groups()[:3])
    dtype = np.dtype(told[4])
    frame = height * width * dtype.itemsize
    count, rest = divmod(path.stat().st_size, max(1, frame))
    if not frame or rest or count % channels:
        raise InputError(
            f"{path}: found {path.stat().st_size} bytes, expected whole frames of {channels} x"
            f" {height} x {width} {dtype}: the file is cut, or its name is wrong"
        )
    array = np.memmap(path, dtype, "r", shape=(count, height, width))
    step = frames_per_block(height, width, dtype.itemsize)

    def blocks():
        for start in range(0, count, step):
            yield native(array[start : start + step])

    return Movie(path, count, height, width, dtype, blocks, NO_SCALES, channels=channels)
