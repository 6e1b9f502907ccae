#!/usr/bin/env bash
# One would guess: a movie of frames, rows and columns is given to pynwb as it is, and every NWB reader
#   shows it upright; at least the validator or the field `dimension` would object to swapped axes.
# What happens: the schema wants frame, x, y: columns before rows. pynwb stores what it is given,
#   the validator finds nothing, also when `dimension` says the opposite of the data's shape, and
#   roiextractors, which follows the schema, hands rows out as columns: the field of view is mirrored
#   at its diagonal, and two pixel sizes (grid_spacing) belong to the wrong sides.
# Where users meet it: imaging data or stimulus movies that a script of the laboratory put into NWB.
# Source: NWB schema, ImageSeries.data, dims [frame, x, y]; own trial.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q pynwb==4.2.0 roiextractors==0.10.0 numpy==2.4.6
env/bin/python -W ignore - <<'PYTHON'
import datetime
import warnings
from importlib.metadata import version

import numpy as np
import pynwb
from pynwb.ophys import OpticalChannel, TwoPhotonSeries
from roiextractors import NwbImagingExtractor

movie = np.zeros((4, 6, 9), dtype=np.uint16)  # frames, rows, columns
movie[:, 0, :] = 7  # the first row is bright
start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
session = pynwb.NWBFile(session_description="d", identifier="i", session_start_time=start)
channel = OpticalChannel(name="green", description="d", emission_lambda=520.0)
plane = session.create_imaging_plane(
    name="plane", optical_channel=channel, description="d", device=session.create_device(name="m"),
    excitation_lambda=920.0, indicator="g", location="l", imaging_rate=10.0,
    grid_spacing=[1.0, 2.0], grid_spacing_unit="micrometers",
)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    session.add_acquisition(TwoPhotonSeries(
        name="TwoPhotonSeries", data=movie, dimension=[9, 6], unit="n.a.", rate=10.0,
        imaging_plane=plane,
    ))
    with pynwb.NWBHDF5IO("movie.nwb", "w") as file:
        file.write(session)
complaints = [str(item.message) for item in caught], list(pynwb.validate(path="movie.nwb"))
read = NwbImagingExtractor("movie.nwb").get_series()
print("pynwb", version("pynwb"), "roiextractors", version("roiextractors"))
print("written", movie.shape, "bright: row 0; dimension says 9 x 6; complaints", complaints)
print("read   ", read.shape, "bright: column", np.flatnonzero((read[0] == 7).all(axis=0)))
assert complaints == ([], [])
assert read.shape == (4, 9, 6) and (read[0, :, 0] == 7).all()
PYTHON
