"""How long a video file says it is: a cut one is read by ffmpeg as a shorter movie, without a word.

Source: RIFF (AVI), ISO 14496-12 boxes (MP4, MOV, M4V), RFC 8794 and 9559 (MKV, WEBM).
"""

from pathlib import Path
from typing import BinaryIO

from common.files import InputError

SLACK = 64  # bytes; some writers count the header of 8 bytes twice
BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"sidx", b"styp", b"uuid")
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
UNKNOWN_RIFF = (0, 0xFFFFFFFF)  # of a recorder that was not closed, or of a stream


def check_whole(path: Path) -> None:
    """Refuse a video that ends before its own header says.

    Raises:
        InputError: the file is cut.
    """
    there = path.stat().st_size
    with open(path, "rb") as handle:
        told = told_size(handle)
    if told is not None and told > there + SLACK:
        raise InputError(
            f"{path}: found {there} bytes, expected {told} (size in its header): the file is cut;"
            " copy or export it again"
        )


def told_size(handle: BinaryIO) -> int | None:
    """Return the size in bytes that a video's header tells, None where it tells none."""
    head = handle.read(8)
    if head[:4] == b"RIFF":
        size = int.from_bytes(head[4:8], "little")
        return None if size in UNKNOWN_RIFF else size + 8
    if head[4:8] in BOXES:
        return end_of_boxes(handle)
    if head[:4] == EBML:
        handle.seek(4)
        size = ebml_size(handle)
        handle.seek(size or 0, 1)
        if size is None or handle.read(4) != SEGMENT:
            return None
        size = ebml_size(handle)
        return None if size is None else handle.tell() + size
    return None


def end_of_boxes(handle: BinaryIO) -> int | None:
    """Return where the last known box of an ISO file ends, None when one has no end."""
    at = 0
    while True:
        handle.seek(at)
        head = handle.read(16)
        if len(head) < 8 or head[4:8] not in BOXES:
            return at
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")  # a long box
        if size < 8:
            return None  # 0: up to the end of the file
        at += size


def ebml_size(handle: BinaryIO) -> int | None:
    """Read a size of 1 to 8 bytes; None when it is unknown (all ones) or missing."""
    first = handle.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    size = int.from_bytes(first + handle.read(length - 1), "big") & ((1 << 7 * length) - 1)
    return None if size == (1 << 7 * length) - 1 else size
