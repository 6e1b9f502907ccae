"""Say in one line where a run computes and, when a GPU lies idle, how to mend it.

Which device a run takes is decided by the folder's own function; here it gets its words. torch and
TensorFlow are imported inside the functions: the same file stands in folders that have one of them,
and the questions about the driver must be answered without either.
"""

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PROC_DRIVER = Path("/proc/driver/nvidia/version")  # on Linux, while the driver is loaded
DRIVER_LIBRARY = "libcuda.so.1"  # the only trace of the driver below WSL and in some containers
ENV = "run `python3 run.py env --device cuda` at the top of the repository"
# What each framework rounds to TF32 (10 bits of mantissa) on a GPU's tensor cores by itself.
TF32 = {
    "torch": "TF32 in convolutions and recurrent layers",
    "tensorflow": "TF32 in convolutions and products",
}
ASK_APART = (
    "import json, runpy, sys; "
    "print(json.dumps(runpy.run_path(sys.argv[1])['gpu_names'](sys.argv[2])))"
)


def driver_is_here() -> bool:
    """Return whether this machine has an NVIDIA driver; imports no framework."""
    if shutil.which("nvidia-smi") or PROC_DRIVER.is_file():
        return True
    try:
        ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Send what native code writes to stderr nowhere.

    TensorFlow logs a page about missing GPUs before any of its log settings apply; a fault of ours
    would be lost below it. Python's own errors are raised after the block as usual.
    """
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def gpu_names(framework: str) -> list[str]:
    """Return the names of the GPUs that ``framework`` (torch, tensorflow) sees, in its order."""
    if framework == "torch":
        import torch

        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    cards = tf.config.list_physical_devices("GPU")
    return [details(card).get("device_name", card.name) for card in cards]


def gpu_names_apart(framework: str) -> list[str]:
    """Return what ``gpu_names`` does, asked in a process of its own.

    For a process that forks workers afterwards: the threads of a framework forbid that.
    """
    if not driver_is_here():
        return []
    done = subprocess.run(
        [sys.executable, "-P", "-c", ASK_APART, __file__, framework],
        capture_output=True,
        text=True,
        check=False,
    )
    # A framework that cannot be imported tells its own fault when the work starts.
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else []


def why_no_gpu(framework: str) -> str:
    """Return why ``framework``, which sees no GPU, sees none, and what to do about it."""
    if not driver_is_here():
        return "no NVIDIA driver found"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and not hidden.strip(" -1"):
        return f"CUDA_VISIBLE_DEVICES={hidden!r} hides the GPUs; unset it to use them"
    if framework == "torch":
        import torch

        if torch.version.cuda is None:
            return (
                "an NVIDIA driver is here but this PyTorch build has no CUDA; "
                f"{ENV}, or pip install a CUDA build of torch"
            )
        return (
            "an NVIDIA driver is here but PyTorch sees no GPU; "
            f"see nvidia-smi: the driver must know CUDA {torch.version.cuda}"
        )
    version = importlib.metadata.version("tensorflow")
    if sys.platform == "linux" and _holds("nvidia.cudnn"):
        return (
            "an NVIDIA driver is here but TensorFlow sees no GPU; see nvidia-smi: "
            f"the driver may be too old for TensorFlow {version}"
        )
    return (
        "an NVIDIA driver is here but TensorFlow sees no GPU: its CUDA libraries are missing; "
        f"{ENV}, or pip install 'tensorflow[and-cuda]=={version}'"
    )


def _holds(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def describe_tf32(framework: str) -> str:
    """Return whether float32 work on a GPU is rounded to TF32.

    NVIDIA's own switch, NVIDIA_TF32_OVERRIDE=0, forbids it whatever the framework asks for.
    """
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return "no TF32 (NVIDIA_TF32_OVERRIDE=0)"
    return TF32[framework]


def describe_device(
    framework: str, chosen: str, *, asked: bool = False, names: list[str] | None = None
) -> str:
    """Return the line that says where a run computes.

    Args:
        framework: torch or tensorflow.
        chosen: what the folder's own function picked: cpu, mps, cuda, cuda:k, gpu:k, or gpu for
            every GPU that TensorFlow sees.
        asked: the user named the device.
        names: of the GPUs that the framework sees; default: the framework is asked.
    """
    how = "asked for" if asked else "auto"
    if chosen == "cpu" and not asked:
        reason = why_no_gpu(framework)
        return f"device: cpu ({reason})" if not driver_is_here() else f"device: cpu: {reason}"
    if chosen in ("cpu", "mps"):
        return f"device: {chosen} ({how})"
    names = gpu_names(framework) if names is None else names
    kind, _, index = chosen.partition(":")
    places = range(len(names)) if chosen == "gpu" else [int(index or 0)]
    cards = ", ".join(f"{kind}:{place} {names[place]}" for place in places)
    return f"device: {cards} ({how}); {describe_tf32(framework)}"
