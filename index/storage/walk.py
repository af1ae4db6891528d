"""The files below a folder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from index.storage.object_keys import is_year


def files_below(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Yield every file of a folder and of its folders, in order of name.

    `on_error` is called for each folder that cannot be read; without it such a folder is left out.
    """
    for path, folders, names in os.walk(folder, onerror=on_error):
        folders.sort()
        yield from (Path(path) / name for name in sorted(names))


def dated_objects(folder: Path) -> Iterator[str]:
    """Yield the paths of the objects in `objects/` that came back from a store of several nodes."""
    for year in sorted(entry for entry in folder.iterdir() if is_year(f"objects/{entry.name}")):
        yield from (f"objects/{file.relative_to(folder)}" for file in files_below(year))


def objects_of(folder: Path) -> list[tuple[str, bool]]:
    """Return the paths of all objects in a folder, and whether each is a file; links may lead to one."""
    with os.scandir(folder) as entries:
        found = [(entry.name, _is_file(entry)) for entry in entries if entry.name.endswith(".dcm")]
    return [(f"objects/{folder.name}/{name}", is_file) for name, is_file in sorted(found)]


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False
