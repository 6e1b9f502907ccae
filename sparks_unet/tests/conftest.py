"""Options shared by the tests of this folder."""

import logging
import resource
import signal
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
FOLDER = TESTS.parent.name


def pytest_addoption(parser):
    # pytest has a switch of this name (also known as --funcargs): ours takes its place.
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


@pytest.fixture(autouse=True)
def own_log():
    """Take away the handlers of a script that a test has run: their stderr ends with the test."""
    yield
    logger = logging.getLogger("sparks_unet")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True


@pytest.fixture
def small_disk():
    """Return a function that lets no file grow beyond so many bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def single_thread():
    """Compute with one thread, so that numbers repeat bit for bit."""
    import torch  # here, because most tests need no network

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
