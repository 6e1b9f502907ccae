"""Files over a cluster: the bytes of processes on this machine. common/ is tested in csd_darnn."""

import shutil

import pytest

from common import cluster
from little import compute_flow, preprocess, tree, write_data_set

pytest.importorskip("distributed", reason="requirements-cluster.txt")


def test_files_on_a_cluster_are_those_of_one_process(tmp_path):
    trees, made = [], write_data_set(tmp_path / "made", movies=2, rows=64, cols=80)
    for name, where in (("here", ""), ("far", "local:2")):
        root = shutil.copytree(made, tmp_path / name)  # the manifest holds their times
        small = {"nrows": 32, "ncols": 32, "cluster": where}
        assert preprocess(root, **small) == 0
        assert compute_flow(root, **small) == 0
        trees.append({n: data for n, data in tree(root).items() if not n.endswith(".html")})
    cluster.disconnect()
    assert len([n for n in trees[0] if n.endswith(".npy")]) == 16
    assert trees[0] == trees[1]
