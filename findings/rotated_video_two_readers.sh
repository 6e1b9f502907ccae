#!/usr/bin/env bash
# One would guess: two readers of one MP4 return pictures of the same height and width.
# What happens: for a file with a display matrix (90 degrees) OpenCV and imageio's FFMPEG plug-in turn
#   the picture, PyAV and imageio's pyav plug-in return it as coded and only carry the angle
#   (VideoFrame.rotation). Rows and columns are swapped between them, on every frame, without a message.
# Where users meet it: films of a phone or an action camera over a rig; an atlas, a mask or a target
#   pixel taken with one reader lies elsewhere with the other.
# Source: own trial; OpenCV documentation of CAP_PROP_ORIENTATION_AUTO, PyAV documentation of VideoFrame.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 av==18.1.0 opencv-python-headless==5.0.0.93 imageio==2.38.1 imageio-ffmpeg==0.8.1
env/bin/python -W ignore - <<'PYTHON' 2>/dev/null
import subprocess
from importlib.metadata import version

import av
import cv2
import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np

print(*(f"{n} {version(n)}" for n in ("av", "opencv-python-headless", "imageio", "imageio-ffmpeg")))
with av.open("plain.mp4", "w") as container:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
    for _ in range(10):
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
turn = ["-loglevel", "error", "-y", "-display_rotation", "90", "-i", "plain.mp4", "-c", "copy"]
subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *turn, "turned.mp4"], check=True)
with av.open("turned.mp4") as container:
    coded = next(container.decode(video=0))
shapes = {
    "PyAV": coded.to_ndarray(format="rgb24").shape[:2],
    "imageio, pyav": iio.imread("turned.mp4", plugin="pyav").shape[1:3],
    "OpenCV": cv2.VideoCapture("turned.mp4").read()[1].shape[:2],
    "imageio, FFMPEG": iio.imread("turned.mp4", plugin="FFMPEG").shape[1:3],
}
print("rotation", coded.rotation, shapes)
assert shapes["PyAV"] == shapes["imageio, pyav"] == (32, 64)
assert shapes["OpenCV"] == shapes["imageio, FFMPEG"] == (64, 32)
PYTHON
