"""Tables as CSV."""

from pathlib import Path

import pandas as pd

from common.files import atomic_path
from common.tables import safe_frame


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as CSV, atomically."""
    with atomic_path(path) as temporary:
        safe_frame(table).to_csv(temporary, index=False)
    return path
