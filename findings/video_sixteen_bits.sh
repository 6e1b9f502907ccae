#!/usr/bin/env bash
# One would guess: a lossless 16-bit grey video (FFV1 in Matroska, the archive format for camera data)
#   comes back with its 16 bits, or is refused.
# What happens: cv2.VideoCapture and imageio (pyav and FFMPEG plugins) return three equal channels of 8
#   bits: the high byte. A 12-bit camera's 4,096 levels become 17, a dF/F0 of 5 % on 400 counts is gone.
#   PyAV without a format gives the 16 bits, OpenCV with CAP_PROP_CONVERT_RGB set to 0 does too.
# Where users meet it: camera movies packed losslessly to save disk and read back with the usual three
#   lines; the file is whole, so nothing looks damaged but the traces.
# Source: own trial; imageio documentation of the pyav plugin (format "rgb24" unless told otherwise).
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 opencv-python-headless==5.0.0.93 av==18.1.0 imageio==2.38.1 imageio-ffmpeg==0.8.1
env/bin/python -W ignore - <<'PYTHON' 2>/dev/null
import av
import cv2
import imageio
import imageio.v3 as iio
import numpy as np

print("OpenCV", cv2.__version__, "PyAV", av.__version__, "imageio", imageio.__version__)
frame = np.arange(4096, dtype=np.uint16).reshape(64, 64)
with av.open("camera.mkv", "w") as out:
    stream = out.add_stream("ffv1", rate=10, width=64, height=64, pix_fmt="gray16le")
    for picture in (av.VideoFrame.from_ndarray(frame, format="gray16le"), None):
        out.mux(stream.encode(picture))
with av.open("camera.mkv") as file:
    whole = next(file.decode(video=0)).to_ndarray()
video = cv2.VideoCapture("camera.mkv")
plain = video.read()[1]
video = cv2.VideoCapture("camera.mkv")
video.set(cv2.CAP_PROP_CONVERT_RGB, 0)
deep = video.read()[1]
read = {
    "PyAV, no format": whole,
    "OpenCV": plain,
    "OpenCV, CONVERT_RGB 0": deep,
    "imageio pyav": iio.imread("camera.mkv", plugin="pyav")[0],
    "imageio FFMPEG": iio.imread("camera.mkv", plugin="FFMPEG")[0],
}
for name, array in read.items():
    print(f"{name}: {array.dtype} {array.shape}, {np.unique(array).size} levels of {np.unique(frame).size}")
    deep = "no format" in name or "RGB 0" in name
    assert np.array_equal(array, frame) if deep else (array.dtype == np.uint8 and np.unique(array).size < 20)
PYTHON
