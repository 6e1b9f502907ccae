"""What stops a script becomes one line and an exit code; a parser that names the nearest flag."""

import argparse
import contextlib
import difflib
import errno
import functools
import os
import select
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What libraries say of a full disk in exceptions that are no OSError or bear no number.
DISK_FULL_WORDS = ("no space left", "disk quota exceeded", "errno = 28", "file too large")
MEMORY_WORDS = ("can't allocate memory", "failed to allocate", "insufficient memory", "oom when")
MEMORY_NAMES = ("OutOfMemoryError", "ResourceExhaustedError")
_running: list[Callable] = []  # the main functions under way: a script may call another one's
_at_end: list[Callable[[], None]] = []
CLUSTER_HELP = "dask cluster instead of processes here: tcp://HOST:PORT, local:N, slurm:FILE.json"
BACKEND_WORDS = "Key backend:"  # matplotlib, of a name in MPLBACKEND that it does not know


class InputError(Exception):
    """A fault in what the user gave: its text names file, found, expected and remedy."""


class DefaultsHelp(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names a default where there is one to name."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False or action.default in ("", []):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """ArgumentParser without abbreviations that answers an unknown flag with the nearest one."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", DefaultsHelp)
        super().__init__(*args, **kwargs)

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [flag for action in self._actions for flag in action.option_strings]
            name = unknown[0].split("=")[0]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else "see --help"
            self.error(f"unknown argument {unknown[0]}: {hint}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with exit code 2."""
        self.exit(2, f"error: {message}\n")


def add_cluster_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--cluster``, the text of common.cluster.run_jobs, to the flags of a script."""
    parser.add_argument("--cluster", default="", metavar="ADDRESS", help=CLUSTER_HELP)


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an exception, of whatever library, says that a disk or a quota is full."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return True
    text = str(error).lower()
    return not isinstance(error, InputError) and any(words in text for words in DISK_FULL_WORDS)


def is_memory_fault(error: BaseException) -> bool:
    """Tell whether an exception, of whatever library, says that memory did not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ in MEMORY_NAMES:
        return not is_disk_full(error)  # TensorFlow has one name for memory and disks
    text = str(error).lower()
    return not isinstance(error, InputError) and any(words in text for words in MEMORY_WORDS)


def stdout_is_closed() -> bool:
    """Tell whether the program that read our output has ended (``... | head -1``)."""
    if not hasattr(select, "poll"):
        return False
    ask = select.poll()
    try:
        ask.register(1, 0)  # POLLERR is always asked for
        return any(found & (select.POLLERR | select.POLLNVAL) for _, found in ask.poll(0))
    except OSError:
        return False


def fault_line(error: BaseException) -> str:
    """Return the one line that tells a fault; what it advises follows the kind of the fault."""
    text = " ".join(str(error).split())
    if isinstance(error, BrokenPipeError):
        if stdout_is_closed():
            return "error: the program that reads the output has ended: nothing more can be shown"
        return "error: a program that was being written to (such as ffmpeg) ended too early"
    if is_disk_full(error):
        return f"error: {text}; the disk or the quota is full: check free space, then start again"
    if is_memory_fault(error):
        text = text[:300] or "memory did not suffice"
        return f"error: not enough memory: {text}; give less at once, or take a larger machine"
    if isinstance(error, ValueError) and BACKEND_WORDS in text:
        name = os.environ.get("MPLBACKEND", "")
        return f"error: MPLBACKEND={name}: matplotlib knows no such backend; unset it"
    if isinstance(error, OSError):
        text += "; check free space and permission of the folder"
    return f"error: {text}"


def is_told(error: BaseException) -> bool:
    """Tell whether a fault is one that ``fault_line`` explains; any other is a fault of ours."""
    return (
        isinstance(error, InputError | OSError)
        or is_disk_full(error)
        or is_memory_fault(error)
        or (isinstance(error, ValueError) and BACKEND_WORDS in str(error))
    )


def leave_closed_output() -> None:
    """Let what is still to be written to a closed stdout vanish, also at the end of Python."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def quiet_when_full() -> None:
    """Say no more of a full disk when objects that still hold data are closed by Python."""
    before = sys.unraisablehook

    def hook(caught):
        if caught.exc_value is None or not is_disk_full(caught.exc_value):
            before(caught)

    sys.unraisablehook = hook


def at_end_of_main(function: Callable[[], None]) -> None:
    """Have ``function`` called when a script's main has ended, the outermost one of several."""
    _at_end.append(function)


def one_line_faults(main: Callable) -> Callable:
    """Turn what stops ``main(argv)`` into one line on stderr and an exit code.

    Faults of the input, the disk, the memory and a closed pipe give 2, ``--debug`` among the
    arguments lets their traceback through; Ctrl-C gives 130. Any other exception is a fault of
    the program and keeps its traceback.
    """

    @functools.wraps(main)
    def wrapped(argv=None):
        _running.append(main)
        try:
            code = main(argv)
            if sys.stdout is not None:
                sys.stdout.flush()  # a closed pipe shows here, not as noise at the end of Python
        except SystemExit:  # --help
            if stdout_is_closed():
                leave_closed_output()
            raise
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None
        except Exception as error:
            debug = "--debug" in (sys.argv[1:] if argv is None else argv)
            if debug or not is_told(error):
                raise
            print(fault_line(error), file=sys.stderr)
            if isinstance(error, BrokenPipeError):
                leave_closed_output()
            if is_disk_full(error) or is_disk_full(error.__cause__ or error):
                quiet_when_full()
            raise SystemExit(2) from None
        finally:
            _running.pop()
            for function in () if _running else _at_end:
                function()
        return code

    return wrapped


def raise_faults(faults: list[str], limit: int = 20) -> None:
    """Raise one InputError for all ``faults`` (list of str): the first ``limit``, then a count."""
    if not faults:
        return
    more = f"; and {len(faults) - limit} more" if len(faults) > limit else ""
    raise InputError("; ".join(faults[:limit]) + more)
