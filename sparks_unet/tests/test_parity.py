"""Parity with numbers recorded from the published code: every file of --fixtures DIR is checked.

A file belongs to the check of the longest prefix that its stem starts with; what is absent from the
folder is skipped by name.
"""

from pathlib import Path

import numpy as np
import pytest

import parity_data
import parity_events
import parity_networks

CHECKS = {**parity_networks.CHECKS, **parity_data.CHECKS, **parity_events.CHECKS}


def check_of(stem):
    """Return the prefix whose check takes the file ``stem``, or None."""
    return max((p for p in CHECKS if stem.startswith(p)), key=len, default=None)


def pytest_generate_tests(metafunc):
    folder = Path(metafunc.config.getoption("--fixtures"))
    if "fixture_path" in metafunc.fixturenames:
        paths = sorted(folder.glob("*.npz"))
        metafunc.parametrize("fixture_path", paths, ids=[path.stem for path in paths])
    if "prefix" in metafunc.fixturenames:
        metafunc.parametrize("prefix", sorted(CHECKS))


def test_numbers_agree(fixture_path):
    """Check one file of recorded numbers."""
    prefix = check_of(fixture_path.stem)
    assert prefix is not None, f"{fixture_path.name}: no check takes this file"
    with np.load(fixture_path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    CHECKS[prefix](arrays, fixture_path.stem)


def test_prefix_is_present(prefix, request):
    """Say which kinds of recorded numbers the folder holds."""
    folder = Path(request.config.getoption("--fixtures"))
    if not any(check_of(path.stem) == prefix for path in folder.glob("*.npz")):
        pytest.skip(f"no file {prefix}*.npz in {folder}")
