"""Pictures for the human look at burnt-in text: every pixel's extremes over all frames.

A name that stands in one frame only is as bright in the maximum as one that stands in all; dark
text on tissue shows in the minimum. Letters in shape comments: r rows, c columns.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from common.files import atomic_path

FOLDER = "deid_pictures"  # below the data set: a PNG per movie, maximum above minimum
SHEET = "deid_contact_sheet"
PER_PAGE = 16  # movies
COLUMNS = 4
CELL = (300, 450)  # width, height of a movie on a page, pixels: maximum above minimum
TITLE = 16  # height of a line of text, pixels


def picture_path(root: Path, stem: str) -> Path:
    """Return the path of a movie's picture."""
    return Path(root) / FOLDER / f"{stem}.png"


def save_picture(root: Path, stem: str, low: np.ndarray, high: np.ndarray) -> Path:
    """Write a movie's maximum (r, c) above its minimum (r, c), both 0..255, in full size."""
    both = np.clip(np.concatenate([high, low]), 0, 255).astype(np.uint8)  # (2 r, c)
    path = picture_path(root, stem)
    with atomic_path(path) as temporary:
        Image.fromarray(both).save(temporary, format="PNG")
    return path


def sheet_paths(root: Path, n_movies: int) -> list[Path]:
    """Return the paths of the pages for so many movies: the published-style name, then _2, _3."""
    pages = -(-n_movies // PER_PAGE)
    names = [SHEET if k == 0 else f"{SHEET}_{k + 1}" for k in range(pages)]
    return [Path(root) / f"{name}.png" for name in names]


def write_sheets(root: Path, stems: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Draw the pictures of all movies on pages; pages of an earlier run that are over are removed.

    Returns:
        pages, and the movies without a picture (made by an older version).
    """
    missing = [stem for stem in stems if not picture_path(root, stem).is_file()]
    shown = [stem for stem in stems if stem not in set(missing)]
    pages = sheet_paths(root, len(shown))
    for k, path in enumerate(pages):
        _write_page(root, path, shown[k * PER_PAGE : (k + 1) * PER_PAGE], k + 1, len(pages))
    for path in Path(root).glob(f"{SHEET}*.png"):
        if path not in pages:
            path.unlink()
    return pages, missing


def _write_page(root, path, stems, number, total):
    width, height = CELL
    rows = -(-len(stems) // COLUMNS)
    page = Image.new("L", (COLUMNS * width, TITLE + rows * (height + TITLE)), 30)
    draw = ImageDraw.Draw(page)
    head = f"page {number} of {total}: maximum over all frames above minimum; look for names, dates"
    draw.text((4, 2), head, fill=255)
    for k, stem in enumerate(stems):
        left, top = k % COLUMNS * width, TITLE + k // COLUMNS * (height + TITLE)
        draw.text((left + 4, top + 2), stem, fill=255)
        with Image.open(picture_path(root, stem)) as picture:
            picture.thumbnail((width - 4, height - 4))
            page.paste(picture, (left + 2, top + TITLE))
    with atomic_path(path) as temporary:
        page.save(temporary, format="PNG")
