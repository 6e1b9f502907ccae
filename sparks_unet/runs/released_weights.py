"""Bring released weights, or the parts of their archive, into a run folder.

Source: section 6.1 of the specification.
"""

import contextlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from common.files import InputError
from common.locks import hold
from network.checkpoints import checkpoint_path, load_network, save_state
from runs.training_tools import seeded_model
from settings.config import Params

NETWORK = re.compile(r"network_(\d+)\.pth")


@contextlib.contextmanager
def network_file(files: Sequence[Path], member: str | None = None) -> Iterator[Path]:
    """Yield the path of the network file in ``files``, unpacked for the time of the block.

    Args:
        files: one network file, one zip archive, or the parts of one in their order.
        member: name of the network file inside the archive; needed when it holds several.
    """
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise InputError(f"{', '.join(missing)}: no such file; give the downloaded files")
    if len(files) == 1 and NETWORK.fullmatch(files[0].name):
        yield files[0]
        return
    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / "joined.zip"
        with open(joined, "wb") as out:
            for path in files:
                with open(path, "rb") as part:
                    shutil.copyfileobj(part, out)
        listed = ", ".join(str(path) for path in files)
        try:
            with zipfile.ZipFile(joined) as archive:
                name = _member(archive.namelist(), member, listed)
                path = Path(folder) / Path(name).name
                with archive.open(name) as source, open(path, "wb") as out:
                    shutil.copyfileobj(source, out)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise InputError(
                f"{listed}: no whole zip archive ({error}); give all parts in their order, or a "
                "file network_<iteration>.pth"
            ) from None
        yield path


def _member(names, wanted, listed):
    """Return the network file to take from an archive."""
    networks = [name for name in names if NETWORK.fullmatch(Path(name).name)]
    members = [name for name in networks if wanted in (None, name)]
    if len(members) == 1:
        return members[0]
    if not networks:
        raise InputError(
            f"{listed}: holds no file network_<iteration>.pth; expected an archive with one (all "
            "parts, in their order), or a network file of that name"
        )
    raise InputError(f"{listed}: holds {', '.join(networks)}; expected one, or --member NAME")


def import_network(path: Path, params: Params) -> tuple[torch.nn.Module, Path]:
    """Copy the weights at ``path`` into the run folder after they fit the network.

    Returns:
        (network in eval mode, path of the copy).
    """
    hold(params.output_dir)
    model = seeded_model(params, torch.device("cpu"))
    load_network(model, path)
    target = checkpoint_path(params.output_dir, "network", int(NETWORK.fullmatch(path.name)[1]))
    if target.is_file() and target.resolve() != path.resolve():
        raise InputError(f"{target}: exists; remove it or choose another --run-name")
    save_state(target, model.state_dict())
    return model.eval(), target
