"""What common/ promises about writing: one writer, plain names, sizes, hashes, full disks."""

import errno
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import files, limits, locks
from common.faults import InputError, fault_line, one_line_faults
from common.hashes import check_hashes, hashed_file, read_bytes_hashed, sha256
from common.limits import check_free_space, check_shape, check_size, memory_limit
from common.locks import LOCK_NAME, clear_folder, hold, remove_left, visible, writing
from common.names import file_name
from common.tables import read_rows, safe_cell, safe_frame, write_table

# Holds the folder of its first argument and tells so, then does what the second one says.
HOLD = """
import os, signal, sys, time
from common.faults import one_line_faults
from common.locks import hold
def main(argv=None):
    hold(sys.argv[1])
    print("held", flush=True)
    exec(sys.argv[2])
one_line_faults(main)()
"""


def start(folder, then="", **more):
    """Start a process that holds ``folder`` and return it once it does, or has ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), then],
        cwd=files.FOLDER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )
    process.first = process.stdout.readline().strip()
    return process


def ended(process):
    """Return (exit code, stderr) of a process; its stdin is closed."""
    _, error = process.communicate(timeout=30)
    return process.returncode, error


WAIT = "sys.stdin.read()"


def test_a_second_writer_is_told_who_writes(tmp_path):
    first = start(tmp_path, WAIT)
    second = start(tmp_path)
    code, error = ended(second)
    assert second.first == ""
    assert code == 2
    assert error.startswith(f"error: {tmp_path}: is being written by process {first.pid} on ")
    assert len(error.splitlines()) == 1
    assert ended(first) == (0, "")
    assert list(tmp_path.iterdir()) == []  # nothing stays of the lock
    with writing(tmp_path):
        pass


def test_a_killed_writer_locks_nothing_and_leaves_no_temporary_file(tmp_path):
    deep = tmp_path / "deep"
    left = "import pathlib; os.makedirs(sys.argv[1] + '/deep', exist_ok=True)\n"
    left += "pathlib.Path(sys.argv[1], 'deep', f'.a.{os.getpid()}.tmp.csv').touch()\n"
    first = start(tmp_path, left + "os.kill(os.getpid(), signal.SIGKILL)")
    assert ended(first)[0] == -signal.SIGKILL
    mine = deep / f".b.{os.getpid()}.tmp.csv"
    mine.touch()
    (deep / "c.csv").touch()
    assert {path.name for path in deep.iterdir()} == {f".a.{first.pid}.tmp.csv", mine.name, "c.csv"}
    assert (tmp_path / LOCK_NAME).exists()
    assert visible(tmp_path, recursive=True) == [deep, deep / "c.csv"]
    with writing(tmp_path):
        pass
    assert {path.name for path in deep.iterdir()} == {mine.name, "c.csv"}
    # A number that a later process got is no sign of life: the file is older than the process.
    os.utime(mine, (1, 1))
    assert remove_left(tmp_path, starts=("a",)) == []
    assert remove_left(tmp_path) == [mine]


def test_one_process_and_its_children_are_one_writer(tmp_path):
    with writing(tmp_path / "a"):
        with writing(tmp_path / "a"):
            pass
        assert (tmp_path / "a" / LOCK_NAME).exists()
        child = start(tmp_path / "a")  # a script that this process calls
        assert (child.first, ended(child)[0]) == ("held", 0)
        assert (tmp_path / "a" / LOCK_NAME).exists()  # the child's end frees nothing
    assert not (tmp_path / "a").exists()  # it was made for nothing


def test_a_forked_worker_writes_beside_its_parent(tmp_path):
    then = "pid = os.fork()\nif pid == 0: hold(sys.argv[1]); os._exit(7)\n"
    then += "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\nsys.stdin.read()"
    first = start(tmp_path, then)
    with pytest.raises(InputError, match="is being written"):  # the worker's end frees nothing
        hold(tmp_path)
    assert ended(first) == (0, "")


def test_a_worker_that_outlives_its_killed_parent_locks_nothing(tmp_path):
    then = "if os.fork() == 0: os.closerange(0, 3); time.sleep(20)\n"
    first = start(tmp_path, then + "os.kill(os.getpid(), signal.SIGKILL)")
    first.communicate(timeout=30)
    with writing(tmp_path):  # raises while anybody holds the folder
        assert (tmp_path / LOCK_NAME).is_file()


def test_ranks_of_one_job_are_one_writer(tmp_path, monkeypatch):
    first = start(tmp_path, WAIT, env={**os.environ, "RANK": "0"})
    monkeypatch.setenv("RANK", "1")
    hold(tmp_path)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(InputError, match="is being written"):
        hold(tmp_path)
    assert ended(first) == (0, "")


def test_the_lock_outlasts_a_folder_that_is_emptied_or_made_anew(tmp_path):
    run = tmp_path / "run"
    with writing(run):
        (run / "plots").mkdir()
        (run / "plots" / "a.png").touch()
        (run / "link").symlink_to(tmp_path)
        (run / "summary.json").touch()
        clear_folder(run)
        assert [path.name for path in run.iterdir()] == [LOCK_NAME]
        (run / LOCK_NAME).unlink()
        run.rmdir()
        with writing(run):  # taken again in the new folder
            assert (run / LOCK_NAME).exists()
        (run / "kept.csv").touch()
    assert [path.name for path in run.iterdir()] == ["kept.csv"]


def test_a_run_folder_is_held_by_the_run_and_a_complete_one_is_not(tmp_path):
    run = tmp_path / "run"
    then = "from common.files import open_run, write_json\nfrom pathlib import Path\n"
    then += "run = Path(sys.argv[1]).parent / 'run'\n"
    then += "open_run(run, {'seed': 0})\nwrite_json(run / 'settings.json', {'settings': "
    then += "{'seed': 0}})\nwrite_json(run / 'a.json', {})\nprint('open', flush=True)\n"
    then += "sys.stdin.read()\n"
    first = start(tmp_path / "other", then)
    assert first.stdout.readline() == "open\n"
    with pytest.raises(InputError, match=rf"is being written by process {first.pid} "):
        files.open_run(run, {"seed": 1})
    with pytest.raises(InputError, match="is being written by process"):
        files.open_run(run, {"seed": 0}, fresh=True)
    files.write_json(run / "summary.json", {})
    assert files.open_run(run, {"seed": 0}) is True  # to look at it needs no lock
    assert ended(first) == (0, "")
    assert files.open_run(run, {"seed": 0}, fresh=True) is False
    assert [path.name for path in run.iterdir()] == [LOCK_NAME]
    locks.release_all()
    assert list(run.iterdir()) == []


def test_a_main_that_another_program_calls_frees_what_it_held(tmp_path):
    inner = one_line_faults(lambda argv: hold(tmp_path / "inner"))

    def outer(argv=None):
        hold(tmp_path / "outer")
        inner([])
        assert (tmp_path / "inner" / LOCK_NAME).exists()  # to the end of the outer one

    with writing(tmp_path / "mine"):
        one_line_faults(outer)([])
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]
        assert (tmp_path / "mine" / LOCK_NAME).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_named_and_used(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with writing(tmp_path), writing(tmp_path):
        pass
    assert capsys.readouterr().err.count("its file system has no locks") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\)"):
        hold(tmp_path)
    tmp_path.chmod(0o700)


def test_a_folder_below_a_file_is_one_line(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(InputError, match=r"a/b: cannot be written \(Not a directory\)"):
        hold(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("../../esc", "it holds /"),
        ("a\\b", r"it holds \\"),
        ("..", r"it begins with \."),
        (".hidden", r"it begins with \."),
        ("-rf", "it begins with -"),
        ("a\nb", "it holds a control character"),
        ("a\x00", "it holds a control character"),
        ("a\x7f", "it holds a control character"),
        ("a\u202eb", "it holds an invisible character"),
        ("a\ud800", "it holds a broken character"),
        ("x" * 121, "121 characters in 121 bytes, at most 120 in 200"),
        ("\u6f22" * 70, "70 characters in 210 bytes"),
    ],
)
def test_a_name_that_is_no_file_name_is_refused_with_its_place(text, why):
    with pytest.raises(InputError, match=f"^ids.csv row 3: .*{why}.*; rename it$"):
        file_name(text, "ids.csv row 3:")


@pytest.mark.parametrize("text", ["A-1", "mouse 3", "\u00e9t\u00e9", "a..b", "=1", "x" * 120, 17])
def test_a_plain_name_stays(tmp_path, text):
    assert file_name(text, "row 1") == str(text)
    (tmp_path / file_name(text, "row 1")).touch()


def test_what_is_read_has_the_hash_that_is_told(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(5))
    known = sha256(path)
    with hashed_file(path) as found:
        assert np.load(found.handle).tolist() == [0, 1, 2, 3, 4]
        assert found.sha256 == known
    assert read_bytes_hashed(path) == (path.read_bytes(), known)

    def replaced():
        with hashed_file(path):
            np.save(tmp_path / "b.npy", np.arange(5))  # the same bytes in another file count too
            os.replace(tmp_path / "b.npy", path)

    def overwritten():
        with hashed_file(path), open(path, "r+b") as handle:
            handle.write(b"x")
            os.utime(path, (1, 1))

    def removed():
        with hashed_file(path):
            path.unlink()

    for change in (replaced, overwritten, removed):
        with pytest.raises(InputError, match=r"a\.npy: changed while it was read"):
            change()
    with pytest.raises(InputError, match=r"a\.npy: not found"):
        read_bytes_hashed(path)


def test_other_inputs_are_named():
    check_hashes("run", {"a": "1"}, {"a": "1"})
    old, new = {"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "9", "d": "4"}
    with pytest.raises(InputError) as caught:
        check_hashes("run", old, new, remedy="use --recalculate")
    expected = "run: made from other inputs (changed: b; missing: c; added: d); use --recalculate"
    assert str(caught.value) == expected


def test_sizes_are_checked_before_anything_is_allocated(tmp_path, monkeypatch):
    limit, _ = memory_limit()
    check_size(limit, "a.npy")
    assert check_shape((2, 3), 4, "a.npy") == 24
    with pytest.raises(InputError, match=r"a\.npy of shape \(1000000, 1000000, 1000\): asks for "
                       r"8,000 TB of memory, the limit is .*; give less"):  # fmt: skip
        check_shape((10**6, 10**6, 1000), 8, "a.npy")
    with pytest.raises(InputError, match="negative axis"):
        check_shape((-1, -1), 8, "a.npy")
    monkeypatch.setattr(limits, "GROUP_LIMITS", (str(tmp_path / "max"),))
    (tmp_path / "max").write_text("1000\n")
    assert memory_limit() == (1000, "memory limit of this container")
    with pytest.raises(InputError, match=r"not/yet: the movie needs 1,000 TB, .* are free"):
        check_free_space(tmp_path / "not" / "yet", 1e15, "the movie")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk or the quota is full"),
        (RuntimeError("write failed: errno = 28, error message = x"), "the disk or the quota"),
        (MemoryError(), "not enough memory: memory did not suffice"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "not enough memory"),
        (BrokenPipeError(32, "Broken pipe"), "a program that was being written to"),
        (ValueError("Key backend: 'x' is not a valid value for backend"), "MPLBACKEND=x: matplotl"),
    ],
)
def test_faults_of_disk_memory_and_pipe_are_one_line(error, said, capsys, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "x")
    monkeypatch.setattr("common.faults.leave_closed_output", lambda: None)

    def main(argv=None):
        raise error

    with pytest.raises(SystemExit) as caught:
        one_line_faults(main)([])
    assert caught.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert said in line
    assert ("free space" in line) == ("disk" in said)
    with pytest.raises(type(error)):
        one_line_faults(main)(["--debug"])


def test_memory_that_numpy_cannot_have_is_one_line():
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 55, np.uint8)
    assert fault_line(caught.value).startswith("error: not enough memory: Unable to allocate 32")


def test_any_other_fault_keeps_its_traceback():
    def main(argv=None):
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        one_line_faults(main)([])


@pytest.mark.parametrize(
    ("then", "code", "said"),
    [
        ("for _ in range(100000): print('x' * 100)", 2,
         "error: the program that reads the output has ended: nothing more can be shown\n"),
        ("from common.files import Parser; Parser().parse_args(['--help'])", 0, ""),
    ],
)  # fmt: skip
def test_a_closed_pipe_is_no_full_disk(tmp_path, then, code, said):
    process = start(tmp_path, f"sys.stdin.readline()\n{then}")
    process.stdout.close()
    _, error = process.communicate("\n", timeout=30)
    assert (process.returncode, error) == (code, said)


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")

    def fill(error):
        with files.atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    for error in (OSError(errno.EDQUOT, "Disk quota exceeded"), OSError("errno = 28")):
        with pytest.raises(InputError, match=r"a\.bin: not written \(.*\), an older file stays"):
            fill(error)
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda _: SimpleNamespace(free=2))
    with pytest.raises(InputError, match=r"a\.bin needs 3 B, 2 B are free: no space left"):
        files.write_bytes(path, b"new")
    with pytest.raises(InputError, match=r"a\.bin: not written \(No space left on device\)"):
        fill(RuntimeError("file write failed"))  # PyTorch says no more
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.bin"]
    with pytest.raises(ValueError, match="ours"):
        fill(ValueError("ours"))


def test_what_is_closed_after_a_full_disk_says_nothing_more(capsys, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda caught: print("also", caught.exc_value))

    def main(argv=None):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit):
        one_line_faults(main)([])
    for error in (OSError(errno.ENOSPC, "full"), ValueError("ours")):
        sys.unraisablehook(SimpleNamespace(exc_value=error))
    assert capsys.readouterr().out == "also ours\n"


def test_a_long_name_is_written_too(tmp_path):
    path = tmp_path / ("x" * 240 + ".json")
    files.write_json(path, {})
    assert files.read_json(path) == {}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+49 30", "'+49 30"),
        ("-a", "'-a"),
        ("@x", "'@x"),
        ("\tx", "'\tx"),
        ("'=x", "''=x"),
        ("\uff1dx", "'\uff1dx"),
        ("-1.5e-3", "-1.5e-3"),
        ("+3", "+3"),
        ("-inf", "-inf"),
        (-2.5, -2.5),
        ("'s", "'s"),
        ("a=1", "a=1"),
    ],
)
def test_a_text_is_no_formula_and_a_number_stays_one(value, written):
    assert safe_cell(value) == written


@given(st.lists(st.text(st.sampled_from("=+-@\t\r\n'1a,\"\uff1d"), max_size=6), min_size=1))
def test_texts_come_back_from_a_table_as_they_were(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("t") / "a.csv"
    write_table(path, ["name", "=x"], ((text, k) for k, text in enumerate(texts)))
    rows = read_rows(path, needed=["=x"])
    assert [row["name"] for row in rows] == texts
    assert [row["=x"] for row in rows] == [str(k) for k in range(len(texts))]


def test_a_pandas_table_is_no_formula_either():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"=id": ["-a", None], "n": [-1.5, 2], "k": [-1, 2]})
    assert safe_frame(table).to_csv(index=False) == "'=id,n,k\n'-a,-1.5,-1\n,2.0,2\n"
