"""The device that a run computes on."""

import re

import torch

from common.device import why_no_gpu
from common.files import InputError


def choose_device(wanted: str = "auto") -> tuple[str, str]:
    """Return (device name, reason). ``wanted``: auto, cpu, gpu or cuda, cuda:k, mps."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda", "GPU found"
        return "cpu", "no GPU found"
    wanted = "cuda" if wanted == "gpu" else wanted
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", wanted):
        raise InputError(
            f"--device: found {wanted!r}, expected auto, cpu, gpu or cuda, cuda:k, mps"
        )
    if wanted.startswith("cuda"):
        index = int(wanted[5:] or 0)
        if index >= torch.cuda.device_count():
            reason = "" if torch.cuda.is_available() else f" ({why_no_gpu('torch')})"
            raise InputError(
                f"--device: found {wanted}, expected one of {torch.cuda.device_count()} CUDA"
                f" devices{reason}; use --device cpu"
            )
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device: found mps, expected an Apple GPU; use --device cpu")
    return wanted, "asked for"
