"""Tests of array functions that no other test reaches."""

import numpy as np

from inputs.data_processing import cell_mask, signal_to_noise


def test_every_labelled_pixel_counts_as_cell_for_the_signal_to_noise_ratio():
    rng = np.random.default_rng(0)
    movie = rng.normal(100, 2, (12, 20, 30))
    movie[:, 4:16, 2:29] += 300  # the cell
    classes = np.zeros(movie.shape, np.uint8)
    movie[3:5, 8:11, 8:11] += 90
    classes[3:5, 8:11, 8:11] = 1  # a spark inside
    movie[6:8, 18:20, 10:13] += 900
    classes[6:8, 18:20, 10:13] = 3  # a puff outside, its pixels are dark at other times
    classes[9, 0:2, 0:2] = 4  # an event of no known class outside
    cell = cell_mask(movie)
    assert cell[5:15, 3:28].all()
    assert not cell[:2, :2].any()
    assert not cell[18:].any()
    wide = cell.copy()
    wide[18:20, 10:13] = wide[0:2, 0:2] = True

    def ratio(mask, events):
        quiet = movie[(classes == 0) & mask]
        return (np.percentile(movie[events], 99) - quiet.mean()) / quiet.std()

    events = (classes == 1) | (classes == 3)
    snr = signal_to_noise(movie, classes)
    np.testing.assert_allclose(snr, ratio(wide, events), rtol=1e-12)
    # the rule that stood here before, and the one without the pixels of label 4
    assert abs(snr - ratio(cell, events & cell)) > 1
    only_events = cell | events.any(axis=0)
    assert abs(snr - ratio(only_events, events)) > 0.01
