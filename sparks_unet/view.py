"""Open a movie and its predicted classes and events in napari.

Needs the extra packages of ``requirements-view.txt``; everything else of this folder runs without.

    python view.py 05_video.tif --classes run_..._classes.tif --instances run_..._instances.tif

Files read: the movie and label movies (T, H, W). Files written: none.
"""

from pathlib import Path

from common.files import InputError, Parser, one_line_faults


@one_line_faults
def main(argv=None):
    """Parse the command line and open the viewer."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("movie", type=Path, help="movie (TIFF)")
    parser.add_argument("--classes", type=Path, help="class movie (TIFF)")
    parser.add_argument("--instances", type=Path, help="event movie (TIFF)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)

    from movie_io import read_movie, same_shape

    movie = read_movie(args.movie)
    labels = {}
    for name in ("classes", "instances"):
        path = getattr(args, name)
        if path is not None:
            labels[name] = read_movie(path)
            same_shape(labels[name], movie)
    try:
        import napari
    except ImportError:
        raise InputError(
            "napari is not installed; pip install -r requirements-view.txt, or open the TIFF files "
            "in ImageJ"
        ) from None
    scale = (1, movie.pixel_um or 1, movie.pixel_um or 1)
    viewer = napari.Viewer(title=args.movie.name)
    viewer.add_image(movie.data, name="movie", scale=scale)
    for name, stack in labels.items():
        viewer.add_labels(stack.data.astype(int), name=name, scale=scale)
    viewer.scale_bar.visible = True
    viewer.scale_bar.unit = "um" if movie.pixel_um else "px"
    napari.run()


if __name__ == "__main__":
    main()
