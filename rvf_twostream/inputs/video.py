"""Read a video as grey frames. Letters in shape comments: n frames, r rows, c columns."""

from pathlib import Path

import cv2
import numpy as np

from common.files import InputError
from inputs.dicom_io import LUMA

VIDEO_SUFFIXES = (".avi", ".mp4", ".mov", ".mkv", ".webm")


def read_video(path: Path) -> tuple[np.ndarray, float | None]:
    """Return grey frames (n, r, c) float32 0..255 and the frame rate (None when unknown).

    Grey is the mean of the channels when they are equal, else luma.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: not found")
    _check_riff_size(path)
    video = cv2.VideoCapture(str(path))
    try:
        rate, promised = video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        frames = []
        while True:
            good, frame = video.read()
            if not good:
                break
            blue, green, red = (frame[..., k].astype(np.float32) for k in range(3))
            equal = np.array_equal(red, green) and np.array_equal(red, blue)
            weights = (1 / 3, 1 / 3, 1 / 3) if equal else LUMA["luma"]
            frames.append(red * weights[0] + green * weights[1] + blue * weights[2])
    except cv2.error as error:
        raise InputError(f"{path}: not decodable ({error.err}); copy the file again") from None
    finally:
        video.release()
    if not frames:
        raise InputError(f"{path}: not decodable as video; copy the file again")
    if len(frames) < promised:
        raise InputError(
            f"{path}: {len(frames)} frames found, {promised} expected; the file is cut"
        )
    return np.stack(frames), (rate if rate and np.isfinite(rate) and rate > 0 else None)


def _check_riff_size(path):
    """Raise InputError when an AVI is shorter than its first chunk says.

    The decoder fills the rest of a cut frame with grey and counts it as read.
    """
    with open(path, "rb") as handle:
        head = handle.read(8)
    wanted, found = int.from_bytes(head[4:], "little") + 8, Path(path).stat().st_size
    unknown = wanted == 0xFFFFFFFF + 8  # written to a pipe
    if head[:4] == b"RIFF" and found < wanted and not unknown:
        raise InputError(f"{path}: {found} bytes found, {wanted} expected; the file is cut")
