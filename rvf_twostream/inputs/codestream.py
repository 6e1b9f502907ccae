"""What a compressed picture says of itself: size, components and colour of its code stream.

A header's label may be wrong; markers, component ids, subsampling and the component transform of
the stream are what its encoder did. Source: ITU-T T.81 (JPEG), T.871 (JFIF), T.800 (JPEG 2000).
"""

from typing import NamedTuple

RGB, YBR = "RGB", "YBR"
BARE = {0x01, 0xFF, *range(0xD0, 0xD8)}  # JPEG markers without a length
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}  # start of frame; F7: JPEG-LS
J2K = b"\xff\x4f\xff\x51"  # start of code stream, then size
JP2_COLOURS = {16: RGB, 18: YBR}  # enumerated colour spaces of the box colr


class Stream(NamedTuple):
    """Facts of one picture."""

    rows: int
    columns: int
    bits: int
    components: int
    colour: str | None  # RGB or YBR where the stream tells, else None
    reason: str  # what tells


def begins_picture(fragment: bytes) -> bool:
    """Say whether a fragment begins a JPEG, JPEG-LS or JPEG 2000 picture (boxed or not)."""
    return fragment[:3] == b"\xff\xd8\xff" or fragment[:4] == J2K or fragment[4:8] == b"jP  "


def stream_facts(picture: bytes) -> Stream | None:
    """Return what a picture says of itself; None for RLE, or where it cannot be followed."""
    try:
        if picture[:2] == b"\xff\xd8":
            return _jpeg(picture)
        start = picture.find(J2K, 0, 4096)
        return _jpeg2000(picture, start) if start >= 0 else None
    except IndexError:
        return None  # cut: the decoder names the fault


def _jpeg(picture):
    place, adobe, jfif = 2, None, False
    while True:
        if picture[place] != 0xFF:
            return None
        marker = picture[place + 1]
        if marker in BARE:
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(picture[place + 2 : place + 4], "big")
        body = picture[place + 4 : place + 2 + length]
        if marker == 0xE0 and body[:4] == b"JFIF":
            jfif = True
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) > 11:
            adobe = body[11]
        elif marker in FRAMES:
            return _frame_header(body, adobe, jfif, marker)
        elif marker in (0xD9, 0xDA):
            return None
        place += 2 + length


def _frame_header(body, adobe, jfif, marker):
    """Return the facts of a start of frame; Adobe wins over JFIF, as in libjpeg."""
    bits, rows, columns, n = (
        body[0],
        *(int.from_bytes(body[k : k + 2], "big") for k in (1, 3)),
        body[5],
    )
    parts = [(body[6 + 3 * k], body[7 + 3 * k]) for k in range(n)]  # id, sampling factors
    colour, reason = None, ""
    if n == 3 and marker != 0xF7:  # JPEG-LS has no such habits
        if adobe is not None:
            colour, reason = (RGB if adobe == 0 else YBR), f"Adobe marker, transform {adobe}"
        elif jfif:
            colour, reason = YBR, "JFIF marker"
        elif bytes(part[0] for part in parts) == b"RGB":
            colour, reason = RGB, "component ids R, G, B"
        elif len({sampling for _, sampling in parts}) > 1:
            colour, reason = YBR, "subsampled components"
    return Stream(rows, columns, bits, n, colour, reason)


def _jpeg2000(picture, start):
    def whole(place, size):
        return int.from_bytes(picture[place : place + size], "big")

    size = start + 4
    columns, rows = (
        whole(size + 4, 4) - whole(size + 12, 4),
        whole(size + 8, 4) - whole(size + 16, 4),
    )
    n, bits = whole(size + 36, 2), (picture[size + 38] & 0x7F) + 1
    colour, reason = None, ""
    if n == 3:
        box = picture.find(b"colr", 0, start)
        if box >= 0 and picture[box + 4] == 1:
            colour = JP2_COLOURS.get(whole(box + 7, 4))
            reason = "colour space of the JP2 box"
        place = size + whole(size, 2)
        while picture[place] == 0xFF and picture[place + 1] not in (0x52, 0x90):
            place += 2 + whole(place + 2, 2)
        if picture[place + 1] == 0x52 and picture[place + 8]:
            # The decoder undoes the transform: what it hands out is red, green and blue.
            colour, reason = RGB, "component transform (MCT)"
    return Stream(rows, columns, bits, n, colour, reason)
