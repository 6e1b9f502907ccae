"""preprocess.py --move loses nothing: killed at every step, started again, or in the way."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from common.files import InputError
from inputs import sorting
from inputs.sorting import read_manifest
from little import assert_one_line, call_script, preprocess, texture, write_data_set, write_dicom

SMALL = {"nrows": 32, "ncols": 32}


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("made") / "set", n=32, rows=32, cols=32)


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "set")


def contents(root):
    """Return the digests of all DICOM files at the door and in the class folders, sorted."""
    paths = [*root.glob("*.dcm"), *root.glob("*/*.dcm")]
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(4))
def test_a_kill_at_any_step_of_a_move_loses_nothing(root, monkeypatch, step, after, links):
    before, calls = contents(root), []

    def counted(act):
        def wrapped(source, *args, **kwargs):
            calls.append(source)
            if len(calls) == step + 1 and not after:
                raise Killed
            act(source, *args, **kwargs)
            if len(calls) == step + 1 and after:
                raise Killed

        return wrapped

    def no_link(*_):
        raise OSError("no links here")

    with monkeypatch.context() as patch:
        if links:
            patch.setattr(os, "link", counted(os.link))
        else:
            patch.setattr(os, "link", no_link)
            patch.setattr(sorting, "link_or_copy", counted(sorting.link_or_copy))
        with pytest.raises(Killed):
            preprocess(root, **SMALL, move=True)
    assert set(contents(root)) == set(before)
    with monkeypatch.context() as patch:
        if not links:
            patch.setattr(os, "link", no_link)
        assert preprocess(root, **SMALL, move=True) == 0
    assert contents(root) == before
    assert not list(root.glob("*.dcm"))
    rows = {row["source"]: row for row in read_manifest(root)}
    assert {row["status"] for row in rows.values()} == {"processed"}
    assert {row["name"] for row in rows.values()} == {"p01a", "p02a", "p03a", "p04a"}
    assert {row["placed"] for row in rows.values()} == {"moved"}


def test_the_plan_is_on_disk_before_the_first_move(root, monkeypatch):
    def stop(*_, **__):
        raise Killed

    monkeypatch.setattr(os, "link", stop)
    with pytest.raises(Killed):
        preprocess(root, **SMALL, move=True)
    rows = {row["source"]: row for row in read_manifest(root)}
    assert rows["p02_0.dcm"]["name"] == "p02a"
    assert rows["p02_0.dcm"]["class"] == "severe"


def test_a_moved_file_is_never_replaced(root):
    assert preprocess(root, **SMALL, move=True) == 0
    moved = root / "normal" / "p01a.dcm"
    before = moved.read_bytes()
    write_dicom(root / "p01_0.dcm", texture(32, 32, 32, seed=99), "p01")  # the same UID
    for move in (True, False):
        with pytest.raises(InputError, match="nothing is replaced"):
            preprocess(root, **SMALL, move=move)
        assert moved.read_bytes() == before
    (root / "p01_0.dcm").write_bytes(before)  # the same file again: it is taken as moved
    assert preprocess(root, **SMALL, move=True) == 0
    assert not (root / "p01_0.dcm").exists()
    assert moved.read_bytes() == before


def test_a_file_that_nobody_placed_there_is_not_replaced(root):
    (root / "severe").mkdir()
    (root / "severe" / "p02a.dcm").write_text("somebody's own")
    with pytest.raises(InputError, match="nothing is replaced"):
        preprocess(root, **SMALL, move=True)
    assert (root / "severe" / "p02a.dcm").read_text() == "somebody's own"
    assert (root / "p02_0.dcm").exists()


@pytest.mark.parametrize("name", ["ST/001", "../up1", "-x", ".x", "a" * 130])
def test_an_id_that_is_no_file_name_is_refused_with_its_row(root, name):
    with open(root / "REDcap_class.csv", "a") as handle:
        handle.write(f"{name},severe\n")
    write_dicom(root / "odd.dcm", texture(32, 32, 32), name[:60])
    before = {p for p in root.parent.rglob("*")}
    done = call_script("preprocess.py", "--root", root)
    assert_one_line(done, "row 6", "expected a plain name")
    assert {p for p in root.parent.rglob("*")} == before


def test_a_table_with_semicolons_works(root):
    text = (root / "REDcap_class.csv").read_text().replace(",", ";")
    (root / "REDcap_class.csv").write_text("\ufeff" + text, encoding="utf-8")
    assert preprocess(root, **SMALL) == 0
    assert Path(root / "severe" / "p02a.dcm").exists()


def test_one_writer_a_data_set(root):
    import subprocess
    import sys

    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from common.locks import hold\n"
        "hold(sys.argv[2]); print('held', flush=True); sys.stdin.read()\n"
    )
    folder = str(Path(sorting.__file__).parents[1])
    other = subprocess.Popen(
        [sys.executable, "-c", code, folder, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout.readline() == "held\n"
        done = call_script("preprocess.py", "--root", root)
        assert_one_line(done, "is being written by process", str(other.pid))
    finally:
        other.communicate()
    assert preprocess(root, **SMALL) == 0


def test_a_killed_run_goes_on_where_it_was(root, monkeypatch):
    from inputs import flow_files, manifest, preprocessing
    from little import compute_flow

    def stopping(module, name, at):
        calls, act = [], getattr(module, name)

        def wrapped(*args, **kwargs):
            calls.append(args)
            if len(calls) == at:
                raise Killed
            return act(*args, **kwargs)

        return calls, wrapped

    monkeypatch.setattr(manifest, "KEEP_S", -1.0)  # as if every file took long
    for module, name, run in (
        (preprocessing, "preprocess_dicom", preprocess),
        (flow_files, "convert2OF", compute_flow),
    ):
        with monkeypatch.context() as patch:
            _, wrapped = stopping(module, name, 3)
            patch.setattr(module, name, wrapped)
            with pytest.raises(Killed):
                run(root, **SMALL)
        with monkeypatch.context() as patch:
            calls, wrapped = stopping(module, name, 99)
            patch.setattr(module, name, wrapped)
            assert run(root, **SMALL) == 0
        assert len(calls) == 2  # of four


def test_a_run_after_all_was_moved_keeps_the_report(root):
    assert preprocess(root, **SMALL, move=True) == 0
    before = (root / "deid_report.csv").read_bytes()
    assert b"SOPInstanceUID" in before
    assert preprocess(root, **SMALL, move=True) == 0
    assert (root / "deid_report.csv").read_bytes() == before


def test_a_manifest_cut_in_a_row_is_told(root):
    preprocess(root, **SMALL)
    path = root / "manifest.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][: len(lines[2]) // 2]]))
    with pytest.raises(InputError, match=f"{path}: row 3 has not .* cut or damaged"):
        read_manifest(root)
