"""Scores of a recording: codes, letters or words for states, and doubts about what they mean.

Whatever a file holds becomes the laboratory's codes: 0 wake, 1 NREM, 2 artifact, 3 REM; -1 stands
for not scored and -9 for a code that nobody has explained.
"""

import difflib

import h5py
import numpy as np

from common.files import InputError
from inputs.states import ARTIFACT_CODE, UNKNOWN_CODE, UNSCORED

STATE_CODES = {"wake": 0, "NREM": 1, "artifact": ARTIFACT_CODE, "REM": 3, "unscored": UNSCORED}
NUMBERS = {"0": 0, "1": 1, "2": ARTIFACT_CODE, "3": 3}
WORDS = {
    **dict.fromkeys(("wake", "w", "wakefulness", "awake"), 0),
    **dict.fromkeys(("nrem", "nremsleep", "n", "nr", "nonrem", "sws"), 1),
    **dict.fromkeys(("rem", "remsleep", "r", "ps"), 3),
    **dict.fromkeys(("artifact", "artifacts", "artefact", "artefacts", "a"), ARTIFACT_CODE),
    **dict.fromkeys(("", "nan", "unscored", "notscored", "undefined", "u", "?"), UNSCORED),
}
ACCUSLEEP = "1=REM,2=wake,3=NREM"
USUAL = "0=wake,1=NREM,2=artifact,3=REM"  # the laboratory's numbers, as NUMBERS
HALF = 0.5


def _key(text) -> str:
    """Return how a code is looked up: a number in its shortest form, a word in small letters."""
    text = str(text).strip()
    try:
        return f"{float(text):g}"
    except ValueError:
        return "".join(c for c in text.lower() if c not in " -_")


def parse_codes(text: str) -> dict[str, int]:
    """Return the map of ``--codes``, "1=REM,2=wake,3=NREM": key of a code -> laboratory's code.

    Raises:
        InputError: another form, an unknown state, or a code that comes twice.
    """
    codes_by_key = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        code, equals, state = (part.strip() for part in pair.partition("="))
        known = {name.lower(): value for name, value in STATE_CODES.items()}
        if not equals or state.lower() not in known:
            near = difflib.get_close_matches(state, STATE_CODES, n=1)
            raise InputError(
                f"codes {pair}: expected <code>=<state> with a state of {', '.join(STATE_CODES)}"
                + (f"; did you mean {near[0]}?" if near and equals else "")
            )
        if _key(code) in codes_by_key:
            raise InputError(f"codes {text}: code {code} comes twice")
        codes_by_key[_key(code)] = known[state.lower()]
    return codes_by_key


def _text_of(values) -> str:
    return "".join(map(chr, np.asarray(values).ravel()))


def _of_rows(rows: list[str], count: int) -> list[str]:
    """Return one text per epoch of a character matrix; a single row holds one letter each."""
    return list(rows[0]) if len(rows) == 1 and len(rows[0]) == count else rows


def texts_of(
    variable: h5py.Dataset | np.ndarray, file: h5py.File | None, count: int
) -> list[str] | None:
    """Return the scores of a MATLAB variable as text, one per epoch; None for plain numbers.

    Args:
        variable: dataset of a version 7.3 file, or array of a version 5 file, axes reversed.
        file: the open HDF5 file that a cell array points into.
        count: number of epochs.
    """
    if isinstance(variable, h5py.Dataset):
        kind = variable.attrs.get("MATLAB_class", b"")
        if kind == b"cell":
            return [_cell_text(file[ref]) for ref in variable[()].ravel()]
        if kind == b"char":
            return _of_rows([_text_of(row) for row in np.atleast_2d(variable[()].T)], count)
        return None
    values = np.asarray(variable)
    if values.dtype.kind == "U":
        return _of_rows(values.ravel().tolist(), count)
    if values.dtype.kind == "O":
        return ["".join(np.asarray(v).ravel().astype(str)) for v in values.ravel()]
    return None


def _cell_text(held) -> str:
    if held.attrs.get("MATLAB_empty", 0):
        return ""
    if held.attrs.get("MATLAB_class", b"") == b"char":
        return _text_of(held[()].T)
    return "".join(f"{v:g}" for v in np.asarray(held[()]).ravel())


def read_scores(
    variable: h5py.Dataset | np.ndarray,
    file: h5py.File | None,
    codes: dict[str, int],
    count: int,
) -> tuple[np.ndarray, list[str]]:
    """Return the laboratory's codes (E,) of a variable, and each score as text.

    Args:
        variable, file, count: see texts_of.
        codes: of parse_codes; empty: the laboratory's own numbers.

    Raises:
        ValueError: neither numbers nor text.
    """
    texts = texts_of(variable, file, count)
    if texts is None:
        values = np.asarray(variable).ravel()
        if values.dtype.kind not in "fiub":
            raise ValueError(f"scores of type {values.dtype}")
        texts = [f"{value:g}" for value in values.astype(float)]
    known = {**WORDS, **(codes or NUMBERS)}
    return np.array([known.get(_key(text), UNKNOWN_CODE) for text in texts], int), texts


def doubts(codes: np.ndarray) -> str:
    """Return why the codes (N,) of one animal may mean something else, or an empty text."""
    counts = {name: int((codes == code).sum()) for name, code in STATE_CODES.items()}
    scored = codes.size - counts["unscored"]
    reasons = []
    if scored and counts["artifact"] >= HALF * scored:
        reasons.append(f"{counts['artifact']} of {scored} scored epochs are artifacts")
    absent = [name for name in ("wake", "NREM", "REM") if scored and not counts[name]]
    if absent:
        reasons.append(f"no epoch is {' or '.join(absent)}")
    if counts["REM"] > counts["NREM"]:
        reasons.append(f"REM ({counts['REM']} epochs) outnumbers NREM ({counts['NREM']})")
    if counts["unscored"]:
        reasons.append(f"{counts['unscored']} epochs are not scored and are left out")
    return "; ".join(reasons)


def doubt_lines(codes_of_animals: dict[str, list[np.ndarray]], given: str) -> list[str]:
    """Return one warning per animal whose codes (one array per recording) raise doubts."""
    held = f"read as {given}" if given else "read as 0 wake, 1 NREM, 2 artifact, 3 REM"
    lines = []
    for animal, parts in codes_of_animals.items():
        if why := doubts(np.concatenate(parts)):
            lines.append(
                f"warning: mouse {animal}: {why} (scores {held}; other codes: --codes {ACCUSLEEP})"
            )
    return lines
