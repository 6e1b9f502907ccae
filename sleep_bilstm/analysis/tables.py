"""Tables as CSV."""

from pathlib import Path

import pandas as pd

from common.files import atomic_path


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as CSV, atomically."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
    return path
