"""Virtual environments of the pipeline folders, one each under .venvs/, and how they are built."""

import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import re
import shutil
import sys
import time
from typing import NamedTuple

import accelerator
import uv_install
from checkout import ROOT, VENVS, Fault, find_folders

PYTHONS = ((3, 11), (3, 12), (3, 13))  # every pinned package has a build for these
# Free disk that a build needs, in GB: measured for cpu, with room for bytecode and results.
GB_PER_ENVIRONMENT = {("uv", "cpu"): 1, ("uv", "cuda"): 4, ("pip", "cpu"): 2, ("pip", "cuda"): 7}
NO_TORCH = "no torch for {device} in PyTorch's own index ({problem}): taking the one in yours"


class Environment(NamedTuple):
    """What one environment is made of."""

    name: str
    files: tuple  # requirement files; the first is the folder's own
    python: tuple = ()  # the only Python that it runs on; empty: any of PYTHONS

    @property
    def gpu(self):
        """The requirement file that adds CUDA libraries, None where the pins bring their own."""
        path = self.files[0].with_name(f"{self.files[0].stem}-gpu.txt")
        return path if path.exists() else None

    @property
    def lock(self):
        """The file with the versions of all indirect packages; it may be absent."""
        return self.files[0].with_suffix(".lock")

    def files_for(self, device):
        """Return the requirement files to install on ``device``."""
        return (self.gpu, *self.files[1:]) if device == "cuda" and self.gpu else self.files

    @property
    def torch(self):
        """The pinned version of torch, None without one."""
        text = "\n".join(path.read_text(encoding="utf-8") for path in self.files)
        found = re.search(r"^torch==([\w.]+)", text, re.M)
        return found.group(1) if found else None


def find_environments():
    """Return {name: Environment}: ``root``, the folders, and what environments/*.yml add."""
    found = {"root": Environment("root", (ROOT / "tests" / "requirements.txt",))}
    for folder in find_folders():
        files = [ROOT / folder / "requirements.txt", ROOT / folder / "tests" / "requirements.txt"]
        found[folder] = Environment(folder, tuple(path for path in files if path.exists()))
    for recipe in sorted((ROOT / "environments").glob("*.yml")):
        text = recipe.read_text(encoding="utf-8")
        line = re.search(r"-r \.\./(\S+)", text)
        if line and recipe.stem not in found:
            version = re.search(r"python=(\d+)\.(\d+)", text)
            python = tuple(map(int, version.groups())) if version else ()
            found[recipe.stem] = Environment(recipe.stem, (ROOT / line.group(1),), python)
    return found


def interpreter(name):
    """Return the path of the Python of environment ``name``."""
    return VENVS / name / "bin" / "python"


def dotted(version):
    """Return (3, 11) as ``3.11``."""
    return ".".join(map(str, version))


def choose_python(environment):
    """Return what the environment is built from: this Python's path, or a version to ask uv for."""
    accepted = (environment.python,) if environment.python else PYTHONS
    fits = sys.version_info[:2] in accepted and platform.python_implementation() == "CPython"
    return sys.executable if fits else dotted(accepted[0])


def environment_key(environment, device):
    """Return the key of an environment: hash of its requirement files, its Python and device."""
    python = choose_python(environment)
    digest = hashlib.sha256(
        (platform.python_version() if python == sys.executable else python).encode()
    )
    if environment.gpu or environment.torch:
        digest.update(device.encode())
    for path in (*environment.files, environment.gpu, environment.lock):
        if path and path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def is_built(environment, device):
    """Tell whether the environment was finished from exactly these files, and its Python runs."""
    stamp = VENVS / environment.name / "stamp"
    return (
        stamp.exists()
        and stamp.read_text() == environment_key(environment, device)
        and interpreter(environment.name).exists()
    )


def explain_python():
    """Return why this Python is not taken, as the start of a sentence."""
    found = f"Python {platform.python_version()}"
    if sys.version_info[:2] > PYTHONS[-1]:
        return f"{found} has no build of TensorFlow yet"
    return f"{dotted(PYTHONS[0])} to {dotted(PYTHONS[-1])} is needed, found {found}"


def check_machine(missing, device, uv, reason=""):
    """Raise a Fault unless Python and the free disk are enough to build ``missing``.

    Args:
        missing: the environments to build.
        device: ``cpu`` or ``cuda``.
        uv: path of uv; None: pip builds, for the given ``reason``.
    """
    asked = [e for e in missing if choose_python(e) != sys.executable and not e.python]
    if asked and not uv:
        raise Fault(
            f"{explain_python()}: call python{dotted(PYTHONS[0])} run.py; uv, which could fetch "
            f"it, cannot be had: {reason}"
        )
    if asked:
        print(f"{explain_python()}: uv takes Python {dotted(PYTHONS[0])}, or fetches it")
    if not uv:
        try:
            import ensurepip  # noqa: F401 - Debian ships it in a package of its own
        except ImportError:
            package = f"python{dotted(sys.version_info[:2])}-venv"
            raise Fault(f"Python's venv module is incomplete: apt install {package}") from None
    each = GB_PER_ENVIRONMENT["uv" if uv else "pip", device]
    needed = each * len([e for e in missing if e.name != "root"])
    for place in {ROOT, uv_install.existing(uv_install.cache_folder())} if uv else {ROOT}:
        free = shutil.disk_usage(place).free / 1e9
        if free < needed:
            names = ", ".join(e.name for e in missing)
            raise Fault(f"{place}: {needed} GB free are needed for {names}, found {free:.0f} GB")


def torch_choices(environment, device, uv):
    """Return the lists of arguments that name the right build of torch, the preferred one first.

    PyTorch keeps builds for the processor in an index of its own, which a mirror may not hold and
    a closed network may not reach; then the build that pip would take is better than none.
    """
    if not environment.torch or "UV_TORCH_BACKEND" in uv_install.environment():
        return [[]]
    cpu_build = f"{environment.torch}+cpu"
    if device == "cuda":
        # Version 2.0+cpu satisfies ==2.0 and is the newer one to an installer.
        plain = [f"torch!={cpu_build}"]
        has_driver = accelerator.find_driver() and "--no-index" not in uv_install.pip_flags()
        return [["--torch-backend", "auto", *plain], plain] if has_driver else [plain]
    if offers(f"torch=={cpu_build}", choose_python(environment), uv):
        return [[f"torch=={cpu_build}"]]
    return [[]] if "--no-index" in uv_install.pip_flags() else [["--torch-backend", "cpu"], []]


@functools.cache
def offers(requirement, python, uv):
    """Tell whether the user's own package sources hold a build of ``requirement``."""
    command = ["pip", "compile", "-", "--no-deps", "--python", python, *uv_install.pip_flags()]
    return any(
        uv_install.ask_uv(uv, *command, *network, text=requirement)[0] == 0
        for network in (["--offline"], [])
    )


def requirement_flags(environment, device):
    """Return the flags of ``pip install`` that name the files of ``environment``."""
    flags = [word for path in environment.files_for(device) for word in ("-r", str(path))]
    return flags + (["-c", str(environment.lock)] if environment.lock.exists() else [])


def install_with_uv(environment, device, uv, log):
    """Make the environment with uv, output into the open file ``log``; return a fault or ""."""
    python, wanted = interpreter(environment.name), choose_python(environment)
    run = functools.partial(uv_install.call_uv, uv, log=log)
    if run("venv", "--python", wanted, VENVS / environment.name):
        problem = uv_install.explain(log)
        return problem if wanted == sys.executable else f"no Python {wanted} can be had: {problem}"
    install = ["pip", "install", "--python", python, *uv_install.pip_flags()]
    needed = [*install, *requirement_flags(environment, device)]
    choices = torch_choices(environment, device, uv)
    for choice in choices:
        # All versions are known from a lock: what uv's cache holds is not asked for again.
        cached = environment.lock.exists() and not run(*needed, *choice, "--offline")
        if cached or not run(*needed, *choice):
            break
        problem = uv_install.explain(log)
        if choice != choices[-1]:
            print(NO_TORCH.format(device=device, problem=problem.split(": check")[0]), flush=True)
    else:
        return problem
    # For packages that the user adds by hand; an index may lack pip itself.
    if run(*install, "pip", "--offline"):
        run(*install, "pip")
    return ""


def install_with_pip(environment, device, log):
    """Make the environment with pip, output into the open file ``log``; return a fault or ""."""
    commands = [
        [sys.executable, "-m", "venv", VENVS / environment.name],
        [interpreter(environment.name), "-m", "pip", "install"],
    ]
    commands[1] += requirement_flags(environment, device)
    if environment.torch and device == "cuda":
        commands[1].append(f"torch!={environment.torch}+cpu")
    for command in commands:
        if uv_install.call_logged(*command, log=log):
            return uv_install.explain(log)
    return ""


def build(environment, device, uv):
    """Make one environment unless a finished one is there; return whether it is usable."""
    name = environment.name
    with open(VENVS / f"{name}.lock", "w") as lock:
        wait_for(lock, f"another run.py builds {name}: waiting for it")
        if is_built(environment, device):
            return True
        shutil.rmtree(VENVS / name, ignore_errors=True)
        log_path = VENVS / f"{name}.log"
        print(f"building {name} (log: {log_path.relative_to(ROOT)})", flush=True)
        start = time.monotonic()
        with open(log_path, "w+", encoding="utf-8", errors="replace") as log:
            if uv:
                problem = install_with_uv(environment, device, uv, log)
            elif environment.python and choose_python(environment) != sys.executable:
                problem = f"Python {dotted(environment.python)} is needed, and uv to find it"
            else:
                problem = install_with_pip(environment, device, log)
        if problem:
            print(f"building {name} failed: {problem}", flush=True)
            return False
        (VENVS / name / "stamp").write_text(environment_key(environment, device))
        print(f"built {name} in {time.monotonic() - start:.0f} s", flush=True)
        return True


def wait_for(lock, message):
    """Take the lock on an open file; say ``message`` first when another process holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(message, flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def build_all(names, wanted=None):
    """Build the environments ``names`` for the device ``wanted``; return {name: usable}."""
    known = find_environments()
    device, reason = accelerator.decide(wanted)
    missing = [known[name] for name in names if not is_built(known[name], device)]
    if missing or wanted:
        accelerator.remember(device, reason)
        print(f"environments for {device} ({reason})", flush=True)
    uv = None
    if missing:
        uv, why = uv_install.find_uv()
        check_machine(missing, device, uv, why)
        if not uv:
            print(f"pip builds, slower and larger: uv cannot be had ({why})", flush=True)
        if uv and not uv_install.links_are_possible():
            print("uv's cache lies on another filesystem: files are copied, not linked")
    return {name: build(known[name], device, uv) for name in names}


@contextlib.contextmanager
def in_use(alone=False):
    """Hold .venvs while a command runs: shared with others, or ``alone`` to remove it.

    Raises:
        Fault: another command uses the environments, and this one wants to be alone.
    """
    path = VENVS / "in_use"
    kind = fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH
    while True:
        VENVS.mkdir(exist_ok=True)
        try:
            file = open(path, "w")  # noqa: SIM115 - closed below
        except FileNotFoundError:  # a clean has moved the folder away just now
            continue
        with file:
            try:
                fcntl.flock(file, kind)
            except BlockingIOError:
                raise Fault("another run.py uses .venvs: wait until it ends, or stop it") from None
            # A clean that ended meanwhile has removed the file that was locked here.
            if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                yield
                return


def remove_all():
    """Remove .venvs, and what a clean that was killed left; the caller is alone in it.

    The folder gets another name first: a command that starts meanwhile makes one of its own, of
    which nothing is removed.
    """
    try:
        if not VENVS.is_symlink():
            os.replace(VENVS, VENVS.with_name(f"{VENVS.name}.removed.{os.getpid()}"))
    except OSError:  # a disk of its own is mounted there
        shutil.rmtree(VENVS, ignore_errors=True)
    for left in VENVS.parent.glob(f"{VENVS.name}.removed.*"):
        shutil.rmtree(left, ignore_errors=True)


def resolve(environment, device, uv):
    """Return what would be installed, one ``name==version`` each; nothing is installed."""
    flags = ["--python", choose_python(environment), "--no-header", "--no-annotate"]
    flags += ["--no-emit-index-url", "--no-emit-find-links", *uv_install.pip_flags()]
    files = [str(path) for path in environment.files_for(device)]
    if environment.lock.exists():
        files += ["--constraints", str(environment.lock)]
    choices = torch_choices(environment, device, uv)
    for choice in choices:
        backend = [word for word in choice if not word.startswith("torch")]
        extra = "\n".join(word for word in choice if word.startswith("torch"))
        arguments = [*files, "-", *flags, *backend]
        code, listing, complaint = uv_install.ask_uv(uv, "pip", "compile", *arguments, text=extra)
        if code == 0:
            return [line for line in listing.splitlines() if re.match(r"\w", line)]
        problem = uv_install.explain_text(complaint)
        if choice != choices[-1]:
            print(NO_TORCH.format(device=device, problem=problem.split(": check")[0]), flush=True)
    raise Fault(f"{environment.name} for {device}: {problem}")
