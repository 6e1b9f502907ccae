"""``benchmark.py --beside``: two checkouts, the same work."""

import pytest

from common.files import FOLDER, InputError
from demo.beside import OURS, compare_beside


def test_another_folder_is_no_checkout(tmp_path):
    with pytest.raises(InputError, match=r"no benchmark\.py; expected the stcnn folder"):
        list(compare_beside(tmp_path))
    (tmp_path / "benchmark.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "models.py").touch()
    with pytest.raises(InputError, match=r"ended without an answer \(exit code 3\)"):
        list(compare_beside(tmp_path, lengths=(640,)))


@pytest.mark.slow
def test_a_checkout_beside_itself():
    rows = list(compare_beside(FOLDER, lengths=(640,), repeats=1))
    assert [row["what"] for row in rows] == ["step"] * 4 + ["eval"] * 4
    for half in (rows[:4], rows[4:]):
        assert [row["side"] for row in half[1:]] == [f"prepad={name}" for name in OURS]
        assert half[1]["loss_off"] == 0.0  # the same padding, the same code
        assert 0 < abs(half[2]["loss_off"]) < 1e-4
        assert 1e-6 < abs(half[3]["loss_off"]) < 1e-2
    assert all(row["mb"] >= 0 for row in rows[:4])
    assert rows[0]["mb"] > 5
