"""kill_campaign.py: a stage that keeps the rules passes, one that breaks them is told."""

import sys
from types import SimpleNamespace

import kill_campaign
from campaign_stages import FOLDERS, Stage
from repository import FOLDERS as REAL_FOLDERS

GOOD = """
import fcntl, os, sys, time
from pathlib import Path
out = Path(sys.argv[1])
out.mkdir(exist_ok=True)
lock = open(out / "lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(print(f"error: {out}: is being written by process 1") or 2)
for path in out.glob(".*"):
    path.unlink()
for name in "ab":
    with open(out / f".{name}", "w") as file:
        file.write(name)
        file.flush()
        os.fsync(file.fileno())
    os.replace(out / f".{name}", out / name)
(out / "seconds").write_text(str(time.time()))
"""
# Appends to what is there, cleans nothing, locks nothing.
BAD = GOOD.replace("LOCK_EX", "LOCK_SH").replace("path.unlink()", "pass")
BAD = BAD.replace("for name in", "(out / 'log').open('a').write('x')\nfor name in")


def run(tmp_path, code):
    """Return the campaign's row of a stage that runs ``code``."""
    options = SimpleNamespace(stages=None, kills=3, once=False, scratch=tmp_path)
    stage = Stage("toy", ("-c", code.replace("{", "{{").replace("}", "}}"), "{w}/out"))
    folder = tmp_path / "toy"
    folder.mkdir()
    (row,) = kill_campaign.campaign(folder, sys.executable, [stage], "", options)
    assert list(tmp_path.iterdir()) == [folder]  # nothing is left
    return row


def test_a_stage_that_keeps_the_rules_passes(tmp_path, capsys):
    row = run(tmp_path, GOOD)
    assert row.faults == []
    # fsync and replace, twice; the file with the time is known to vary
    assert (row.operations, row.kills, row.equal, row.varying) == (4, 3, 3, 1)
    assert row.twice == "refused"
    assert "| toy toy | 4 | 3 | 3 | refused | 1 |" in capsys.readouterr().out


def test_a_stage_that_breaks_them_is_told(tmp_path):
    row = run(tmp_path, BAD)
    assert row.equal == 0
    assert row.twice == "code 0"
    told = "\n".join(row.faults)
    assert "kill 1 of 4: other out/log" in told  # the line is there twice
    assert "twice: other out/log" in told
    assert "twice: the second ended with 0" in told


def test_places_are_spread_from_the_first_to_the_last():
    assert kill_campaign.spread(3, 6) == [1, 2, 3]
    assert kill_campaign.spread(9, 1) == [5]
    assert kill_campaign.spread(100, 4) == [1, 34, 67, 100]


def test_every_folder_has_stages():
    assert sorted(FOLDERS) == sorted(REAL_FOLDERS)
