"""Whether a folder of pictures holds those that are asked for."""

import json
from pathlib import Path

from common.files import InputError, read_json
from settings import FREE_PICTURES, Settings

FOLDER_NAME = "guidedbackprop_visualization"


def settings_of(args: Settings) -> dict:
    """Return the settings that decide the pictures, as JSON gives them back."""
    settings = {key: value for key, value in vars(args).items() if key not in FREE_PICTURES}
    return json.loads(json.dumps(settings, default=str))


def is_done(folder: Path, args: Settings) -> bool:
    """Say whether ``folder`` holds these very pictures; other pictures are an error unless -r."""
    if not folder.exists() or args.recalculate:
        return False
    path = folder / "settings.json"
    if path.is_file() and read_json(path, remedy="or replace the folder with -r") == settings_of(
        args
    ):
        return True
    raise InputError(
        f"{folder}: exists with other settings; replace it with -r or give another --out"
    )
