"""Join the maps of splits into the full frame (section 8.5)."""

import argparse
import re
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.heatmap import write_movie
from analysis.map_figures import draw_stills
from common.files import InputError, atomic_path, read_json, write_json
from common.locks import visible, writing
from inputs.movie_files import read_movie
from network.checkpoints import load_weight_tensor


@dataclass(frozen=True)
class Strip:
    """Map of one split, without its target.

    Attributes:
        folder: its results folder.
        values: (n_test, N_i) signed weighted input at step 1, or attention.
        height, width: pixels, 0 when unknown.
        target_local: 0-based pixel of the target inside the split, None when it lies elsewhere.
        n_total: number of frames of the recording, 0 when unknown.
    """

    folder: Path
    values: np.ndarray
    height: int
    width: int
    target_local: int | None
    n_total: int


def find_folders(root_folder: str | Path) -> list[Path]:
    """Return the folders results_<i> in the order of their numbers, from 0 or 1 without a gap."""
    root_folder = Path(root_folder)
    numbered = {}
    for folder in visible(root_folder, "results_*"):
        if folder.is_dir() and (match := re.fullmatch(r"results_(\d+)", folder.name)):
            numbered[int(match[1])] = folder
    if not numbered:
        raise InputError(f"{root_folder}: found no folder results_<i>, expected one a split")
    first, last = min(numbered), max(numbered)
    # Differs: the reference skips a missing folder, and the image gets narrower.
    missing = [str(i) for i in range(min(first, 1), last + 1) if i not in numbered]
    if missing:
        raise InputError(
            f"{root_folder}: found results_{first} to results_{last} without results_"
            f"{', results_'.join(missing)}, expected all splits; train the missing ones"
        )
    return [numbered[i] for i in sorted(numbered)]


def check_order(folders: list[Path]) -> None:
    """Refuse runs that tell that they were trained on other crops than their places say.

    Splits of one width look alike: only the recording in settings.json tells them apart.
    """
    crops = []
    for folder in folders:
        record = folder / "settings.json"
        told = read_json(record).get("settings", {}) if record.is_file() else {}
        match = re.fullmatch(r"crop_(\d+)\.csv(\.gz)?", Path(str(told.get("data", ""))).name)
        if not match:
            return  # results of the published project, or of files of other names
        crops.append(int(match[1]))
    for place, (folder, crop) in enumerate(zip(folders, crops, strict=True)):
        if crop != place:
            raise InputError(
                f"{folder}: was trained on crop_{crop}.csv, expected crop_{place}.csv at this place"
                " (settings.json): number the folders like the crops"
            )


def read_attention(folder: Path) -> dict | None:
    """Return the content of attention.npz as a dict, None when the folder has none."""
    path = folder / "attention.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        height, width = (int(n) for n in arrays["shape"])
        attention, pixels = arrays["attention"], arrays["feature_pixels"]
        targets = [int(pixel) for pixel in arrays["target_pixels"] if pixel >= 0]
        fits = attention.ndim == 2 and attention.shape[1] == len(pixels)
        if not fits or len(pixels) + len(targets) != height * width:
            raise ValueError(f"{len(pixels)} pixels do not fill {height} x {width}")
        total = int(arrays["first_frame"]) + len(attention)
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error}), expected the attention of "
            "one split and one target; predict again with main_predict.py"
        ) from None
    if len(targets) > 1:
        raise InputError(f"{path}: found {len(targets)} targets, expected one; train one target")
    place = targets[0] if targets else None
    return {"attention": attention, "shape": (height, width), "target": place, "total": total}


def read_strips(
    folders: list[Path],
    *,
    kind: str,
    height: int | None,
    width: int | None,
    target_local: int | None,
) -> list[Strip]:
    """Return a Strip of each folder; ``kind`` is "attention" or "reference"."""
    strips = []
    for folder in folders:
        told = read_attention(folder)
        if kind == "attention":
            if told is None:
                raise InputError(f"{folder}: found no attention.npz; choose --map reference")
            values = told["attention"]
        else:
            values = read_step1(folder / "weight_tensor_rs.pt")
        if told is not None:
            (strip_h, strip_w), place = told["shape"], told["target"]
            if height and height != strip_h:
                raise InputError(
                    f"--height: found {height}, expected {strip_h} as {folder / 'attention.npz'}"
                    " tells; leave it out"
                )
            total = told["total"]
        else:
            strip_h, strip_w, place = old_shape(
                folder, values.shape[1], height, width, target_local
            )
            total = 0
        expected = strip_h * strip_w - (place is not None)
        if strip_h and values.shape[1] != expected:
            raise InputError(
                f"{folder}: found {values.shape[1]} pixels, expected {expected} ({strip_h} x "
                f"{strip_w}); the files belong to different runs"
            )
        strips.append(Strip(folder, values, strip_h, strip_w, place, total))
    return strips


def read_step1(path: Path) -> np.ndarray:
    """Return the signed weighted input at step index 1, (n_test, N) float32."""
    tensor = load_weight_tensor(path)
    if tensor.shape[1] < 2:
        raise InputError(
            f"{path}: found {tensor.shape[1]} step, expected at least 2 (the published map shows "
            "step index 1); train with T >= 3 or choose --map attention"
        )
    return tensor[:, 1].numpy().copy()  # a copy, so that the other steps leave the memory


def old_shape(
    folder: Path, count: int, height: int | None, width: int | None, target_local: int | None
) -> tuple[int, int, int | None]:
    """Return (height, width, target place or None) of a split that only has a weight tensor.

    The split with height * width - 1 features holds the target (section 8.5).
    """
    if not height:
        return 0, 0, None
    strip_w = width or -(-count // height)
    if count == height * strip_w:
        return height, strip_w, None
    if count != height * strip_w - 1:
        raise InputError(
            f"{folder}: found {count} pixels, expected {height * strip_w} or one fewer (height "
            f"{height}, width {strip_w}); check --height and --width"
        )
    if target_local is None:
        raise InputError(
            f"{folder}: this split holds the target, but its place is not known; give "
            "--target_local (row * width of the split + column)"
        )
    return height, strip_w, target_local


def check_splits(strips: list[Strip], record: Path) -> list[Strip]:
    """Return the strips with size and target of splits.json; refuse folders that disagree."""
    told = read_json(record)
    try:
        height, column, row = told["H"], told["target_col"], told["target_row"]
        entries = [(int(e["left"]), int(e["width"])) for e in told["splits"]]
        total = int(told["F"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{record}: lacks {error}; run resize.py again") from None
    if len(entries) != len(strips):
        raise InputError(
            f"{record}: tells of {len(entries)} splits, found {len(strips)} results folders, "
            "expected as many; give the splits.json these were trained on"
        )
    checked = []
    for strip, (left, width) in zip(strips, entries, strict=True):
        place = row * width + column - left if left <= column < left + width else None
        expected = height * width - (place is not None)
        known = strip.height > 0 and (strip.height, strip.width, strip.target_local) != (
            height,
            width,
            place,
        )
        if strip.values.shape[1] != expected or known:
            raise InputError(
                f"{strip.folder}: found {strip.values.shape[1]} pixels, {record.name} expects "
                f"{expected} ({height} x {width}"
                f"{', target at ' + str(place) if place is not None else ''}); give the "
                "splits.json these were trained on"
            )
        checked.append(Strip(strip.folder, strip.values, height, width, place, total))
    return checked


def concat_weight_tensors(
    root_folder: str | Path,
    frameNo: int | None = None,
    height: int | None = None,
    width: int | None = None,
    *,
    splits: str | Path | None = None,
    target_local: int | None = None,
    kind: str = "reference",
    raw: bool = False,
) -> dict:
    """Join the splits of ``root_folder`` into maps of the full frame.

    Args:
        root_folder: holds results_<i>/.
        frameNo, height, width: test frames, height and width of a split; read from the data when
            left out, needed (height) for old results without splits.json and attention.npz.
        splits: path of splits.json, or None.
        target_local: place of the target in its split, for old results.
        kind: "reference" (signed alpha * x at step 1) or "attention".
        raw: True leaves out the factor N_i.

    Returns:
        dict: maps (F, H, W) float32 with 0 at the target, target_pixels (list of the pixel of the
        full frame), n_total frames of the recording (0 when unknown).
    """
    folders = find_folders(root_folder)
    check_order(folders)
    strips = read_strips(folders, kind=kind, height=height, width=width, target_local=target_local)
    if splits is not None:
        strips = check_splits(strips, Path(splits))
    if any(strip.height == 0 for strip in strips):
        raise InputError(
            f"{root_folder}: the height of the image is not known; give --splits or --height"
        )
    counts = {str(strip.folder.name): len(strip.values) for strip in strips}
    if len(set(counts.values())) > 1 or (frameNo and frameNo not in counts.values()):
        by_folder = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(
            f"{root_folder}: found {by_folder} frames, expected {frameNo or 'the same number'} in "
            "every split; train all splits on the same frames"
        )
    heights = {strip.height for strip in strips}
    if len(heights) > 1:
        raise InputError(f"{root_folder}: found splits of height {sorted(heights)}, expected one")
    images, target_pixels, left = [], [], 0
    full_width = sum(strip.width for strip in strips)
    for strip in strips:
        values = strip.values if raw else strip.values * strip.values.shape[1]
        if strip.target_local is not None:
            # Differs: the reference inserts the target at 219 of split 2, whatever the target.
            values = np.insert(values, strip.target_local, 0, axis=1)
            row, column = divmod(strip.target_local, strip.width)
            target_pixels.append(row * full_width + left + column)
        images.append(values.reshape(len(values), strip.height, strip.width))
        left += strip.width
    return {
        "maps": np.concatenate(images, axis=2),  # (F, H, W)
        "target_pixels": target_pixels,
        "n_total": strips[0].n_total,
    }


def background(path: str | Path, maps: np.ndarray, n_total: int) -> np.ndarray:
    """Return the frames of the movie that belong to the maps (F, H, W).

    The movie holds either the test part only or the whole recording, whose last frames are meant.
    """
    movie = read_movie(path)
    if movie.shape[1:] != maps.shape[1:]:
        raise InputError(
            f"{path}: found frames of {movie.shape[1]} x {movie.shape[2]}, expected "
            f"{maps.shape[1]} x {maps.shape[2]}; give the movie the splits were cut from"
        )
    if len(movie) == len(maps):
        return movie
    if n_total and len(movie) == n_total:
        return movie[-len(maps) :]
    whole = f" or {n_total} (all)" if n_total else ""
    raise InputError(
        f"{path}: found {len(movie)} frames, expected {len(maps)} (the test part){whole}; cut the "
        "movie with resize.py --crop_time"
    )


def show(
    chosen: argparse.Namespace,
    kind: str,
    frames: np.ndarray,
    maps: np.ndarray,
    target_pixels: list[int],
    *,
    n_total: int,
    folders: list[Path],
) -> list[Path]:
    """Write combined.npy with what it holds, the mean map and the movie; return their paths."""
    formula = "alpha" if kind == "attention" else "|alpha x| at step 1"
    name = formula if chosen.raw else f"N_i {formula}"
    note = f"{name}; splits trained apart: colours of different splits do not compare"
    out = chosen.out_dir
    with atomic_path(out / "combined.npy") as temporary:
        np.save(temporary, maps)
    told = {"map": kind, "values": name, "note": note, "axes": "frame, row, column"}
    told |= {"first_frame": n_total - len(maps) if n_total else None, "clim": chosen.clim}
    told |= {"target_pixels": target_pixels, "video": str(chosen.video)}
    write_json(out / "combined.json", told | {"splits": [str(folder) for folder in folders]})
    mean = draw_stills(
        out / "mean_map.png", {name: maps.mean(axis=0)}, target_pixels=target_pixels,
        notes={name: "mean over test frames; splits do not compare"},
    )  # fmt: skip
    movies = write_movie(
        out / "heatmap_final", frames, maps, fps=chosen.fps, bitrate="2000k", clim=chosen.clim,
        title=note, target_pixels=target_pixels,
    )  # fmt: skip
    return [out / "combined.npy", mean, *movies]


def join_and_show(chosen: argparse.Namespace) -> None:
    """Join the splits and write the movie; ``chosen`` holds the flags of combine_weights.py."""
    folders = find_folders(chosen.root_folder)
    kind = chosen.map
    if kind == "auto":
        saved = all((folder / "attention.npz").is_file() for folder in folders)
        kind = "attention" if saved else "reference"
        print(f"map: {kind} ({'attention.npz' if saved else 'weight_tensor_rs.pt'} of each split)")
    splits = Path(chosen.splits) if chosen.splits else None
    if splits is not None and not splits.is_file():
        if "splits" in chosen.given:
            raise InputError(f"{splits}: not found, expected splits.json; check --splits")
        print(f"warning: {splits}: not found, sizes are taken from the results", file=sys.stderr)
        splits = None
    joined = concat_weight_tensors(
        chosen.root_folder, chosen.frameno or None, chosen.height or None, chosen.width or None,
        splits=splits, target_local=None if chosen.target_local < 0 else chosen.target_local,
        kind=kind, raw=chosen.raw,
    )  # fmt: skip
    maps = joined["maps"] if kind == "attention" else np.abs(joined["maps"])
    frames = background(chosen.video, maps, joined["n_total"])
    with writing(chosen.out_dir):
        more = {"n_total": joined["n_total"], "folders": folders}
        for path in show(chosen, kind, frames, maps, joined["target_pixels"], **more):
            print(path)
