"""Show a movie and its label movies in napari, an optional package."""

from pathlib import Path

import numpy as np

from common.files import InputError
from inputs.movie_io import read_movie, read_stack, same_shape
from settings.recording import Given


def show(
    path: Path, paths: dict[str, Path | None], given: Given | None = None, *, edit: bool = False
) -> dict[str, np.ndarray]:
    """Open the viewer; return {name: labels (T, H, W)} as they are when it is closed.

    Args:
        path: movie (TIFF).
        paths: {name: label movie (TIFF) or None}.
        given: settings.recording.Given, what the user says about the movie.
        edit: also show empty label layers in the place of those without a file, to be drawn into.
    """
    movie = read_movie(path, given)
    labels = {}
    for name, label_path in paths.items():
        if label_path is not None:
            stack = read_stack(label_path)
            same_shape(stack, movie)
            labels[name] = stack.data.astype(int)
        elif edit:
            labels[name] = np.zeros(movie.data.shape, int)
    try:
        import napari
    except ImportError:
        raise InputError(
            "napari is not installed; pip install -r requirements-view.txt, or open the TIFF files "
            "in ImageJ"
        ) from None
    scale = (1, movie.calibration.pixel_y_um or 1, movie.calibration.pixel_x_um or 1)
    viewer = napari.Viewer(title=path.name)
    viewer.add_image(movie.data, name="movie", scale=scale)
    layers = {
        name: viewer.add_labels(values, name=name, scale=scale) for name, values in labels.items()
    }
    viewer.scale_bar.visible = True
    viewer.scale_bar.unit = "um" if movie.calibration.pixel_um else "px"
    napari.run()
    return {name: np.asarray(layer.data) for name, layer in layers.items()}
