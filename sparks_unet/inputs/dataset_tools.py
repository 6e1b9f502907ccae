"""Reading of recordings with their labels, integrity check of a data folder, class weights.

Files of a recording NN: ``NN_video.tif`` (T, H, W), ``NN_class_label*.tif`` uint8 (T, H, W) 0..4,
``NN_event_label.tif`` (T, H, W) ids.

Source: specification sections 4.3 and 7.2.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from skimage.transform import resize

from common.files import InputError, raise_faults
from inputs.movie_io import (
    Movie,
    label_warnings,
    movie_file,
    movie_ids,
    read_class_labels,
    read_event_labels,
    read_movie,
)
from inputs.movie_state import look_at, told_bits
from inputs.preprocessing import resample_labels, resample_movie, resample_times
from settings.config import EVENT_CLASSES, NUM_CLASSES, Params, logger
from settings.recording import Given

CLASS_SUFFIX = {
    "raw": "class_label",
    "peaks": "class_label_peaks",
    "small": "class_label_small_peaks",
    "dilated": "class_label_dilated",
}

JUMP_BLOCKS = 8  # parts of rows and of columns in which a jump is looked for
EVERYWHERE = 0.8  # of the brighter parts must change at a jump
JUMP_FRAMES = 5  # frames before and after a step whose brightness is compared


@dataclass(frozen=True)
class Sample:
    """A recording: movie (T, H, W) in counts, class labels uint8 and event ids int32 or None."""

    id: str
    movie: Movie
    classes: np.ndarray | None = None
    events: np.ndarray | None = None


def read_sample(
    folder: str | Path,
    movie_id: str,
    *,
    labels: bool | None = True,
    events: bool | None = False,
    sparks_type: str = "raw",
    given: Given | None = None,
) -> Sample:
    """Read one recording and check it.

    Args:
        folder: data folder.
        movie_id: NN of the file names.
        labels: True (required), False (not read) or None (read when there).
        events: the same for event ids.
        sparks_type: which class labels: raw, peaks, small or dilated.
        given: settings.recording.Given, what the user says about the movie.

    Raises:
        InputError: all faults of this recording in one message.
    """
    folder = Path(folder)
    movie = read_movie(movie_file(folder, movie_id), given)
    shape, faults = movie.data.shape, []
    paths = (
        movie_file(folder, movie_id, CLASS_SUFFIX[sparks_type]),
        movie_file(folder, movie_id, "event_label"),
    )
    masks = []
    readers = (read_class_labels, read_event_labels)
    for path, reader, wanted in zip(paths, readers, (labels, events), strict=True):
        value = None
        if wanted or (wanted is None and path.is_file()):
            try:
                value = reader(path, shape)
            except InputError as error:
                hint = ""
                if not path.is_file() and sparks_type != "raw" and path is paths[0]:
                    hint = (
                        f"; make it with generate_unet_annotations.py --sparks-type {sparks_type}"
                    )
                faults.append(f"{error}{hint}")
        masks.append(value)
    raise_faults(faults)
    classes, ids = masks
    if classes is not None and ids is not None:
        for text in label_warnings(str(paths[1]), classes, ids):
            logger.warning(text)
    return Sample(movie_id, movie, classes, ids)


def read_samples(folder: str | Path, ids: Sequence[str], **options: Any) -> list[Sample]:
    """Read several recordings; faults of all of them are reported together."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such data folder; set [dataset] relative_path")
    available = movie_ids(folder)
    unknown = [one for one in ids if one not in available]
    if not ids:
        raise InputError(f"{folder}: no movie selected; available ids: {' '.join(available)}")
    if unknown:
        listed = " ".join(available) if available else "none (expected files NN_video.tif)"
        raise InputError(
            f"{folder}: unknown movie id {' '.join(unknown)} (expected the file "
            f"{unknown[0]}_video.tif); available ids: {listed}; name yours with [dataset] "
            "train_ids and test_ids (--set dataset.test_ids=...) or --ids"
        )
    samples, faults = [], []
    for one in ids:
        try:
            samples.append(read_sample(folder, one, **options))
        except InputError as error:
            faults.append(str(error))
    raise_faults(faults)
    return samples


def adapted(samples: list[Sample], params: Params) -> list[Sample]:
    """Return recordings as [dataset] wants them: split at jumps, at new frame rate and pixel size.

    Args:
        samples: list of Sample.
        params: Params; split_jumps, new_fps, new_pixel_um.
    """
    if params.norm_video == "abs_max":
        for one in samples:
            told_bits(one.movie.source, one.movie.data, params.full_scale)
    if params.split_jumps:
        samples = [part for one in samples for part in split_at_jumps(one, params.split_jumps)]
    if params.new_fps:
        samples = [resampled(one, params.new_fps) for one in samples]
    if params.new_pixel_um:
        samples = [resized(one, params.new_pixel_um) for one in samples]
    return samples


def intensity_jumps(movie: np.ndarray, share: float) -> list[int]:
    """Return the first frames after steps of the brightness of a movie.

    A step happens between two frames and lasts: the mean of JUMP_FRAMES frames after it differs by
    more than ``share`` from the mean before it, and half of that from one frame to the next. The
    front of a wave takes many frames.

    Args:
        movie: (T, H, W).
        share: relative change.

    Returns:
        List of frames, rising.
    """
    mean = movie.mean(axis=(1, 2), dtype=np.float64)
    jumps = []
    for t in range(1, len(mean)):
        before = np.median(mean[max(0, t - JUMP_FRAMES) : t])
        after = np.median(mean[t : t + JUMP_FRAMES])
        step = abs(mean[t] - mean[t - 1])
        if min(2 * step, abs(after - before)) > share * before and _everywhere(movie, t, share):
            if jumps and t - jumps[-1] < JUMP_FRAMES:
                continue
            jumps.append(t)
    return jumps


def _everywhere(movie, t, share):
    """Return whether the brightness changes in all of the frame at t; a wave begins in a part."""
    before = movie[max(0, t - JUMP_FRAMES) : t].mean(axis=0, dtype=np.float64)
    after = movie[t : t + JUMP_FRAMES].mean(axis=0, dtype=np.float64)
    block = [max(1, n // JUMP_BLOCKS) for n in before.shape]
    cut = tuple(slice(0, n // b * b) for n, b in zip(before.shape, block, strict=True))
    grid = (before[cut].shape[0] // block[0], block[0], before[cut].shape[1] // block[1], block[1])
    first, second = (image[cut].reshape(grid).mean(axis=(1, 3)) for image in (before, after))
    change = (second - first) / np.maximum(first, 1e-9)
    bright = first >= np.median(first)
    sign = np.sign(np.median(change[bright]))
    return np.mean(sign * change[bright] > share / 2) > EVERYWHERE


def split_at_jumps(sample: Sample, share: float) -> list[Sample]:
    """Return the parts of a recording between intensity jumps, with ids NN-1, NN-2, ...

    Args:
        sample: Sample.
        share: relative change of the mean brightness that counts as a jump.
    """
    jumps = intensity_jumps(sample.movie.data, share)
    if not jumps:
        return [sample]
    logger.info("%s: split at frames %s", sample.id, ", ".join(map(str, jumps)))
    parts = []
    for number, ends in enumerate(itertools.pairwise([0, *jumps, None]), start=1):
        part = slice(*ends)
        times = sample.movie.calibration.frame_times_s
        state = sample.movie.state
        movie = dataclasses.replace(
            sample.movie,
            data=sample.movie.data[part],
            state=state and state.part(part),
            calibration=dataclasses.replace(
                sample.movie.calibration, frame_times_s=None if times is None else times[part]
            ),
        )
        masks = [m if m is None else m[part] for m in (sample.classes, sample.events)]
        parts.append(Sample(f"{sample.id}-{number}", movie, *masks))
    return parts


def resized(sample: Sample, new_pixel_um: float) -> Sample:
    """Return the sample with another pixel size: movie linear, smoothed first where it shrinks.

    Labels and ids take the nearest pixel.

    Args:
        sample: Sample.
        new_pixel_um: edge of the new pixels in um.
    """
    movie = sample.movie
    before = movie.calibration.needed(movie.source, frame=False)
    factors = before.pixel_y_um / new_pixel_um, before.pixel_x_um / new_pixel_um
    sizes = zip(movie.data.shape[1:], factors, strict=True)
    size = tuple(max(1, round(n * factor)) for n, factor in sizes)
    data = np.stack(
        [
            resize(frame.astype(np.float32), size, order=1, anti_aliasing=min(factors) < 1)
            for frame in movie.data
        ]
    )
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * old / n).astype(int), old - 1)
        for n, old in zip(size, movie.data.shape[1:], strict=True)
    )
    masks = [
        None if mask is None else mask[:, rows][:, :, columns]
        for mask in (sample.classes, sample.events)
    ]
    calibration = dataclasses.replace(
        before,
        pixel_x_um=new_pixel_um,
        pixel_y_um=new_pixel_um,
        pixel_origin=f"{before.pixel_origin}; new_pixel_um of the config from {before.pixel_um:g}",
    )
    movie = dataclasses.replace(movie, data=data, calibration=calibration)
    return Sample(sample.id, movie, *masks)


def resampled(sample: Sample, fps: float) -> Sample:
    """Return the sample at ``fps`` frames per second: movie cubic, labels and ids nearest.

    Args:
        sample: Sample.
        fps: new frames per second, > 0.
    """
    movie = sample.movie
    times = movie.calibration.frame_times_s
    if times is None:
        frame_ms = movie.calibration.needed(movie.source, pixel=False).frame_ms
        times = np.arange(len(movie.data)) * frame_ms / 1000
    new = resample_times(times, fps)
    masks = [
        None if mask is None else resample_labels(mask, times, new)
        for mask in (sample.classes, sample.events)
    ]
    data = resample_movie(movie.data, times, new)
    calibration = dataclasses.replace(
        movie.calibration,
        frame_ms=1000 / fps,
        frame_times_s=new,
        frame_origin=f"{movie.calibration.frame_origin}; new_fps of the config",
    )
    state = look_at(data, calibration.offset_counts)  # other frames than before
    movie = dataclasses.replace(movie, data=data, calibration=calibration, state=state)
    return Sample(sample.id, movie, *masks)


def frame_counts(labels: np.ndarray) -> np.ndarray:
    """Return the number of voxels (T, 4) of classes 0..3 in each frame of labels (T, H, W)."""
    # comparing small integers is ten times faster than one histogram over all of them
    counts = [[np.count_nonzero(frame == c) for c in range(NUM_CLASSES)] for frame in labels]
    return np.array(counts, np.int64)


def chunk_multiplicity(frames: int, duration: int, stride: int) -> np.ndarray:
    """Return in how many chunks each of ``frames`` frames lies, (frames,)."""
    change = np.zeros(frames + 1, np.int64)
    starts = np.arange(0, frames - duration + 1, stride)
    change[starts] += 1
    np.subtract.at(change, starts + duration, 1)
    return change[:-1].cumsum()


def class_weights(labels: list[np.ndarray], duration: int, stride: int) -> np.ndarray:
    """Return w_c = N / (4 n_c) (4,) float32 over all chunks; 0 for a class that does not occur.

    Args:
        labels: list of padded class labels (T, H, W).
        duration: D, frames of a chunk.
        stride: s.

    The voxels are counted once per frame and multiplied by the number of chunks that hold it.
    """
    totals = np.zeros(NUM_CLASSES, np.int64)
    for movie in labels:
        totals += chunk_multiplicity(len(movie), duration, stride) @ frame_counts(movie)
    weights = np.zeros(NUM_CLASSES, np.float64)
    present = totals > 0
    weights[present] = totals.sum() / (NUM_CLASSES * totals[present])
    return weights.astype(np.float32)


def instance_weights(samples: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return total events / (3 events of the class) (3,) float32, order sparks, waves, puffs.

    Args:
        samples: list of (class labels, event ids), arrays (T, H, W).
    """
    counts = np.zeros(len(EVENT_CLASSES), np.int64)
    for classes, events in samples:
        for index in range(len(EVENT_CLASSES)):
            counts[index] += np.count_nonzero(np.unique(events[classes == index + 1]))
    weights = np.zeros(len(counts))
    present = counts > 0
    weights[present] = counts.sum() / (len(EVENT_CLASSES) * counts[present])
    return weights.astype(np.float32)
