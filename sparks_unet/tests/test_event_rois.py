"""Events as ImageJ ROIs and back: no voxel and no event is lost."""

import sys
import types

import numpy as np
import pandas as pd
import pytest
import roifile
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

import view
from analysis.event_rois import outlines, read_event_rois, write_event_rois
from common.files import InputError
from event_rois import main
from inputs.calibration import Calibration
from inputs.cell import roi_area
from inputs.movie_io import read_stack, write_stack
from runs.correction import rois_of_events


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.9))
def test_outlines_enclose_the_same_pixels(seed, share):
    mask = np.random.default_rng(seed).random((7, 9)) < share
    filled = np.zeros(mask.shape, bool)
    for line in outlines(mask):
        roi = roifile.ImagejRoi.frompoints(line)
        filled ^= roi_area(roi, mask.shape)
    np.testing.assert_array_equal(filled, mask)


def events():
    """Return (ids (8, 20, 30), classes): a ring, two pieces, single voxels."""
    ids = np.zeros((8, 20, 30), np.int32)
    ids[1:4, 3:10, 4:12] = 1
    ids[1:4, 5:8, 6:10] = 0
    ids[2, 6, 7] = 2
    ids[5, 1:3, 1:3] = ids[5, 10:12, 20:25] = 3
    ids[0, 0, 0] = ids[7, 19, 29] = 4
    return ids, np.array([0, 3, 1, 2, 1], np.uint8)


def test_round_trip_loses_nothing(tmp_path, capsys):
    ids, kinds = events()
    write_event_rois(tmp_path / "a.zip", ids, kinds)
    write_event_rois(tmp_path / "a.zip", ids, kinds)  # a second time adds nothing
    read_ids, classes = read_event_rois(tmp_path / "a.zip", ids.shape)
    np.testing.assert_array_equal(read_ids, ids)
    np.testing.assert_array_equal(classes, kinds)
    # as a user does it
    scale = {"calibration": Calibration.of(0.2, 6.8)}
    light = np.random.default_rng(0).integers(90, 110, ids.shape).astype(np.uint16)
    write_stack(tmp_path / "m.tif", light, **scale)
    write_stack(tmp_path / "m_instances.tif", ids.astype(np.uint16), **scale)
    write_stack(tmp_path / "m_classes.tif", kinds[ids], **scale)
    main([str(tmp_path / "m_instances.tif"), "--classes", str(tmp_path / "m_classes.tif")])
    out = tmp_path / "out"
    main([str(tmp_path / "m_events.zip"), "--movie", str(tmp_path / "m.tif"), "--out", str(out)])
    assert "2 sparks, 1 waves, 1 puffs" in capsys.readouterr().out
    np.testing.assert_array_equal(read_stack(out / "m_instances.tif").data, ids)
    assert list(pd.read_csv(out / "m_events.csv")["id"]) == [1, 2, 3, 4]


def square(name, frame, left=2):
    """Return a ROI of 4 x 3 pixels in a frame, counted from 1."""
    corners = [[left, 2], [left + 4, 2], [left + 4, 5], [left, 5]]
    roi = roifile.ImagejRoi.frompoints(corners)
    roi.name, roi.position = name, frame
    return roi


@pytest.mark.parametrize(
    ("later", "lost"),
    [("00002_puffs_00002_0", "event 1 (sparks)"), ("waves", "event 1 (sparks)"), ("", "")],
)
def test_an_event_without_a_pixel_left_is_named(tmp_path, caplog, later, lost):
    first = square("00001_sparks_00002_0", 3)
    other = square(later, 3) if later else square("00001_sparks_00003_0", 4)
    roifile.roiwrite(tmp_path / "a.zip", [first, other])
    ids, _ = read_event_rois(tmp_path / "a.zip", (5, 10, 12))
    assert len(np.unique(ids)) == 2
    assert (f"{lost} has no pixel left" in caplog.text) == bool(lost)


def test_an_event_has_the_class_of_most_of_its_voxels(tmp_path, caplog):
    ids, kinds = events()
    classes = kinds[ids]
    classes[5, 1, 1] = 3  # a voxel of a wave is called a puff
    classes[ids == 2] = 4
    write_stack(tmp_path / "m_instances.tif", ids.astype(np.uint16))
    write_stack(tmp_path / "m_classes.tif", classes)
    main([str(tmp_path / "m_instances.tif"), "--classes", str(tmp_path / "m_classes.tif")])
    read_ids, read_kinds = read_event_rois(tmp_path / "m_events.zip", ids.shape)
    assert list(read_kinds) == [0, 3, 0, 2, 1]
    np.testing.assert_array_equal(read_ids, np.where(ids == 2, 0, ids))
    assert "1 events have no spark, wave or puff" in caplog.text


class Napari(types.ModuleType):
    """What view.py needs of napari, with a person who corrects and closes the window."""

    def __init__(self, correct):
        super().__init__("napari")
        self.correct, self.layers = correct, {}
        self.Viewer = lambda title: self
        self.scale_bar = types.SimpleNamespace(visible=False, unit="")

    def add_image(self, data, *, name, scale):
        assert scale == (1, 0.2, 0.2)

    def add_labels(self, data, *, name, scale):
        self.layers[name] = types.SimpleNamespace(data=data)
        return self.layers[name]

    def run(self):
        self.correct(self.layers)


@pytest.fixture
def drawn(tmp_path, monkeypatch, capsys):
    """Function (correct) -> (exit code, what was printed, folder) of view.py --edit."""
    ids, kinds = events()
    scale = {"calibration": Calibration.of(0.2, 6.8)}
    light = np.random.default_rng(0).integers(90, 110, ids.shape).astype(np.uint16)
    write_stack(tmp_path / "m.tif", light, **scale)
    write_stack(tmp_path / "i.tif", ids.astype(np.uint16), **scale)
    write_stack(tmp_path / "c.tif", kinds[ids], **scale)

    def close(correct, *files):
        monkeypatch.setitem(sys.modules, "napari", Napari(correct))
        files = files or ("--classes", tmp_path / "c.tif", "--instances", tmp_path / "i.tif")
        words = [tmp_path / "m.tif", *files, "--edit", "--out", tmp_path / "out"]
        code = 0
        try:
            view.main([str(word) for word in words])
        except SystemExit as error:
            code = error.code
        return code, "".join(capsys.readouterr()), tmp_path / "out"

    return close


def test_labels_corrected_in_the_viewer_are_saved(drawn):
    def correct(layers):
        ids, classes = layers["instances"].data, layers["classes"].data
        ids[ids == 2] = 0  # a spark is taken out, a wave is called a puff, a spark is drawn
        classes[ids == 3] = 3
        ids[6, 2:5, 20:24] = 9
        classes[6, 3, 21] = 1

    code, told, out = drawn(correct)
    assert code == 0
    assert "2 sparks, 0 waves, 2 puffs" in told
    assert "1 voxels of a class have no id" in told
    ids = read_stack(out / "m_instances.tif").data
    assert (ids[6, 2:5, 20:24] == ids.max()).all()
    table = pd.read_csv(out / "m_events.csv")
    assert list(table["class"]) == ["puffs", "puffs", "sparks", "sparks"]
    assert (read_stack(out / "m_edited_instances.tif").data == 9).sum() == 12


def test_a_drawn_event_without_a_class_is_asked_for_and_kept(drawn):
    def correct(layers):
        layers["instances"].data[6, 2:5, 20:24] = 9

    code, told, out = drawn(correct)
    assert code == 2
    assert "1 edited events have no class (ids 9)" in told
    assert (read_stack(out / "m_edited_instances.tif").data == 9).sum() == 12


def test_classes_drawn_from_nothing_are_events(drawn):
    def correct(layers):
        layers["classes"].data[2:4, 3:6, 3:6] = 1
        layers["classes"].data[5:7, 13:16, 3:6] = 1

    code, told, _ = drawn(correct, "--frame-ms", "6.8")
    assert code == 0
    assert "2 sparks, 0 waves, 0 puffs" in told


def test_drawn_and_wrong_rois(tmp_path):
    roi = roifile.ImagejRoi.frompoints([[2, 2], [6, 2], [6, 5], [2, 5]])
    roi.name, roi.position = "puffs", 3
    roifile.roiwrite(tmp_path / "a.zip", [roi])
    ids, kinds = read_event_rois(tmp_path / "a.zip", (5, 10, 12))
    assert (ids[2, 2:5, 2:6] == 1).all()
    assert (ids > 0).sum() == 12
    assert list(kinds) == [0, 3]
    with pytest.raises(InputError, match="frame 2, the movie has 2"):
        read_event_rois(tmp_path / "a.zip", (2, 10, 12))
    roi.name = "cell"
    roifile.roiwrite(tmp_path / "b.zip", [roi])
    with pytest.raises(InputError, match="ROI 'cell': expected a name"):
        read_event_rois(tmp_path / "b.zip", (5, 10, 12))
    (tmp_path / "c.zip").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match=r"c\.zip: damaged"):
        read_event_rois(tmp_path / "c.zip", (5, 10, 12))


@pytest.mark.parametrize(
    ("name", "places", "box", "told"),
    [
        ("sparks", (0, 0), (2, 2, 6, 5), "does not say its frame"),
        ("70000_sparks_00002_0", (3, 3), (2, 2, 6, 5), "event 70000, expected 1 to 65535"),
        ("99999999999_sparks_00002_0", (3, 3), (2, 2, 6, 5), "event 99999999999, expected"),
        ("00000_sparks_00002_0", (3, 3), (2, 2, 6, 5), "event 0, expected 1 to 65535"),
        ("sparks", (3, 0), (20, 20, 26, 25), "no pixel of the frame of 10 x 12"),
    ],
)
def test_a_roi_without_frame_id_or_pixel_is_refused(tmp_path, name, places, box, told):
    left, top, right, bottom = box
    roi = roifile.ImagejRoi.frompoints([[left, top], [right, top], [right, bottom], [left, bottom]])
    roi.name, (roi.position, roi.t_position) = name, places
    roifile.roiwrite(tmp_path / "a.zip", [roi])
    with pytest.raises(InputError, match=told):
        read_event_rois(tmp_path / "a.zip", (5, 10, 12))


@pytest.mark.parametrize("kind", ["POINT", "LINE", "POLYLINE", "ANGLE"])
def test_points_and_open_lines_are_no_areas(tmp_path, kind):
    roi = roifile.ImagejRoi.frompoints([[2, 2], [8, 2], [8, 7]])
    roi.name, roi.position, roi.roitype = "sparks", 3, roifile.ROI_TYPE[kind]
    roifile.roiwrite(tmp_path / "a.zip", [roi])
    with pytest.raises(InputError, match="draw it as an area inside"):
        read_event_rois(tmp_path / "a.zip", (5, 10, 12))


def test_a_missing_file_of_rois_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.zip: file not found"):
        read_event_rois(tmp_path / "none.zip", (5, 10, 12))


@pytest.mark.parametrize(("place", "frame"), [(0, 4), (1, 0), (3, 2)])
def test_the_frame_of_a_roi_wins_over_its_name(tmp_path, place, frame):
    roi = roifile.ImagejRoi.frompoints([[2, 2], [6, 2], [6, 5], [2, 5]])
    roi.name, roi.position = "00001_sparks_00004_0", place
    roifile.roiwrite(tmp_path / "a.zip", [roi])
    ids, _ = read_event_rois(tmp_path / "a.zip", (5, 10, 12))
    assert (ids[frame] == 1).sum() == (ids > 0).sum() == 12


@pytest.mark.parametrize(("top", "bottom", "pixels"), [(-8, -3, 0), (-8, 2, 8), (8, 30, 8)])
def test_a_rectangle_beyond_the_frame_has_only_the_pixels_inside(top, bottom, pixels):
    roi = roifile.ImagejRoi()
    roi.roitype = roifile.ROI_TYPE.RECT
    roi.top, roi.bottom, roi.left, roi.right = top, bottom, 1, 5
    assert roi_area(roi, (10, 12)).sum() == pixels


def test_ids_that_cannot_be_read_back_are_not_written(tmp_path):
    ids = np.zeros((6, 8, 9), np.uint32)
    ids[1:4, 2:5, 2:5] = 70000
    tifffile.imwrite(tmp_path / "a_instances.tif", ids)
    tifffile.imwrite(tmp_path / "c.tif", (ids > 0).astype(np.uint8))
    with pytest.raises(InputError, match="event id 70000; expected at most 65535"):
        rois_of_events(tmp_path / "a_instances.tif", tmp_path / "c.tif")
    assert not list(tmp_path.glob("*.zip"))
