"""The JSON file beside a recording that tells what the recording itself cannot: shape and scales.

It is named after the whole name of the recording: mouse1.trial2.csv.json.
"""

from pathlib import Path

from common.files import InputError, read_json, write_json
from inputs.scales import Scales, sidecar_of_scales


def sidecar_path(path: Path) -> Path:
    """Return the name of the JSON file beside ``path``."""
    path = Path(path)
    return path.with_name(f"{path.name}.json")


def older_sidecars(path: Path) -> list[Path]:
    """Return the names that earlier versions gave to it: without the suffix, or the first part."""
    names = [path.name.removesuffix(".gz"), path.name.split(".")[0]]
    names[0] = names[0].rpartition(".")[0] or names[0]
    return [path.with_name(f"{name}.json") for name in dict.fromkeys(names)]


def find_sidecar(path: Path) -> tuple[dict, str]:
    """Return what the JSON file beside ``path`` tells, {} without one, and its name.

    A file counts when it tells frames F, height H and width W.
    """
    for name in (sidecar_path(path), *older_sidecars(path)):
        told = read_json(name) if name.is_file() else {}
        if isinstance(told, dict) and all(isinstance(told.get(key), int) for key in "FHW"):
            return told, name.name
    return {}, ""


def write_sidecar(path: Path, shape: tuple[int, ...], scales: Scales, **more) -> Path:
    """Write shape (F, H, W), scales and ``more`` beside ``path``; return the JSON file's name."""
    told = dict(zip("FHW", map(int, shape), strict=True)) | more
    name = sidecar_path(path)
    write_json(name, told | {"scales": sidecar_of_scales(scales)})
    return name


def remove_sidecar(path: Path) -> None:
    """Remove the JSON file of an earlier ``path``."""
    sidecar_path(path).unlink(missing_ok=True)


def check_bytes(path: Path, told: dict, name: str = "") -> None:
    """Refuse a file that is no longer as long as the JSON file beside it tells."""
    size = path.stat().st_size
    if told.get("bytes") not in (None, size):
        raise InputError(
            f"{path}: found {size} bytes, expected {told['bytes']} ({name or 'JSON file'} beside"
            " it): the file is cut or was changed; make it again, or remove the JSON file"
        )
