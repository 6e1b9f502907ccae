"""Metrics, smoothing, figures, maps, atlas and the band-power baseline."""

import json
import tracemalloc
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import scipy.io

from analysis.atlas import (
    fit_to,
    front_back_index,
    front_back_table,
    permutation_test,
    read_atlas,
    region_table,
)
from analysis.attention_figures import (
    attention_statistics,
    effective_steps,
    save_attention_figures,
)
from analysis.band_power import band_features
from analysis.bouts import first_line, sleep_statistics
from analysis.gradcam import GradCam, upsample
from analysis.hypnogram_figures import plot_hypnogram
from analysis.map_figures import plot_gradcam, rescale
from analysis.maps import SubjectMaps, collect
from analysis.occlusion import Occlusion, parcel_pair_masks, patch_masks
from analysis.smoothing import (
    class_shares,
    median_of_three,
    minimum_bout,
    most_probable_path,
    shares_of,
    smooth,
    transition_matrix,
)
from analysis.utils import calibration, class_metrics, kappa_interval, text_of
from common.files import InputError
from inputs.dataloader_sleep import Epochs, View
from inputs.hypnogram import stretches
from inputs.shards import find_records
from network.model_attention_bilstm import Architecture, build
from scripts import run_scripts


class MapSettings:
    """The settings that maps.collect reads."""

    only_correct = False
    batch_size = 5
    workers = 1


def test_absent_state_is_not_a_zero():
    metrics = class_metrics(np.array([0, 0, 1]), np.array([0, 1, 1]))
    assert metrics["recall"][2] is None
    assert metrics["f1"][2] is None
    assert "n/a" in text_of(metrics)
    assert metrics["states_present"] == ["Wakefulness", "NREM"]
    assert metrics["f1_macro"] == pytest.approx(4 / 9)  # 2/3, 2/3 and, as published, 0
    assert metrics["f1_macro_present"] == pytest.approx(2 / 3)
    assert "F1 unweighted (macro) 0.444 (0.667 without REM)" in text_of(metrics)
    usual = class_metrics(np.array([0, 1, 2]), np.array([0, 1, 1]))
    assert usual["f1_macro_present"] == pytest.approx(usual["f1_macro"])
    assert "without" not in text_of(usual)
    assert class_metrics(np.zeros(3, int), np.zeros(3, int))["kappa"] is None
    assert "undefined" in text_of(class_metrics(np.zeros(3, int), np.zeros(3, int)))


def test_calibration_of_a_known_predictor():
    probs = np.repeat([[0.8, 0.1, 0.1]], 10, axis=0)
    table, error = calibration(np.array([0] * 6 + [1] * 4), probs)
    assert error == pytest.approx(0.2)
    assert table["n"].sum() == 10


def test_interval_holds_the_value():
    rng = np.random.default_rng(0)
    true = np.repeat(rng.integers(0, 3, 60), 5)
    pred = np.where(rng.random(300) < 0.8, true, rng.integers(0, 3, 300))
    low, high = kappa_interval(true, pred, np.repeat([0, 1], 150))
    assert low < class_metrics(true, pred)["kappa"] < high


def test_gaps_break_bouts():
    epoch, recording = np.array([0, 1, 3, 4, 0]), np.array([0, 0, 0, 0, 1])
    assert stretches(recording, epoch) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    labels = np.array([1, 1, 1, 0, 0])
    broken, joined = sleep_statistics(labels, stretches(recording, epoch)), sleep_statistics(labels)
    assert broken["NREM"]["bouts"] == [2, 1]
    assert joined["NREM"]["bouts"] == [3]
    assert first_line(joined) == "mean bout: Wakefulness 20 s, NREM 30 s, REM - s; transitions: 1"
    with pytest.raises(InputError, match="empty"):
        sleep_statistics(np.array([], int))


def test_sure_states_stay():
    """A stretch of one sure state, and sure epochs between artifacts, are what they are."""
    labels = np.repeat([0, 1, 0, 1, 2, 0], [12, 9, 11, 10, 6, 12])
    matrix = transition_matrix(labels, [np.zeros(60, int), np.arange(60)], 3)
    np.testing.assert_allclose(shares_of(matrix) @ matrix, shares_of(matrix), atol=1e-12)
    for state in range(3):
        probs = np.full((10, 3), 0.015)
        probs[:, state] = 0.97
        for epoch in (np.arange(10), np.arange(0, 20, 2)):
            for learnt in (matrix, (matrix, class_shares(labels, 3))):
                states = smooth("hmm", probs, np.zeros(10, int), epoch, learnt)
                assert (states == state).all()
            assert (smooth("bout", probs, np.zeros(10, int), epoch) == state).all()


def test_smoothing():
    states = np.array([0, 1, 0, 0, 2, 2, 1])
    assert median_of_three(states).tolist() == [0, 0, 0, 0, 2, 2, 1]
    assert minimum_bout(states).tolist() == [0, 0, 0, 0, 2, 2, 2]
    assert minimum_bout(np.array([2, 1, 1])).tolist() == [1, 1, 1]
    assert minimum_bout(np.array([1, 1, 1])).tolist() == [1, 1, 1]
    assert minimum_bout(np.array([1])).tolist() == [1]
    matrix = transition_matrix(np.array([0, 0, 1, 2, 0]), [np.zeros(5, int), np.arange(5)], 3)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert matrix[0, 2] < 1e-5
    probs = np.array([[0.9, 0.1, 0.0], [0.1, 0.2, 0.7], [0.1, 0.2, 0.7], [0.0, 0.1, 0.9]])
    path = most_probable_path(probs, matrix, np.full(3, 1 / 3))
    assert not any(a == 0 and b == 2 for a, b in pairwise(path))
    # A stretch of one sure state stays, also a single epoch of a rare one.
    shares = class_shares(np.array([0] * 60 + [1] * 30 + [2] * 5), 3)
    for state in range(3):
        sure = np.full((4, 3), 0.01)
        sure[:, state] = 0.98
        for stretch in (sure, sure[:1]):
            assert set(most_probable_path(stretch, matrix, shares)) == {state}


def test_hypnogram_has_one_collection_per_row():
    figure = plot_hypnogram([np.array([0, 1, np.nan, 2]), np.array([0, 1, -1, 2])], ["a", "b"])
    assert len(figure.axes) == 2
    for axes in figure.axes:
        (strokes,) = axes.collections
        assert [segment[0].tolist() for segment in strokes.get_segments()] == [
            [1, 0],
            [2, 1],
            [4, 2],
        ]
        assert axes.get_ylim() == (3, 0)  # wakefulness on top
        assert axes.get_xlim() == (0, 4.5)  # the whole last stroke
    three_hours = plot_hypnogram([np.zeros(1080)], ["a"]).axes[0]
    assert three_hours.get_xticks()[-1] == 1080
    assert three_hours.get_xticklabels()[-1].get_text() == "3.0"
    assert three_hours.get_xlabel() == "Time (hr)"
    assert three_hours.get_xlim() == (0, 1100)  # 20 epochs on the right, as published
    minutes = plot_hypnogram([np.zeros(150)], ["a"]).axes[0]  # 25 minutes
    assert minutes.get_xlabel() == "Time (min)"
    labels = [label.get_text() for label in minutes.get_xticklabels()]
    assert dict(zip(minutes.get_xticks().tolist(), labels, strict=True)) == {
        0: "0",
        30: "5",
        60: "10",
        90: "15",
        120: "20",
        150: "25",
    }
    assert minutes.get_xlim() == (0, 153)  # no more than a fiftieth
    with pytest.raises(InputError):
        plot_hypnogram([np.array([])], ["a"])


def test_figure_scripts(tmp_path):
    rng = np.random.default_rng(0)
    n, frames = 12, 20
    states = np.array([0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1])
    held = {"y_preds": states, "y_trues": states, "run": np.ones(n), "epoch": np.arange(n)}
    scipy.io.savemat(tmp_path / "200128_10s.mat", held)
    scipy.io.savemat(
        tmp_path / "200128_attention_weights.mat", {"att_weights": rng.random((n, frames)), **held}
    )
    for state, value in enumerate(
        (rng.random((16, 16)), np.full((16, 16), np.nan), np.ones((16, 16)))
    ):
        maps = {"subject_avg_gradcam": value, "example_data": rng.random((70, 16, 16))}
        scipy.io.savemat(tmp_path / f"200128_avg_label{state}.mat", maps)
    gradcam = ("--folder", tmp_path, "--mice", "200128")
    shown = run_scripts(
        [
            ("plot_hypnogram.py", ["200128_10s.mat"]),
            ("plot_gradcam.py", gradcam),
            ("plot_gradcam.py", [*gradcam, "--signed", "--colour_bar", "--out", "signed.png"]),
            ("plot_scoring_length.py", ["--out", "lengths.png"]),
            ("fragmented_sleep.py", ["200128_10s.mat"]),
            ("visualize_attention_weights.py", ["200128_attention_weights.mat"]),
            (
                "utils.py",
                ["compare", "200128_10s.mat", "--keys", "y_preds", "y_trues", "--out", "cmp"],
            ),
        ],
        tmp_path,
    )
    first = shown[4].splitlines()[0]
    assert first == "mean bout: Wakefulness 25 s, NREM 35 s, REM - s; transitions: 3"
    assert "REM: no epochs" in shown[5]
    assert json.loads((tmp_path / "cmp" / "metrics.json").read_text())["kappa"] == 1
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert {"200128_10s_hypnogram.png", "gradcam.png", "lengths.png"} <= pictures
    assert len([name for name in pictures if "attention" in name]) == 4
    for name in pictures:
        assert (tmp_path / name).with_suffix(".csv").is_file() or name in (
            "gradcam.png",
            "signed.png",
        )


def test_spread_of_attention():
    even, sharp = np.full(8, 1 / 8), np.eye(8)[3]
    np.testing.assert_allclose(effective_steps(np.stack([even, sharp])), [8, 1])


def test_even_attention_is_drawn_as_one_and_sharp_attention_above(tmp_path):
    weights = np.stack([np.full(8, 1 / 8), np.full(8, 1 / 8), np.eye(8)[3]])
    statistics = attention_statistics(weights, np.array([2, 2, 0]))
    save_attention_figures(statistics, np.array([2, 2, 0]), tmp_path, "m")
    means = pd.read_csv(tmp_path / "m_attention_means.csv")
    np.testing.assert_allclose(means["REM"], 1)
    np.testing.assert_allclose(means["Wakefulness"], 8 * np.eye(8)[3])
    assert means["NREM"].isna().all()
    in_time = pd.read_csv(tmp_path / "m_attention_in_time.csv")
    np.testing.assert_allclose(in_time[[f"w{i}" for i in range(8)]], 8 * weights)
    save_attention_figures(statistics, np.array([2, 2, 0]), tmp_path, "old", rescaled=True)
    published = pd.read_csv(tmp_path / "old_attention_means.csv")
    np.testing.assert_allclose(published["REM"], 0)


def test_signed_maps_have_nothing_below_them_and_name_their_sides():
    heat, movie = np.zeros((8, 8)), np.zeros((3, 8, 8))
    heat[2, 3], movie[:, 1:7, 1:7] = -0.4, 1.0
    (axes,) = plot_gradcam({"m": {"NREM": heat}}, {"m": {"NREM": movie}}, signed=True).axes
    (layer,) = axes.images
    assert layer.get_alpha() is None
    assert layer.get_clim() == (-0.4, 0.4)
    inside = ~np.ma.getmaskarray(layer.get_array())
    np.testing.assert_array_equal(inside, movie[0] != 0)
    placed = {text.get_text(): text.get_position() for text in axes.texts}
    assert placed["front"][1] > placed["back"][1]  # row 0 is at the top
    assert placed["left"][0] < 0


def test_constant_map_is_not_stretched():
    assert rescale(np.ones((3, 3))) is None
    assert rescale(np.full((3, 3), np.nan)) is None


def tiny_network(epochs):
    frames, height, width = epochs.shape
    shape = {"num_frames": frames, "height": height, "width": width}
    return build(Architecture(**shape, num_filters=4, num_blocks=2, num_rnn_units=4), seed=2)


def test_one_pass_equals_three(tfrecords):
    epochs = Epochs(find_records(tfrecords)[:30], View(12))
    network = tiny_network(epochs)
    mask = np.ones(epochs.shape[1:], bool)
    together = collect(GradCam(network), epochs, mask, MapSettings)
    movies = np.stack([epochs.read(i) for i in range(len(epochs))])
    maps, probs = GradCam(network).volumes(movies)
    for state in range(3):
        own = probs.argmax(axis=1) == state
        assert together.counts[state] == own.sum()
        if own.any():
            # The published order: every map at full size first, then the mean.
            wanted = upsample(maps[own], 16, 16).mean(axis=(0, 1))
            np.testing.assert_allclose(together.average(state), wanted, atol=1e-6)


def test_memory_of_maps_is_constant(tfrecords):
    subject = SubjectMaps(np.ones((16, 16), bool), 3, only_correct=False)
    rng = np.random.default_rng(0)
    for start in range(0, 200, 10):
        maps, frames = rng.random((10, 4, 4)), rng.random((10, 12, 16, 16)).astype(np.float32)
        labels = np.arange(10) % 3
        subject.add(maps, frames, labels, labels, np.arange(start, start + 10))
    held = sum(a.nbytes for a in subject.sums) + sum(e[1].nbytes for e in subject.examples)
    assert held < 3 * (4 * 4 * 8 + 12 * 16 * 16 * 4) + 1
    assert all(base is None for base in (e[1].base for e in subject.examples))


def test_memory_of_one_pass_is_constant(tfrecords):
    """200 epochs need no more than 10: neither frames nor maps of full size are kept."""
    records = find_records(tfrecords)
    mask = np.ones((16, 16), bool)
    method = GradCam(tiny_network(Epochs(records, View(42))))
    collect(method, Epochs(records[:10], View(42)), mask, MapSettings)  # builds the graphs
    peaks = []
    for count in (10, 200):
        epochs = Epochs((records * 3)[:count], View(42))
        tracemalloc.start()
        subject = collect(method, epochs, mask, MapSettings)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert sum(subject.counts) == count
    # Kept frames would take 8 MB, kept maps 16 MB, and 50 MB are allowed at the published size.
    assert peaks[1] - peaks[0] < 2e6


def test_occlusion_measures_the_drop(tfrecords):
    epochs = Epochs(find_records(tfrecords)[:4], View(12))
    network = tiny_network(epochs)
    movies = np.stack([epochs.read(i) for i in range(4)])
    masks = patch_masks(16, 16, 8)
    assert masks.sum(axis=0).tolist() == np.ones((16, 16), int).tolist()
    drops, probs = Occlusion(network, masks).drops(movies)
    hidden = movies.copy()
    hidden[..., masks[1]] = 0
    chosen = probs.argmax(axis=1)
    after = network.infer(hidden)["probs"]
    row = np.arange(4)
    np.testing.assert_allclose(drops[:, 1], probs[row, chosen] - after[row, chosen], atol=1e-6)
    with pytest.raises(InputError):
        patch_masks(16, 16, 17)


def test_front_back_and_permutation():
    mask = np.ones((8, 8), bool)
    front = np.zeros((1, 8, 8))
    front[0, :4] = 1
    assert front_back_index(front, mask).tolist() == [1.0]
    assert front_back_index(1 - front, mask).tolist() == [-1.0]
    half_outside = np.where(mask, np.arange(8) < 4, False)
    maps = {"wake": 3 * front[0] + 1, "NREM": front[0], "REM": np.full((8, 8), np.nan)}
    table = front_back_table(maps, half_outside).set_index("state")
    assert table.loc["wake", ["front", "back", "ratio"]].tolist() == [4, 1, 4]
    assert table["ratio"].isna().tolist() == [False, True, True]
    rng = np.random.default_rng(0)
    assert permutation_test(rng.normal(2, 1, 30), rng.normal(0, 1, 30))["p"] < 0.01
    assert permutation_test(np.array([]), np.ones(3))["p"] is None


def test_band_power_finds_the_band():
    time = np.arange(168) / 16.8
    for hertz, band in ((0.3, 0), (1.0, 1), (3.0, 2), (6.5, 3)):
        frames = np.repeat(np.sin(2 * np.pi * hertz * time)[:, None], 16, 1).reshape(-1, 4, 4)
        powers = band_features(frames.astype(np.float32)).reshape(4, 3)
        assert (powers.argmax(axis=0) == band).all()


@pytest.mark.data
def test_atlas(real_dir):
    path = real_dir / "AtlasandIsbrain.mat"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {real_dir}")
    atlas = read_atlas(path)
    assert atlas.mask.sum() == 11_214
    assert (atlas.mask == atlas.mask[:, ::-1]).all()
    assert (atlas.parcels > 0).sum() == 9_806
    assert set(np.unique(atlas.parcels[:, :64])) == set(range(21))
    sizes = (
        397,
        258,
        45,
        584,
        480,
        257,
        179,
        159,
        468,
        31,
        60,
        350,
        50,
        37,
        79,
        415,
        568,
        204,
        206,
        76,
    )
    assert tuple((atlas.parcels == n).sum() for n in range(1, 21)) == sizes
    assert atlas.names[0] == "Olf L"
    assert atlas.names[9] == "SS Sh L"
    assert atlas.names[36] == "V1 R"
    rows, _ = np.nonzero(atlas.parcels == 2)
    back, _ = np.nonzero(atlas.parcels == 17)
    assert rows.max() < back.min()  # frontal cortex lies anterior to visual cortex
    maps = {"row": np.repeat(np.arange(128.0)[:, None], 128, 1)}
    table = region_table(maps, atlas.parcels, atlas.names)
    assert table["pixels"].sum() == 9_806
    assert table["row"][0] == pytest.approx(np.nonzero(atlas.parcels == 1)[0].mean())
    small = region_table({"one": np.ones((32, 32))}, fit_to(atlas.parcels, 32, 32), atlas.names)
    assert len(small) == 40
    assert small["one"].dropna().eq(1).all()
    assert fit_to(atlas.parcels, 64, 64).shape == (64, 64)
    assert parcel_pair_masks(atlas.parcels)[16].sum() == 2 * 568


def test_foreign_atlas_is_refused(tmp_path):
    (tmp_path / "atlas.mat").write_bytes(b"x")
    with pytest.raises(InputError, match="is no AtlasandIsbrain"):
        read_atlas(tmp_path / "atlas.mat")


def test_tables_are_read_back(tmp_path):
    pd.DataFrame({"a": [0, 1, 2], "b": [0, 5, 2]}).to_csv(tmp_path / "raters.csv", index=False)
    from analysis.utils import read_label_vectors

    assert read_label_vectors(tmp_path / "raters.csv", ["a"])[0].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="values other than 0, 1, 2"):
        read_label_vectors(tmp_path / "raters.csv", ["a", "b"])
    with pytest.raises(InputError, match="has no c; found a, b"):
        read_label_vectors(tmp_path / "raters.csv", ["c"])
