"""convert_reference.py: the restricted reader of published pickles. Check 9."""

import json
import pickle
import struct

import numpy as np
import pytest

from common.files import InputError
from convert_reference import main as convert
from inputs.published_files import checked, read_pickle
from little import FOLDER, assert_one_line, call_script, run_script

# A protocol-2 pickle that would call posix.system("echo owned").
EVIL = b"\x80\x02cposix\nsystem\nq\x00X\x0a\x00\x00\x00echo ownedq\x01\x85q\x02Rq\x03."


def number_list(*values):
    """Return the protocol-2 pickle of a list of floats, written by hand."""
    body = b"".join(b"G" + struct.pack(">d", value) for value in values)
    return b"\x80\x02](" + body + b"e."


def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path):
    (tmp_path / "evil.pkl").write_bytes(EVIL)
    (tmp_path / "data_mean_std.pkl").write_bytes(number_list(0.25, 0.5))
    done = run_script("convert_reference.py", "--root", tmp_path)
    assert_one_line(done, "evil.pkl", "refused", "posix.system")
    assert "owned" not in done.stdout
    assert json.loads((tmp_path / "data_mean_std.json").read_text())["mean"] == 0.25


@pytest.mark.parametrize(
    "content",
    [
        EVIL.replace(b"posix\nsystem", b"builtins\nexec"),
        EVIL.replace(b"posix\nsystem", b"numpy\nload"),
        EVIL.replace(b"posix\nsystem", b"numpy.core.multiarray\nfromfile"),
        b"\x80\x03",
        b"not a pickle",
        b"",
        number_list(1.0, 2.0)[:-4],
    ],
)
def test_other_names_and_damaged_files_are_one_error(tmp_path, content):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pkl"):
        read_pickle(path)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((3, 4, 5)),
        np.full((3, 4, 5, 1), np.nan),
        np.zeros((3, 4, 5, 1), "U3"),
        {"a": "b"},
        {"a": float("inf")},
        {1: 2},
        [1.0, 2.0, 3.0],
        "text",
        None,
        True,
    ],
)
def test_other_content_is_refused(value):
    with pytest.raises(InputError):
        checked("a.pkl", value)


def test_nothing_to_do_and_wrong_names(tmp_path):
    assert_one_line(call_script("convert_reference.py"), "--root", "--weights")
    assert_one_line(call_script("convert_reference.py", "--root", tmp_path), "no *.pkl")
    done = call_script("convert_reference.py", "--weights", tmp_path / "w.hdf5", "--out", "w.h5")
    assert_one_line(done, ".weights.h5")


def test_no_other_module_reads_pickles():
    for path in FOLDER.rglob("*.py"):
        if "tests" in path.relative_to(FOLDER).parts:
            continue
        text = path.read_text()
        # Jobs travel to our own workers so (pickle.loads); no file is read there.
        jobs = path.relative_to(FOLDER).as_posix() == "common/cluster.py"
        assert "pickle.load(" not in text
        assert jobs or "pickle.load" not in text
        assert ("import pickle" in text) == (jobs or path.name == "published_files.py")


def test_published_numbers_that_cannot_be_are_refused(tmp_path, capsys):
    (tmp_path / "data_mean_std.pkl").write_bytes(number_list(10.0, -2.0))
    (tmp_path / "data_mean_std_OF.pkl").write_bytes(number_list(10.0, 0.0))
    (tmp_path / "filename2class.pkl").write_bytes(pickle.dumps({"a": 155.0}, protocol=2))
    huge = np.full((2, 3, 3, 1), 1e300)
    (tmp_path / "huge.pkl").write_bytes(pickle.dumps(huge, protocol=2))
    with pytest.raises(SystemExit) as stop:
        convert(["--root", str(tmp_path)])
    shown = capsys.readouterr().err
    assert stop.value.code == 2
    assert shown.count("expected a deviation above 0") == 2
    assert "a is 155; expected ejection fractions in percent" in shown
    assert "does not fit into float32" in shown
    assert not [*tmp_path.glob("*.npy"), *tmp_path.glob("*.json")]


def test_capital_suffix_and_a_file_that_is_replaced(tmp_path, capsys):
    movie = np.arange(18, dtype=np.uint8).reshape(2, 3, 3, 1)
    (tmp_path / "a.PKL").write_bytes(pickle.dumps(movie, protocol=2))
    convert(["--root", str(tmp_path)])
    assert np.load(tmp_path / "a.npy").ravel().tolist() == list(range(18))
    convert(["--root", str(tmp_path)])
    assert "replaced" not in capsys.readouterr().err
    np.save(tmp_path / "a.npy", movie + 1)
    convert(["--root", str(tmp_path)])
    assert "a.npy held something else and is replaced" in capsys.readouterr().err
