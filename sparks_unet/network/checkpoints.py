"""Weights and training state on disk: names of the published project, read without pickle.

``<run>/network_<iteration>.pth``, ``optimizer_...``, ``scheduler_...``, ``rng_...`` hold state
dicts; ``iterate_...`` those weights that the training goes on from where the network is the mean of
many iterations. The network is written last: where it lies, the whole set is complete.

Source: specification sections 6.1, 7.5, 7.6.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.files import InputError, atomic_path

PARTS = ("iterate", "rng", "scheduler", "optimizer", "network")
WRAPPERS = ("module.", "_orig_mod.")  # DataParallel of the released files; torch.compile


def checkpoint_path(folder: str | Path, part: str, iteration: int) -> Path:
    """Return the path of one part of a checkpoint."""
    return Path(folder) / f"{part}_{iteration:06d}.pth"


def available_iterations(folder: str | Path) -> list[int]:
    """Return the sorted iterations whose network lies in ``folder``."""
    matches = (
        re.fullmatch(r"network_(\d+)\.pth", path.name) for path in Path(folder).glob("*.pth")
    )
    return sorted(int(match[1]) for match in matches if match)


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write ``state`` atomically; a full disk is one line and leaves older files as they are."""
    try:
        with atomic_path(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{path}: not written ({error}); free some space or choose another folder; "
            "earlier checkpoints are whole"
        ) from None


def save_checkpoint(folder: str | Path, iteration: int, states: dict[str, dict[str, Any]]) -> None:
    """Write the parts of ``states`` {part: state dict}; the network comes last."""
    for part in PARTS:
        if part in states:
            save_state(checkpoint_path(folder, part, iteration), states[part])


def load_state(path: str | Path, device: str | torch.device = "cpu") -> Any:
    """Read a file of tensors and plain values.

    Raises:
        InputError: missing, damaged, or holding anything that only pickle code could rebuild.
    """
    path = Path(path)
    if not path.is_file():
        iterations = available_iterations(path.parent)
        listed = ", ".join(map(str, iterations)) if iterations else "none"
        raise InputError(f"{path}: no such checkpoint; iterations available there: {listed}")
    try:
        # torch does not compare the checksums of its own container
        damaged = zipfile.ZipFile(path).testzip() if zipfile.is_zipfile(path) else None
        if damaged:
            raise ValueError(f"checksum of {damaged} is wrong")
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error)
        raise InputError(
            f"{path}: not a readable checkpoint of tensors ({reason}); download or train it again"
        ) from None


def network_state(path: str | Path, device: str | torch.device = "cpu") -> dict[str, torch.Tensor]:
    """Return the state dict of a network file.

    Accepted: a state dict, one with the prefix ``module.``, a dict with the key ``network``.
    """
    state = load_state(path, device)
    if isinstance(state, dict) and isinstance(state.get("network"), dict):
        state = state["network"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f"{path}: holds no state dict of tensors; expected a network_*.pth file")
    return {_bare_name(key): value for key, value in state.items()}


def _bare_name(name):
    for prefix in WRAPPERS:
        name = name.removeprefix(prefix)
    return name


def _steps(names):
    """Return the number of poolings of a network with these parameter names, or None."""
    levels = [re.search(r"(?:down_path|down_convs)\.(\d+)\.", name) for name in names]
    return max((int(match[1]) for match in levels if match), default=None)


def load_network(model: nn.Module, path: str | Path) -> None:
    """Load the weights at ``path`` into ``model`` (strict).

    Raises:
        InputError: names or shapes differ; the message says which, and the depth of both.
    """
    state = network_state(path)
    infinite = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if infinite:
        raise InputError(
            f"{path}: NaN or infinity in {', '.join(infinite[:3])}; load an earlier checkpoint"
        )
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    wrong = [
        f"{name} {tuple(state[name].shape)} (expected {tuple(own[name].shape)})"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if not (missing or unexpected or wrong):
        model.load_state_dict(state)
        return
    parts = []
    if _steps(own) != _steps(state):
        parts.append(f"unet_steps {_steps(own)} expected, file has {_steps(state)}")
    for title, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("shapes differ", wrong),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{title}: {', '.join(names[:3])}{more}")
    raise InputError(f"{path}: weights of another network: {'; '.join(parts)}; correct [network]")
