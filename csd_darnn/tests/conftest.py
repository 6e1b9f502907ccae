"""Options shared by the tests of this folder."""

import os
from pathlib import Path

import pytest

# The networks of the tests are tiny: threads would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

TESTS = Path(__file__).resolve().parent
FOLDER = TESTS.parent.name


def pytest_addoption(parser):
    # pytest has a switch --fixtures of its own (its other name, --funcargs, stays): take the name.
    parser._anonymous._arggroup.conflict_handler = "resolve"
    parser.addoption(
        "--fixtures", default=str(TESTS / "fixtures"), help="folder of parity fixtures"
    )
    parser.addoption("--real", default=None, help="folder with the real data files")


@pytest.fixture(scope="session")
def real_dir(request):
    """Folder of real data; a test that needs it is skipped, with the reason, when it is absent."""
    given = request.config.getoption("--real")
    folder = Path(given) if given else TESTS.parents[1] / "data" / FOLDER / "real"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: pass --real DIR")
    return folder
