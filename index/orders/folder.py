"""A folder of DICOM worklist files, followed: what is added, changed or removed there is so in the index.

It is looked through every few seconds, by size and time: that works on every file system and on network
shares, where change notification does not.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from index.errors import IndexFault
from index.orders.dicom import BadItem, order_of, printable, read_file
from index.orders.records import Source
from index.orders.store import OrderStore
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

SUFFIX = ".wl"
# One look holds the names and stamps of this many; further files are named in the log and passed over.
MAX_FILES = 100_000


class Folder:
    """Keeps the index in line with the files of one folder."""

    def __init__(
        self, store: OrderStore, root: Path, interval: float, workers: Supervisor | None = None
    ) -> None:
        self._store = store
        self._root = root
        self._sender = str(root.absolute())
        self._interval = interval
        self._bad: dict[str, str] = {}
        self._unreadable = ""
        self._worker = (workers or Supervisor()).add("worklist-folder", self._run, depends=True)
        self._stopping = self._worker.stopping

    def start(self) -> None:
        """Begin to follow the folder."""
        self._worker.start()

    def stop(self) -> None:
        """Look no more."""
        self._worker.stop()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except Exception as error:  # a full disk or a lost share must not end it; the next look comes
                log.exception("worklist_folder_failed", folder=str(self._root))
                self._worker.failed(error)
            self._worker.wait(self._interval)

    def look(self) -> None:
        """Take over what has changed since the last look. Raises NotKept, DatabaseFault.

        A folder that cannot be read as a whole changes nothing: a lost share does not empty the worklist.
        """
        try:
            found = dict(self._files())
        except OSError as error:
            if self._unreadable != str(error):
                log.error(  # noqa: TRY400  the path and the reason say it all
                    "worklist_folder_unreadable", folder=str(self._root), error=str(error)
                )
            self._unreadable = str(error)
            self._worker.failed(error)
            return
        self._unreadable = ""
        known = self._store.stamps(Source.FILE, self._sender)
        for name, (path, stamp) in found.items():
            if known.get(name) != stamp and self._bad.get(name) != stamp:
                self._take(name, path, stamp)
            self._worker.beat()
            if self._stopping.is_set():
                return
        for name in known.keys() - found.keys():
            if known[name]:
                self._store.withdraw(Source.FILE, self._sender, name)
                log.info("worklist_file_gone", file=name)
        self._bad = {name: stamp for name, stamp in self._bad.items() if name in found}
        self._worker.done()

    def _take(self, name: str, path: Path, stamp: str) -> None:
        try:
            dataset = read_file(path)
            self._store.put(order_of(dataset, Source.FILE, self._sender, name, stamp))
        except FileNotFoundError:
            return  # gone since it was listed; the next look sees that
        except (BadItem, OSError) as error:
            self._bad[name] = stamp
            log.warning("worklist_file_passed_over", file=name, reason=str(error))
        except IndexFault:
            raise
        except Exception:  # whatever one file brings up, the others are taken
            self._bad[name] = stamp
            log.exception("worklist_file_passed_over", file=name)
        else:
            self._bad.pop(name, None)
            log.info("worklist_file", file=name)

    def _files(self) -> Iterator[tuple[str, tuple[Path, str]]]:
        """Yield the name, path and stamp of each worklist file, in order of name. Raises OSError."""

        def failed(error: OSError) -> None:
            raise error

        count = 0
        for folder, folders, names in os.walk(self._root, onerror=failed):
            folders.sort()
            for name in sorted(names):
                if not name.lower().endswith(SUFFIX):
                    continue
                count += 1
                if count > MAX_FILES:
                    log.error("worklist_folder_too_large", folder=str(self._root), files=MAX_FILES)
                    return
                path = Path(folder) / name
                try:
                    status = path.lstat() if path.is_symlink() and not path.exists() else path.stat()
                except FileNotFoundError:
                    continue  # gone since it was listed
                stamp = f"{status.st_mtime_ns}:{status.st_size}"
                yield printable(path.relative_to(self._root)), (path, stamp)
