"""Time and memory of preprocessing, flow and augmentation beside straightforward loops.

The baselines do what specification sections 5 and 7.3 say the published code does: frame by frame,
scikit-image's filter and sampling (through the SciPy functions it calls), one process, one pass per
augmentation step. Each must give the same numbers; benchmark.py prints the rows.
"""

import itertools
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

from augment import rotation_matrix, translation_matrix, warp_clip, zoom_matrix
from make_synthetic import write_cohort
from optical_flow_calculator import convert2OF, farneback_defaults
from preprocess import preprocess_dicom
from utils import NCOLS, NFRAMES, NROWS, load_movie

N_FRAMES = 60  # of the movies that are timed
REPEATS = 3  # the fastest of so many


def fastest(function, repeats=REPEATS):
    """Return the shortest time of ``repeats`` calls in seconds, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def row(what, ours_s, baseline_s=None, target=None):
    """Return one line of the benchmark."""
    return {
        "what": what,
        "ours_s": ours_s,
        "baseline_s": baseline_s,
        "ratio": None if baseline_s is None else baseline_s / ours_s,
        "ours_mb": None,
        "baseline_mb": None,
        "target": target,
    }


def published_resize(frame, nrows, ncols):
    """Low-pass and bilinear sampling of one frame (r, c) or (r, c, k) as scikit-image does it."""
    factors = [frame.shape[0] / nrows, frame.shape[1] / ncols] + [1.0] * (frame.ndim - 2)
    sigma = [max(0.0, (factor - 1) / 2) for factor in factors]
    smooth = ndimage.gaussian_filter(frame, sigma, mode="mirror")
    zoom = [1 / factor for factor in factors]
    return ndimage.zoom(smooth, zoom, order=1, mode="mirror", grid_mode=True)


def published_preprocess(path):
    """Read one DICOM and return its movie, frame by frame in float64."""
    import pydicom

    data = pydicom.dcmread(path)
    if data.file_meta.TransferSyntaxUID.is_compressed:
        data.pixel_array_options(decoding_plugin="pillow")  # as in the published environment
    movie = []
    for frame in data.pixel_array:
        if frame.ndim == 3:
            frame = 0.2989 * frame[..., 0] + 0.5870 * frame[..., 1] + 0.1140 * frame[..., 2]
        movie.append(published_resize(frame.astype(np.float64), NROWS, NCOLS))
    movie = np.array(movie)[..., None]
    return movie / movie.max()


def published_flow(path):
    """Return the flow of one DICOM, pair by pair, each field resized in float64."""
    import pydicom

    frames = pydicom.dcmread(path).pixel_array
    fields = []
    for first, second in itertools.pairwise(frames):
        field = cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        fields.append(published_resize(field.astype(np.float64), NROWS, NCOLS))
    fields.append(fields[-1])
    return np.array(fields)


def options():
    """Return the default options of reading and flow."""
    return {
        "crop": "none",
        "grey": "luma",
        "resample_fps": 0.0,
        "nrows": NROWS,
        "ncols": NCOLS,
        "flow_size": None,
        "per_second": False,
        "farneback": farneback_defaults(),
    }


def bench_preprocess(folder):
    """Time preprocessing of one grey and one colour file."""
    found = []
    for kind, jpeg in (("grey 600x800", False), ("JPEG colour 480x640", True)):
        data = folder / kind.replace(" ", "_")
        rows, cols = (480, 640) if jpeg else (600, 800)
        settings = {"n_patients": 1, "frames": N_FRAMES, "movies_per_patient": 1, "jpeg": jpeg}
        write_cohort(data, rows=rows, cols=cols, **settings)
        path, target = next(data.glob("*.dcm")), data / "movie.npy"
        given = {**options(), "nrows": NROWS, "ncols": NCOLS}
        ours_s, _ = fastest(lambda: preprocess_dicom(path, target, given, NFRAMES))  # noqa: B023
        baseline_s, movie = fastest(lambda: published_preprocess(path))  # noqa: B023
        np.testing.assert_allclose(load_movie(target), movie, atol=1e-5)
        found.append(row(f"preprocess {N_FRAMES} frames, {kind}", ours_s, baseline_s, ">= 2x"))
    return found


def bench_flow(folder):
    """Time the flow of four files with all cores against one loop."""
    from joblib import Parallel, cpu_count, delayed

    data, n_files, cores = folder / "flow", 4, cpu_count()
    write_cohort(
        data, n_patients=n_files, frames=N_FRAMES, movies_per_patient=1, rows=300, cols=400
    )
    paths = sorted(data.glob("*.dcm"))
    with Parallel(n_jobs=cores) as pool:
        # Starting the processes is paid once per data set, whatever its size.
        pool(delayed(time.sleep)(0.1) for _ in range(cores))
        ours_s, _ = fastest(
            lambda: pool(
                delayed(convert2OF)(path, path.with_suffix(".npy"), options(), NFRAMES)
                for path in paths
            ),
            repeats=2,
        )
    cv2.setNumThreads(1)
    baseline_s, flows = fastest(lambda: [published_flow(path) for path in paths], repeats=1)
    for path, flow in zip(paths, flows, strict=True):
        np.testing.assert_allclose(load_movie(path.with_suffix(".npy")), flow, atol=1e-3)
    what = f"flow of {n_files} files, {N_FRAMES} frames 300x400, {cores} processes"
    return row(what, ours_s, baseline_s, f">= {0.9 * cores:.1f}x (0.9 x cores)")


def published_steps(clip, angle_deg, shift, scale, offset):
    """Rotate, translate and zoom a clip (t, r, c, k) frame by frame, one pass per step."""
    _, r, c, _ = clip.shape
    inverse = [
        np.linalg.inv(m)
        for m in (rotation_matrix(angle_deg, r, c), zoom_matrix(scale, r, c, *offset))
    ]
    out = []
    for frame in clip.astype(np.float64):
        channels = []
        for channel in np.moveaxis(frame, -1, 0):
            turned = _affine(channel, inverse[0])
            moved = ndimage.shift(turned, shift[::-1], order=0)
            channels.append(_affine(moved, inverse[1]))
        out.append(np.stack(channels, axis=-1))
    return np.array(out)


def _affine(picture, inverse):
    matrix, offset = inverse[1::-1, 1::-1], inverse[1::-1, 2]
    return ndimage.affine_transform(picture, matrix, offset, order=1)


def bench_augment():
    """Time rotation, translation and zoom of one clip."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((32, NROWS, NCOLS, 3)).astype(np.float32)
    clip = np.stack([cv2.GaussianBlur(frame, (0, 0), 4) for frame in noise]) * 10
    angle_deg, shift, scale, offset = 17.0, (4, -6), 1.2, (9, 11)
    matrix = (
        zoom_matrix(scale, NROWS, NCOLS, *offset)
        @ translation_matrix(*shift)
        @ rotation_matrix(angle_deg, NROWS, NCOLS)
    )
    ours_s, ours = fastest(lambda: warp_clip(clip, matrix), repeats=10)
    baseline_s, theirs = fastest(
        lambda: published_steps(clip, angle_deg, shift, scale, offset), repeats=2
    )
    inner = np.s_[:, 20:-20, 20:-20]
    # One warp samples once, three passes three times: equal up to that smoothing.
    assert np.abs(ours[inner] - theirs[inner]).mean() < 0.02 * clip.std()
    return row("augmentation of one clip 32x112x112", ours_s, baseline_s, ">= 10x")


def rows():
    """Run all and return their rows."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        return [*bench_preprocess(folder), bench_flow(folder), bench_augment()]
