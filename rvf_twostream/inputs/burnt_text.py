"""Search the pictures of a data set for burnt-in text (``preprocess.py --find_text``).

RapidOCR (requirements-text.txt) reads the maximum and the minimum over all frames of every movie.
What it reads is never written: places and numbers of characters are, for a person to look there.
Tried beside it: its detector alone marks bright valves and scales of nearly every clean movie, so
a place counts only where letters or digits are recognised.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from common.files import InputError
from common.tables import write_table
from inputs.contact_sheet import picture_path

SURE = 0.6  # confidence of RapidOCR from which a reading counts; noise stays below 0.5
FEWEST = 2  # letters or digits: single ones are markers of the scanner
COLUMNS = (
    "movie",
    "picture",
    "row",
    "column",
    "height",
    "width",
    "letters",
    "digits",
    "confidence",
)


class Place(NamedTuple):
    """Where text stands in a picture, in pixels, and how many characters of which kind."""

    row: int
    column: int
    height: int
    width: int
    letters: int
    digits: int
    confidence: float


def text_reader():
    """Return ``read(picture (r, c) uint8) -> list of Place``.

    Raises:
        InputError: RapidOCR is not installed.
    """
    try:
        # optional, requirements-text.txt
        from rapidocr_onnxruntime import RapidOCR
    except ImportError:
        raise InputError(
            "--find_text needs RapidOCR: pip install -r requirements-text.txt"
        ) from None
    engine = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)

    def read(picture):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            boxes, _ = engine(np.repeat(picture[..., None], 3, axis=2), use_cls=False)
        return [place for box, text, sure in boxes or [] if (place := _place(box, text, sure))]

    return read


def _place(box, text, confidence):
    """Return the Place of one reading, None where it is none to speak of."""
    letters, digits = sum(c.isalpha() for c in text), sum(c.isdigit() for c in text)
    if float(confidence) < SURE or letters + digits < FEWEST:
        return None
    left, top = np.floor(np.min(box, axis=0)).astype(int)
    right, bottom = np.ceil(np.max(box, axis=0)).astype(int)
    sizes = int(top), int(left), int(bottom - top), int(right - left)
    return Place(*sizes, letters, digits, round(float(confidence), 3))


def find_text(root: Path, stems: list[str]) -> int:
    """Write ``deid_text.csv`` with the places of text in the movies ``stems``.

    Returns:
        number of movies with text.
    """
    read, rows, with_text = text_reader(), [], set()
    for stem in stems:
        path = picture_path(root, stem)
        if not path.is_file():
            continue
        with Image.open(path) as picture:
            both = np.asarray(picture)
        half = len(both) // 2
        for name, part in (("maximum", both[:half]), ("minimum", both[half:])):
            places = read(part)
            rows += [(stem, name, *place) for place in places]
            with_text |= {stem} if places else set()
    write_table(Path(root) / "deid_text.csv", COLUMNS, rows)
    return len(with_text)
