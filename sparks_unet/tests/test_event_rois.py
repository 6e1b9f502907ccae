"""Events as ImageJ ROIs and back: no voxel and no event is lost."""

import numpy as np
import pandas as pd
import pytest
import roifile
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.event_rois import outlines, read_event_rois, write_event_rois
from common.files import InputError
from event_rois import main
from inputs.calibration import Calibration
from inputs.cell import roi_area
from inputs.movie_io import read_stack, write_stack


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
