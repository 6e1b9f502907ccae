"""Real recordings: one known transient, real sparks, and marks of somebody else.

Run with --real DIR (the files are named in the README of the data).
"""

import numpy as np
import pytest
import scipy.io
import tifffile
from scipy import ndimage

from analysis.event_fit import fit_event
from analysis.kinetics import event_table
from analysis.preds_processing_tools import threshold_mask
from classical_baseline import main as classical
from common.files import InputError
from inputs.calibration import Calibration, scaled_post
from inputs.movie_io import read_movie
from settings.recording import Given

pytestmark = pytest.mark.data


def real_file(folder, name):
    path = folder / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


def test_exactly_one_event_at_the_known_place(real_dir, tmp_path, capsys):
    path = real_file(real_dir, "adu340_4small_tyx.tif")
    options = ["--threshold-sd", "5", "--detrend", "--whole-frame", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        classical([str(path), *options])
    assert "does not say its pixel size" in capsys.readouterr().err
    # the file does not say its scale: that of the published recordings decides the sizes
    classical([str(path), *options, "--pixel-um", "0.2", "--frame-ms", "6.8"])
    instances = read_movie(tmp_path / f"{path.stem}_instances.tif").data
    assert instances.max() == 1
    frames, rows, columns = np.nonzero(instances)
    assert frames.min() in (16, 17, 18)
    # Onset in frame 16 to 17, centre near y = 18, x = 27.
    assert np.hypot(rows.mean() - 18, columns.mean() - 27) < 3


def test_real_sparks_of_line_scans(real_dir):
    library = scipy.io.loadmat(real_file(real_dir, "sparkLibrary.mat"))
    for kind, largest in (("In", 0.25), ("Mid", 0.35)):
        images, masks = library[f"sparks{kind}"][0], library[f"masks{kind}"][0]
        for image, mask in zip(images, masks, strict=True):
            ratio = image / np.median(image[mask == 0]) - 1  # rows are time, columns space
            smooth = np.where(mask > 0, ndimage.gaussian_filter(ratio, 1), -1)
            t, x = np.unravel_index(np.argmax(smooth), smooth.shape)
            fitted = fit_event(
                ratio[:, None],
                np.ones((len(ratio), 1, ratio.shape[1])),
                (t, 0, x),
                Calibration.of(1, 1),
                flat=False,
            )
            peak = ratio[mask > 0].max()
            assert fitted["amplitude_df_f0"] == pytest.approx(peak, rel=largest)
            half = np.flatnonzero(smooth[t] >= smooth[t, x] / 2)
            assert fitted["fwhm_um"] == pytest.approx(half[-1] - half[0] + 1, rel=0.35)


def test_count_against_marks_of_a_neuron(real_dir, record_property):
    grey = tifffile.imread(real_file(real_dir, "mSCT_movie-80-1-xt.tif"))[..., 0]
    painted = tifffile.imread(real_file(real_dir, "mSCT_movie-80-1-xt-overlay.tif")).astype(int)
    marks, n_marks = ndimage.label(painted.max(-1) - painted.min(-1) > 60, np.ones((3, 3)))
    signal = ndimage.gaussian_filter(255.0 - grey, (1, 1))  # dark is bright; (time, space)
    signal -= np.median(signal, axis=0)
    noise = 1.4826 * np.median(np.abs(signal))
    mask = threshold_mask(signal[:, None] / noise, 4.0)[:, 0]
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    marked = np.isin(labels, np.flatnonzero(sizes >= 10)[1:])
    n_found = len(np.unique(labels[marked]))
    hit = len(np.unique(marks[marked & (marks > 0)]))
    right = len(np.unique(labels[marked & (marks > 0)]))
    record_property("marks", n_marks)
    record_property("found", n_found)
    print(f"{n_marks} marks, {n_found} found, {hit} marks hit, {right} found on a mark")
    assert n_marks == 82
    assert hit / n_marks > 0.5
    assert right / n_found > 0.7


def test_signed_imagej_stack_of_astrocytes(real_dir):
    path = real_file(real_dir, "astrocast_sample_1.tiff")
    # its header states 75 slices, 2 um apart: what ImageJ calls every stack
    with pytest.raises(InputError, match=r"75 planes of depth .* --axes TYX"):
        read_movie(path)
    movie = read_movie(path, Given(axes="TYX"))
    assert movie.data.shape == (75, 100, 100)
    assert movie.data.min() >= 0
    assert movie.data.max() < 1000
    empty = event_table(
        movie.data, classical_nothing(movie.data), calibration=Calibration.of(1.0, 100.0)
    )
    assert len(empty) == 0


def classical_nothing(data):
    """Return the prediction of a threshold that nothing reaches."""
    from analysis.classical import classical_events

    return classical_events(data, scaled_post(Calibration.of(1.0, 100.0)), threshold_sd=1e6)
