"""Names and ids of the user become names of files through one function, or are refused."""

import unicodedata

from common.faults import InputError

MAX_CHARACTERS = 120
MAX_BYTES = 200  # of UTF-8; a file's name has 255, of which endings and temporary marks take some
# control characters; invisible marks that turn or hide text; line separators; broken text
REFUSED_KINDS = {"Cc": "a control character", "Cf": "an invisible character"}
REFUSED_KINDS |= {"Zl": "a line separator", "Zp": "a line separator", "Cs": "a broken character"}


def file_name(text: object, where: str) -> str:
    """Return ``text`` when it can be a file's name, or part of one, in any folder as it stands.

    Args:
        text: an id or a name; numbers are taken as they print.
        where: the row, place or flag that it comes from: the start of the error.

    Raises:
        InputError: it is empty, leads out of its folder (``/``, ``\\``, ``..``), is hidden (a dot
            in front) or looks like a flag (a dash), holds a control character, or is too long.
    """
    name = str(text)
    fault = _fault(name)
    if fault:
        shown = name if len(name) <= 60 else name[:57] + "..."
        shown = shown if shown.isprintable() else ascii(shown)
        raise InputError(
            f"{where} {shown}: expected a plain name, one that can be a file's: {fault}; rename it"
        )
    return name


def _fault(name):
    """Return why a text can't be a file's name, or ''."""
    if not name.strip():
        return "it is empty"
    for sign in "/\\":
        if sign in name:
            return f"it holds {sign}"
    if name[0] in ".-":
        return f"it begins with {name[0]}"
    for sign in name:
        if kind := REFUSED_KINDS.get(unicodedata.category(sign)):
            return f"it holds {kind}"
    n_bytes = len(name.encode())
    if len(name) > MAX_CHARACTERS or n_bytes > MAX_BYTES:
        return (
            f"it has {len(name)} characters in {n_bytes} bytes, "
            f"at most {MAX_CHARACTERS} in {MAX_BYTES} are taken"
        )
    return ""
