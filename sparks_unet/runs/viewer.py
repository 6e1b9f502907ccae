"""Show a movie and its label movies in napari, an optional package."""

from pathlib import Path

from common.files import InputError
from inputs.movie_io import read_movie, read_stack, same_shape
from settings.recording import Given


def show(path: Path, paths: dict[str, Path | None], given: Given | None = None) -> None:
    """Open the viewer.

    Args:
        path: movie (TIFF).
        paths: {name: label movie (TIFF) or None}.
        given: settings.recording.Given, what the user says about the movie.
    """
    movie = read_movie(path, given)
    labels = {}
    for name, label_path in paths.items():
        if label_path is not None:
            labels[name] = read_stack(label_path)
            same_shape(labels[name], movie)
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
    for name, stack in labels.items():
        viewer.add_labels(stack.data.astype(int), name=name, scale=scale)
    viewer.scale_bar.visible = True
    viewer.scale_bar.unit = "um" if movie.calibration.pixel_um else "px"
    napari.run()
