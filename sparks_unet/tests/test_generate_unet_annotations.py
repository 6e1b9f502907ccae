"""Annotation masks from the command line, and their rules."""

import numpy as np
import pytest

from demo.synthetic import SMALL, make_demo_data
from generate_unet_annotations import main
from inputs.annotations import dilated_annotations, ignore_marginal_events, small_annotations
from inputs.movie_io import read_movie, write_stack


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_demo_data(folder, **SMALL | {"movies": 1, "rates": (6, 2, 1)})
    return folder


@pytest.mark.parametrize(
    ("kind", "name"),
    [("peaks", "peaks"), ("small", "small_peaks"), ("dilated", "dilated")],
)
def test_command_writes_masks(data, tmp_path, kind, name):
    main(["--sparks-type", kind, "--data", str(data), "--out", str(tmp_path)])
    labels = read_movie(tmp_path / f"01_class_label_{name}.tif").data
    raw = read_movie(data / "01_class_label.tif").data
    assert labels.shape == raw.shape
    assert set(np.unique(labels)) <= {0, 1, 2, 3, 4}
    assert (labels == 4).sum() > (raw == 4).sum()


def test_raw_needs_no_file(data, tmp_path, capsys):
    main(["--sparks-type", "raw", "--data", str(data), "--out", str(tmp_path)])
    assert "no file is needed" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_unknown_id_lists_the_known(data, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--sparks-type", "peaks", "--data", str(data), "--ids", "99"])
    assert caught.value.code == 2
    assert "available ids: 01" in capsys.readouterr().err


def test_rings_of_neighbours_of_one_class_join():
    classes = np.zeros((3, 20, 30), np.uint8)
    classes[1, 5:12, 5:12] = 1
    classes[1, 5:12, 12:19] = 1
    labels = dilated_annotations(classes)
    assert labels[1, 8, 11] == 1
    assert labels[1, 8, 4] == labels[1, 8, 19] == 4
    assert not labels[0].any()


def test_label_4_is_accepted():
    classes = np.zeros((3, 20, 30), np.uint8)
    classes[1, 5:12, 5:12], classes[:, 14:, :] = 3, 4
    labels = dilated_annotations(classes)
    assert (labels[:, 14:] == 4).all()
    assert labels[1, 8, 8] == 3


def test_a_tiny_spark_keeps_its_core():
    movie = np.random.default_rng(0).random((6, 12, 12)).astype(np.float32)
    classes, events = np.zeros(movie.shape, np.uint8), np.zeros(movie.shape, np.int32)
    classes[2, 4, 4:6], events[2, 4, 4:6] = 1, 7
    labels = small_annotations(movie, classes, events)
    assert (labels[2, 4, 4:6] == 1).any()
    assert not labels[classes == 0].any()


def test_marginal_events_become_label_4():
    classes, events = np.zeros((20, 4, 4), np.uint8), np.zeros((20, 4, 4), np.int32)
    classes[3:9], events[3:9] = 1, 5
    classes[10:13], events[10:13] = 2, 6
    labels = ignore_marginal_events(classes, events, 6)
    assert set(np.unique(labels[3:9])) == {4}
    assert set(np.unique(labels[10:13])) == {2}


def test_negative_radius_is_refused(data, tmp_path):
    with pytest.raises(SystemExit):
        main(["--sparks-type", "dilated", "--data", str(data), "--puffs-radius", "-1"])


def test_two_classes_in_one_event_are_reported(tmp_path, capsys):
    classes, events = np.zeros((8, 9, 9), np.uint8), np.zeros((8, 9, 9), np.uint16)
    classes[2:4, 2:5, 2:5], classes[4:6, 2:5, 2:5], events[2:6, 2:5, 2:5] = 1, 3, 8
    write_stack(tmp_path / "01_video.tif", np.ones(classes.shape, np.uint16))
    write_stack(tmp_path / "01_class_label.tif", classes)
    write_stack(tmp_path / "01_event_label.tif", events)
    main(["--sparks-type", "dilated", "--data", str(tmp_path)])
    assert "more than one class: 8" in capsys.readouterr().out
