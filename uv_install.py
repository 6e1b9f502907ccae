"""uv, the installer of the environments: found on the PATH or installed once into .venvs/."""

import fcntl
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pip_settings
from checkout import ROOT, VENVS, call

UV_VERSION = "0.13.9"  # the oldest uv that is taken from the PATH, and the one that is installed
# What a failing installer prints when ...
DISK_FULL = r"No space left on device|os error 28\b|Errno 28\b|Disk quota exceeded"
NO_NETWORK = (
    r"dns error|error sending request|client error \(Connect\)|timed out|NewConnectionError"
    r"|ConnectTimeout|NameResolution|ProxyError|Max retries exceeded|SSLError"
)
NO_ANSWER = "no answer"  # how the explanation of a network fault starts


def version_of(uv):
    """Return the version of the program ``uv`` as numbers, () when it does not run."""
    try:
        done = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return ()
    found = re.match(r"uv (\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else ()


@functools.cache
def find_uv():
    """Return (path of a uv that is new enough, ""), or (None, the reason why there is none)."""
    wanted = tuple(map(int, UV_VERSION.split(".")))
    private = VENVS / f"uv-{UV_VERSION}" / "bin" / "uv"
    on_path = shutil.which("uv")
    if on_path and version_of(on_path) >= wanted:
        return on_path, ""
    VENVS.mkdir(exist_ok=True)
    with open(VENVS / "uv.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        problem = ""
        if version_of(str(private)) < wanted:
            problem = install_private_copy(private.parents[1])
    if not problem and version_of(str(private)) < wanted:
        problem = f"the copy in {private.parents[1].relative_to(ROOT)} does not run"
    return (None, problem) if problem else (str(private), "")


def find_pip():
    """Return the command of a pip that can install for this Python, None when there is none."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if not importlib.util.find_spec("ensurepip"):
        return None
    folder = VENVS / "pip"
    made = call([sys.executable, "-m", "venv", str(folder)], log=subprocess.DEVNULL) == 0
    return [str(folder / "bin" / "python"), "-m", "pip"] if made else None


def install_private_copy(folder):
    """Install uv with pip, whose own configuration holds for that; return what went wrong or ""."""
    pip = find_pip()
    if pip is None:
        return "this Python has neither pip nor the venv module"
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    log_path = VENVS / "uv.log"
    print(f"installing uv {UV_VERSION} (log: {log_path.relative_to(ROOT)})", flush=True)
    command = [*pip, "install", "--target", str(part), "--no-deps", f"uv=={UV_VERSION}"]
    # A user's settings for installs of their own refuse a target folder, or any without a venv.
    env = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_NO_INPUT": "1"}
    try:
        with open(log_path, "w+", encoding="utf-8", errors="replace") as log:
            if call_logged(*command, log=log, env=env):
                return explain(log)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return ""


@functools.cache
def environment():
    """Return the environment variables for every call of uv."""
    variables = pip_settings.environment_for_uv(pip_settings.read_settings())
    variables.update(NO_COLOR="1", UV_NO_PROGRESS="1")
    cache = cache_folder()
    if not os.access(existing(cache), os.W_OK):
        variables["UV_CACHE_DIR"] = str(VENVS / "cache")
    return variables


def existing(path):
    """Return ``path`` or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def cache_folder():
    """Return the folder of uv's wheel cache, which all checkouts of a user share."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("UV_CACHE_DIR") or os.path.join(home, "uv")).absolute()


def links_are_possible():
    """Tell whether the cache and the environments lie on one filesystem, as hard links need."""
    cache = Path(environment().get("UV_CACHE_DIR") or cache_folder())
    return existing(cache).stat().st_dev == existing(VENVS).stat().st_dev


def call_logged(*command, log, env=None):
    """Run ``command``, named and with its output in the open file ``log``; return its exit code."""
    command = list(map(str, command))
    log.write(f"\n$ {' '.join(command)}\n")
    log.flush()
    return call(command, log=log, env=env)


def call_uv(uv, *arguments, log):
    """Run uv, named and with its output in the open file ``log``; return its exit code."""
    return call_logged(uv, *arguments, log=log, env=environment())


def explain(log):
    """Return the complaint of the last command that wrote to the open file ``log``, as one line."""
    log.seek(0)
    text = log.read().rpartition("\n$ ")[2]
    log.seek(0, os.SEEK_END)
    return explain_text(text)


def explain_text(text):
    """Return what an installer that printed ``text`` complains of, as one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    starts = [i for i, line in enumerate(lines) if re.match(r"(error|ERROR)\b", line)]
    # uv prints one error with its causes below; of pip's several lines the last sums up.
    told = lines[starts[-1] if starts else -1 :]
    told = [line for line in told if not line.startswith(("hint:", "[notice]"))]
    if re.search(DISK_FULL, text):
        return "the disk is full: free some space, or point UV_CACHE_DIR to a disk that has it"
    if re.search(NO_NETWORK, text):
        places = re.findall(r"https?://[^\s`')]+", "\n".join(told)) or ["the package index"]
        return (
            f"{NO_ANSWER} from {places[0]}: check the network; a proxy, a certificate or a mirror "
            "stand in pip's configuration (proxy, cert, index-url)"
        )
    story = " ".join(re.sub(r"^(error|ERROR|cause|Caused by): ?", "", line) for line in told)
    return (story or "no message")[:400]


def ask_uv(uv, *arguments, text=None):
    """Run uv with ``text`` as its input; return (exit code, its output, its complaints)."""
    done = subprocess.run(
        [uv, *map(str, arguments)],
        input=text,
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=environment(),
    )
    return done.returncode, done.stdout, done.stderr


def pip_flags():
    """Return the flags of ``uv pip`` that say what pip's settings say."""
    return pip_settings.flags_for_uv(pip_settings.read_settings())
