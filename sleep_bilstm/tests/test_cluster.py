"""Recordings and folds over a cluster: the numbers of one process; common/ is tested elsewhere."""

import pandas as pd
import pytest

from common import cluster
from common.locks import visible
from inputs.storage import Conversion, Storage
from inputs.tfrecords import create
from main import main

pytest.importorskip("distributed", reason="requirements-cluster.txt")
pytestmark = pytest.mark.slow  # two more processes load TensorFlow


@pytest.fixture(autouse=True)
def ended():
    """End the workers with the test."""
    yield
    cluster.disconnect()


def test_shards_of_a_cluster_are_those_of_one_process(recordings, tmp_path):
    folders = []
    for name, where in (("here", ""), ("far", "local:2")):
        create(recordings, tmp_path / name, Storage(), Conversion(cluster=where))
        files = [p for p in visible(tmp_path / name, recursive=True) if p.is_file()]
        folders.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files})
    assert len([name for name in folders[0] if name.endswith(".tfrecord")]) == 8
    assert folders[0] == folders[1]


def test_predictions_of_a_cluster_are_those_of_one_process(trained, recordings, tmp_path):
    tables = []
    for name, where in (("here", ""), ("far", "local:2")):
        flags = ["--mode", "predict", "--data_path", str(recordings)]
        flags += ["--model_savedir", str(trained), "--device", "cpu", "--cluster", where]
        assert main([*flags, "--result_savedir", str(tmp_path / name)]) == 0
        tables.append(pd.read_csv(tmp_path / name / "predict" / "predictions.csv"))
    assert len(tables[0]) > 0
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_folds_of_a_cluster_are_those_of_one_process(tiny_flags, tmp_path):
    tables = []
    for name, where in (("here", ""), ("far", "local:2")):
        flags = ["--folds", "2", "--cluster", where, "--model_savedir", str(tmp_path / name)]
        assert main(["--mode", "train", *tiny_flags, *flags]) == 0
        tables.append(pd.read_csv(tmp_path / name / "folds" / "predictions.csv"))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
