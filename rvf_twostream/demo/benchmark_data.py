"""Time and memory of preprocessing, flow and augmentation beside straightforward loops.

The baselines do what specification sections 5 and 7.3 say the published code does: frame by frame,
scikit-image's filter and sampling (through the SciPy functions it calls), one process, one pass per
augmentation step. Each must give the same numbers; benchmark.py prints the rows.
"""

import io
import itertools
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pydicom
from joblib import Parallel, cpu_count, delayed
from PIL import Image
from scipy import ndimage

from demo.synthetic import write_cohort
from inputs.augment import rotation_matrix, translation_matrix, warp_clip, zoom_matrix
from inputs.flow import farneback_defaults
from inputs.flow_files import convert2OF
from inputs.frames import make_movie
from inputs.utils import load_movie, save_array
from settings import NCOLS, NFRAMES, NROWS

N_FRAMES = 60  # of the movies that are timed
FLOW_FILES = 4  # movies of the flow's throughput
MB = 1024  # ru_maxrss counts kB on Linux


def fastest(
    function: Callable, *, repeats: int = 3, clock: Callable = time.process_time
) -> tuple[float, object]:
    """Return the shortest time of ``repeats`` calls in seconds, and the last result.

    The clock is CPU seconds of all threads: other work on the machine does not count.
    """
    times = []
    for _ in range(repeats):
        start = clock()
        result = function()
        times.append(clock() - start)
    return min(times), result


def in_own_process(function: Callable, *args) -> tuple[float, object, float]:
    """Return (seconds, result, peak memory in MB) of ``function(*args)``: (seconds, result).

    A process of its own has a peak memory of its own, libraries included.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_with_peak, function, *args).result()


def _with_peak(function, *args):
    seconds, result = function(*args)
    return seconds, result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB


def row(what: str, ours: tuple, baseline: tuple | None = None, target: str | None = None) -> dict:
    """Return one line of the benchmark.

    Args:
        ours, baseline: (seconds, result, peak memory in MB) or None where there is no baseline.
        target: text.
    """
    baseline_s, _, baseline_mb = baseline or (None, None, None)
    return {
        "what": what,
        "ours_s": ours[0],
        "baseline_s": baseline_s,
        "ratio": None if baseline_s is None else baseline_s / ours[0],
        "ours_mb": ours[2],
        "baseline_mb": baseline_mb,
        "target": target,
    }


def published_resize(frame: np.ndarray, nrows: int, ncols: int) -> np.ndarray:
    """Low-pass and bilinear sampling of one frame (r, c) or (r, c, k) as scikit-image does it."""
    factors = [frame.shape[0] / nrows, frame.shape[1] / ncols] + [1.0] * (frame.ndim - 2)
    sigma = [max(0.0, (factor - 1) / 2) for factor in factors]
    smooth = ndimage.gaussian_filter(frame, sigma, mode="mirror")
    zoom = [1 / factor for factor in factors]
    return ndimage.zoom(smooth, zoom, order=1, mode="mirror", grid_mode=True)


def published_pixels(path: Path) -> np.ndarray:
    """Return the pixels of one DICOM as pydicom 1.3 does: JPEG pictures by Pillow, in RGB."""
    data = pydicom.dcmread(path)
    if not data.file_meta.TransferSyntaxUID.is_compressed:
        return data.pixel_array
    pictures = pydicom.encaps.generate_frames(data.PixelData, number_of_frames=data.NumberOfFrames)
    return np.array([np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures])


def published_preprocess(path: Path) -> np.ndarray:
    """Read one DICOM and return its movie, frame by frame in float64."""
    movie = []
    for frame in published_pixels(path):
        if frame.ndim == 3:
            frame = 0.2989 * frame[..., 0] + 0.5870 * frame[..., 1] + 0.1140 * frame[..., 2]
        movie.append(published_resize(frame.astype(np.float64), NROWS, NCOLS))
    movie = np.array(movie)[..., None]
    return movie / movie.max()


def published_flow(path: Path) -> np.ndarray:
    """Return the flow of one DICOM, pair by pair, each field resized in float64."""
    fields = []
    for first, second in itertools.pairwise(published_pixels(path)):
        field = cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        fields.append(published_resize(field.astype(np.float64), NROWS, NCOLS))
    fields.append(fields[-1])
    return np.array(fields)


def options() -> dict:
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


def _save_movie(path, target):
    save_array(target, make_movie(path, options(), nframes=NFRAMES).grey)


def _ours_preprocess(path, target):
    return fastest(lambda: _save_movie(path, target))


def _published_preprocess(path):
    return fastest(lambda: published_preprocess(path))


def bench_preprocess(folder: Path) -> list[dict]:
    """Time preprocessing of one grey and one colour file."""
    lines = []
    for kind, rows, cols, jpeg in (
        ("grey, 600x800", 600, 800, False),
        ("JPEG in colour, 480x640", 480, 640, True),
    ):
        data = folder / f"preprocess_{rows}"
        settings = {"n_patients": 1, "frames": N_FRAMES, "movies_per_patient": 1, "jpeg": jpeg}
        write_cohort(data, rows=rows, cols=cols, **settings)
        path, target = next(data.glob("*.dcm")), data / "movie.npy"
        ours = in_own_process(_ours_preprocess, path, target)
        baseline = in_own_process(_published_preprocess, path)
        np.testing.assert_allclose(load_movie(target), baseline[1], atol=1e-5)
        lines.append(
            row(f"preprocess a file of {N_FRAMES} frames, {kind}", ours, baseline, ">= 2x")
        )
    return lines


def _ours_flow(paths, cores):
    """Time the files on all cores, by the clock on the wall."""
    # joblib's default workers outlive the pool by minutes, and this process would wait for them.
    with Parallel(n_jobs=cores, backend="multiprocessing") as pool:
        # Starting the processes is paid once per data set, whatever its size.
        pool(delayed(time.sleep)(0.1) for _ in range(cores))
        return fastest(
            lambda: pool(
                delayed(convert2OF)(path, path.with_suffix(".npy"), options(), NFRAMES)
                for path in paths
            ),
            clock=time.perf_counter,
        )


def _published_flow(paths):
    cv2.setNumThreads(1)
    return fastest(lambda: [published_flow(path) for path in paths], clock=time.perf_counter)


def bench_flow(folder: Path) -> list[dict]:
    """Time the flow of some files with all cores (``-m``) against one loop."""
    cores = cpu_count()
    data = folder / "flow"
    size = {"frames": N_FRAMES, "movies_per_patient": 1, "rows": 300, "cols": 400}
    write_cohort(data, n_patients=FLOW_FILES, **size)
    paths = sorted(data.glob("*.dcm"))
    ours = in_own_process(_ours_flow, paths, cores)
    baseline = in_own_process(_published_flow, paths)
    for path, flow in zip(paths, baseline[1], strict=True):
        np.testing.assert_allclose(load_movie(path.with_suffix(".npy")), flow, atol=1e-3)
    what = (
        f"flow of {FLOW_FILES} files, {N_FRAMES} frames of 300x400, {cores} processes against one, "
        "wall time (memory: first process)"
    )
    return [row(what, ours, baseline, f">= {0.9 * cores:.1f}x (0.9 x cores)")]


def published_steps(
    clip: np.ndarray, angle_deg: float, shift: tuple, scale: float, offset: tuple
) -> np.ndarray:
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


def _clip_and_steps():
    """Return a smooth clip (32, NROWS, NCOLS, 3), an angle, shift, scale and offset of the zoom."""
    noise = np.random.default_rng(0).standard_normal((32, NROWS, NCOLS, 3)).astype(np.float32)
    clip = np.stack([cv2.GaussianBlur(frame, (0, 0), 4) for frame in noise]) * 10
    return clip, 17.0, (4, -6), 1.2, (9, 11)


def _ours_augment():
    clip, angle_deg, shift, scale, offset = _clip_and_steps()
    matrix = (
        zoom_matrix(scale, NROWS, NCOLS, *offset)
        @ translation_matrix(*shift)
        @ rotation_matrix(angle_deg, NROWS, NCOLS)
    )
    return fastest(lambda: warp_clip(clip, matrix), repeats=10)


def _published_augment():
    given = _clip_and_steps()
    return fastest(lambda: published_steps(*given))


def bench_augment(_folder: Path) -> list[dict]:
    """Time rotation, translation and zoom of one clip; it needs no files."""
    ours, baseline = in_own_process(_ours_augment), in_own_process(_published_augment)
    inner = np.s_[:, 20:-20, 20:-20]
    # One warp samples once, three passes three times: equal up to that smoothing.
    assert np.abs(ours[1][inner] - baseline[1][inner]).mean() < 0.02 * ours[1].std()
    return [row(f"rotate, shift and zoom a clip of 32x{NROWS}x{NCOLS}", ours, baseline, ">= 10x")]


def _status_mb(name):
    """Return a size of this process in MB, as Linux tells it."""
    text = Path("/proc/self/status").read_text()
    return float(text.split(f"{name}:")[1].split()[0]) / MB


def _reading_memory(path, small, with_flow):
    """Return (seconds, MB above base) of one pass over a movie; ``small`` warms the imports."""
    flow = options() if with_flow else None
    make_movie(small, options(), flow)
    base = _status_mb("VmRSS")
    # The peak so far is forgotten: ru_maxrss holds that of the parent process as well.
    Path("/proc/self/clear_refs").write_text("5")
    start = time.process_time()
    make_movie(path, options(), flow)
    return time.process_time() - start, _status_mb("VmHWM") - base


def bench_memory(folder: Path) -> list[dict]:
    """Measure what one pass over 120 colour frames of 480 x 640 needs above its base."""
    lines = []
    for jpeg in (True, False):
        data = folder / f"memory_{jpeg}"
        kind = {"n_patients": 1, "movies_per_patient": 1, "jpeg": jpeg, "rgb": not jpeg}
        write_cohort(data / "long", frames=120, rows=480, cols=640, **kind)
        write_cohort(data / "short", frames=NFRAMES, rows=96, cols=128, **kind)
        path, small = (next((data / name).glob("*.dcm")) for name in ("long", "short"))
        kind = "JPEG" if jpeg else "plain RGB"
        for with_flow in (False, True):
            seconds, above, _ = in_own_process(_reading_memory, path, small, with_flow)
            what = f"{'movie and flow' if with_flow else 'movie'} of 120 frames, 480x640, {kind}"
            line = row(f"{what}: memory above base", (seconds, None, above))
            lines.append(line | {"target": "<= 50 MB"})
    return lines


BENCHES = {
    "preprocess": bench_preprocess,
    "flow": bench_flow,
    "augment": bench_augment,
    "memory": bench_memory,
}
