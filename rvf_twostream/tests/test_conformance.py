"""Every file of the conformance set is read right or refused in words that are true."""

import numpy as np
import pytest

from common.files import InputError
from conformance import cases, save
from inputs.dicom_io import read_frames

CASES = list(cases())


def test_the_set_is_large_enough():
    assert len(CASES) >= 120
    assert len({name for name, _, _ in CASES}) == len(CASES)


@pytest.mark.parametrize(("name", "data", "expected"), CASES, ids=[case[0] for case in CASES])
def test_right_or_refused(tmp_path, name, data, expected):
    path = tmp_path / "a.dcm"
    save(data, path)
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected) as error:
            read_frames(path)
        assert "\n" not in str(error.value)
        return
    true, tolerance = expected
    frames, info = read_frames(path)
    assert frames.shape == true.shape
    assert np.abs(frames - true).mean() < tolerance, np.abs(frames - true).mean()
    label, other = data.PhotometricInterpretation, " as "
    if other in name and label in ("RGB", "YBR_FULL") and name.startswith(("Explicit", "RLE")):
        stored = name.split(other)[0].split()[-1]
        assert (stored == label) != any("the pixels are" in note for note in info["warnings"])
