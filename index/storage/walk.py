"""The files below a folder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def files_below(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Yield every file of a folder and of its folders, in order of name.

    `on_error` is called for each folder that cannot be read; without it such a folder is left out.
    """
    for path, folders, names in os.walk(folder, onerror=on_error):
        folders.sort()
        yield from (Path(path) / name for name in sorted(names))
