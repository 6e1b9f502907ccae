#!/usr/bin/env bash
# One would guess: a writable numpy.memmap given to joblib tasks is shared with the workers whatever the
#   backend: with joblib's own processes the workers write into the file and the caller sees it.
# What happens: under the dask backend the task again receives an object of type numpy.memmap, may
#   write to it, and raises nothing, but it is a private copy: the file stays as it was.
# Where users meet it: the usual recipe for large movies (one output memory map, one slice a task) is
#   moved from a workstation to a cluster with parallel_config(backend="dask") and gives zeros.
# Source: own trial; joblib documentation, "Writable memmap for shared memory".
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 joblib==1.6.0 distributed==2026.8.0
cat > trial.py <<'PYTHON'
from importlib.metadata import version

import numpy as np
from dask.distributed import Client, LocalCluster
from joblib import Parallel, delayed, parallel_config


def fill(out, index):
    out[index] = index + 1
    return type(out).__name__


def run(name):
    out = np.memmap(f"{name}.dat", dtype="f8", mode="w+", shape=(4,))
    kinds = Parallel(n_jobs=2)(delayed(fill)(out, index) for index in range(4))
    written = np.fromfile(f"{name}.dat").tolist()
    print(name, "workers saw", set(kinds), "file holds", written)
    return set(kinds), written


if __name__ == "__main__":
    print("joblib", version("joblib"), "distributed", version("distributed"))
    assert run("loky") == ({"memmap"}, [1.0, 2.0, 3.0, 4.0])
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster), parallel_config(backend="dask"):
        assert run("dask") == ({"memmap"}, [0.0, 0.0, 0.0, 0.0])
PYTHON
env/bin/python -W ignore trial.py
