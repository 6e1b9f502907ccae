"""Events as ImageJ ROIs and back, so that they can be corrected by hand.

Each event has one ROI for each of its pieces in each frame, named ``<id>_<class>_<frame>_<piece>``;
ROIs of one event and frame that lie in each other are holes. A ROI that a person draws needs such a
name, or only ``<class>``: it then becomes an event of its own in the frame it is drawn in.
"""

import re
from pathlib import Path

import numpy as np
import roifile
from scipy import ndimage

from common.files import InputError, atomic_path
from inputs.cell import roi_area
from settings.config import CLASSES, EVENT_CLASSES, logger

NAME = re.compile(r"^(?P<id>\d+)_(?P<kind>[a-z]+)_(?P<frame>\d+)(?:_|$)")
LARGEST_ID = int(np.iinfo(np.uint16).max)  # masks are written with 16 bits
AREAS = tuple(
    roifile.ROI_TYPE[kind] for kind in ("POLYGON", "RECT", "OVAL", "FREEHAND", "TRACED")
)  # others are points and open lines
COLOURS = {
    "sparks": b"\xff\x00\xff\x00",
    "waves": b"\xff\x8a\x2b\xe2",
    "puffs": b"\xff\xdc\x14\x3c",
}


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Return the outlines of a mask (H, W) along the edges of its pixels.

    Returns:
        List of (n, 2) int32 corners x, y; an outline inside another one is a hole.
    """
    padded = np.pad(mask.astype(bool), 1)
    following = {}
    # edges with the mask on their right; corner (x, y) is the upper left one of pixel (y, x)
    for (dy, dx), (start, stop) in {
        (-1, 0): ((0, 0), (1, 0)),
        (0, 1): ((1, 0), (1, 1)),
        (1, 0): ((1, 1), (0, 1)),
        (0, -1): ((0, 1), (0, 0)),
    }.items():
        beside = np.roll(padded, (-dy, -dx), axis=(0, 1))
        rows, columns = np.nonzero(padded & ~beside)
        for y, x in zip((rows - 1).tolist(), (columns - 1).tolist(), strict=True):
            begin = (x + start[0], y + start[1])
            following.setdefault(begin, []).append((x + stop[0], y + stop[1]))
    lines = []
    while following:
        first = next(iter(following))
        line, at, before = [first], first, None
        while True:
            options = following[at]
            # where two pixels touch at a corner, stay with the pixel that was followed
            turn = options[0]
            if before is not None and len(options) > 1:
                heading = (at[0] - before[0], at[1] - before[1])
                right = (at[0] - heading[1], at[1] + heading[0])
                turn = right if right in options else options[0]
            options.remove(turn)
            if not options:
                del following[at]
            before, at = at, turn
            if at == first:
                break
            line.append(at)
        lines.append(np.array(line, np.int32))
    return lines


def event_rois(instances: np.ndarray, class_of_id: np.ndarray) -> list[roifile.ImagejRoi]:
    """Return the ROIs of all events.

    Args:
        instances: (T, H, W) event ids.
        class_of_id: (n + 1,) class number of every id.
    """
    names = {CLASSES[name]: name for name in EVENT_CLASSES}
    rois = []
    for number, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None or int(class_of_id[number]) not in names:
            continue
        kind = names[int(class_of_id[number])]
        for frame in range(box[0].start, box[0].stop):
            inside = instances[frame, box[1], box[2]] == number
            for piece, line in enumerate(outlines(inside)):
                corners = line + np.array([box[2].start, box[1].start], np.int32)
                roi = roifile.ImagejRoi.frompoints(corners)
                roi.roitype = roifile.ROI_TYPE.TRACED
                roi.name = f"{number:05d}_{kind}_{frame:05d}_{piece}"
                roi.position = roi.t_position = frame + 1  # ImageJ counts from 1
                roi.stroke_color = COLOURS[kind]
                rois.append(roi)
    return rois


def write_event_rois(path: Path, instances: np.ndarray, class_of_id: np.ndarray) -> int:
    """Write the ROIs of all events as an ImageJ ZIP; return their number."""
    rois = event_rois(instances, class_of_id)
    with atomic_path(path) as temporary:
        temporary.unlink(missing_ok=True)  # roifile would add to what is there
        if rois:
            roifile.roiwrite(temporary, rois, mode="w")
        else:
            temporary.write_bytes(b"PK\x05\x06" + bytes(18))  # an empty ZIP
    return len(rois)


def read_event_rois(path: Path, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (instances (T, H, W) int32, class of every id) of the ROIs in an ImageJ ZIP.

    Raises:
        InputError: a damaged file, a name that says no class, two classes of one id, no frame or
            one that the movie has not, an id that a 16-bit mask cannot hold, no pixel inside.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: file not found; expected ImageJ ROIs (.zip, .roi)")
    try:
        rois = roifile.roiread(path)
    except Exception as error:  # roifile raises many kinds for damaged files
        raise InputError(f"{path}: damaged ImageJ ROIs ({error}); save them again") from None
    rois = rois if isinstance(rois, list) else [rois]
    kinds, masks, drawn = {}, {}, []
    for roi in rois:
        match = NAME.match(roi.name or "")
        kind = match["kind"] if match else (roi.name or "").split("-")[0].strip().lower()
        if kind not in EVENT_CLASSES:
            raise InputError(
                f"{path}: ROI {roi.name!r}: expected a name such as 00012_sparks_00034_0, or "
                f"{', '.join(EVENT_CLASSES)}; rename it"
            )
        place = max(roi.position, roi.t_position)  # ImageJ counts from 1, 0 is no frame
        if not (place or match):
            raise InputError(
                f"{path}: ROI {roi.name!r}: the file does not say its frame; in ImageJ's ROI "
                "Manager associate ROIs with slices and update it, or name it 00012_sparks_00034_0"
            )
        frame = place - 1 if place else int(match["frame"])
        if frame >= shape[0]:
            raise InputError(f"{path}: ROI {roi.name!r}: frame {frame}, the movie has {shape[0]}")
        if match and not 1 <= int(match["id"]) <= LARGEST_ID:
            raise InputError(
                f"{path}: ROI {roi.name!r}: event {int(match['id'])}, expected 1 to {LARGEST_ID}; "
                "rename it"
            )
        area = roi_area(roi, shape[1:])
        if roi.roitype not in AREAS or not area.any():
            raise InputError(
                f"{path}: ROI {roi.name!r}: encloses no pixel of the frame of {shape[1]} x "
                f"{shape[2]} (rows x columns); draw it as an area inside, or delete it"
            )
        if not match:
            drawn.append((kind, frame, area))
            continue
        number = int(match["id"])
        if kinds.setdefault(number, kind) != kind:
            raise InputError(f"{path}: event {number} is {kinds[number]} and {kind}; rename a ROI")
        masks[number, frame] = masks.get((number, frame), False) ^ area
    for kind, frame, area in drawn:
        number = max(kinds, default=0) + 1
        kinds[number] = kind
        masks[number, frame] = area
    instances = np.zeros(shape, np.int32)
    for (number, frame), area in masks.items():
        instances[frame][area] = number
    left = set(np.unique(instances).tolist())
    for number in sorted(set(kinds) - left):
        logger.warning(
            "%s: event %d (%s) has no pixel left: ROIs of other events cover it, or its own lie "
            "twice on one place; it is no event of the tables",
            *(path, number, kinds[number]),
        )
    class_of_id = np.zeros(max(kinds, default=0) + 1, np.uint8)
    for number, kind in kinds.items():
        class_of_id[number] = CLASSES[kind]
    return instances, class_of_id
