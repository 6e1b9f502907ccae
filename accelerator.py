"""Whether environments are built for an NVIDIA GPU: decided once, said with its reason."""

import ctypes.util
import shutil
from pathlib import Path

from checkout import VENVS, Fault

DEVICES = ("auto", "cpu", "cuda")
# Where a driver shows itself: the running kernel module, and the library that WSL puts in place.
DRIVER_FILES = ("/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libcuda.so.1")
MEMORY = VENVS / "device"


def find_driver():
    """Return what shows that an NVIDIA driver is installed, None when nothing does."""
    for path in DRIVER_FILES:
        if Path(path).exists():
            return path
    return shutil.which("nvidia-smi") or ctypes.util.find_library("cuda")


def decide(wanted=None):
    """Return (``cpu`` or ``cuda``, the reason).

    A decision holds until another one is asked for: environments that were built for a GPU on a
    machine without one (a cluster's login node) are not built anew for its processor.
    """
    if wanted is None and MEMORY.exists():
        device, _, reason = MEMORY.read_text().partition("\n")
        if device in DEVICES[1:]:
            return device, reason.strip()
    if wanted in DEVICES[1:]:
        return wanted, "asked for with --device"
    if wanted not in (None, "auto"):
        raise Fault(f"--device {wanted}: expected one of {', '.join(DEVICES)}")
    driver = find_driver()
    if driver:
        return "cuda", f"NVIDIA driver found: {driver}; --device cpu builds without CUDA"
    return "cpu", "no NVIDIA driver found; --device cuda builds for one all the same"


def remember(device, reason):
    """Keep the decision for the next command."""
    VENVS.mkdir(exist_ok=True)
    MEMORY.write_text(f"{device}\n{reason}\n")
