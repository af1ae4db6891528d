"""A folder of DICOM worklist files that the index follows: files added, changed and removed.

The folder is read every few seconds, and files are compared by size and time. That works on every file system
and on network shares, where change notification does not.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
from peewee import chunked

from index.orders.dicom import BadItem, order_of, printable, read_file
from index.orders.records import NewOrder, Source
from index.orders.store import AT_ONCE, OrderStore
from index.storage.object_keys import FIRST
from index.storage.walk import files_below
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

SUFFIX = ".wl"
# Files whose names and stamps are in memory. More are passed over, and logged.
MAX_FILES = 100_000


class WorklistFolder:
    """Brings the orders in the index in line with the files of one folder."""

    def __init__(
        self,
        store: OrderStore,
        root: Path,
        interval: float,
        workers: Supervisor | None = None,
        node: int = FIRST,
    ) -> None:
        self._store = store
        self._root = root
        # Each node follows a folder of its own: on several machines they may have the same path.
        self._sender = f"{node}:{root.absolute()}" if node else str(root.absolute())
        self._interval = interval
        # By name: the stamps of files that are not worklist items, and why others cannot be read now.
        self._bad: dict[str, str] = {}
        self._unread: dict[str, str] = {}
        self._unreadable = ""
        self._worker = (workers or Supervisor()).add("worklist-folder", self._run, depends=True)
        self._stopping = self._worker.stopping

    def start(self) -> None:
        """Start to follow the folder."""
        self._worker.start()

    def stop(self) -> None:
        """Stop to follow the folder."""
        self._worker.stop()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.update()
            except Exception as error:  # the thread goes on after a full disk or a lost share
                log.exception("worklist_folder_failed", folder=str(self._root))
                self._worker.failed(error)
            self._worker.wait(self._interval)

    def update(self) -> None:
        """Take over the changes since the last time. Raises NotKept, DatabaseFault.

        If any part of the folder cannot be read, nothing changes: a lost share must not empty the worklist.
        """
        try:
            found = dict(self._files())
        except OSError as error:
            if self._unreadable != str(error):
                log.error("worklist_folder_unreadable", folder=str(self._root), error=str(error))  # noqa: TRY400
            self._unreadable = str(error)
            self._worker.failed(error)
            return
        self._unreadable = ""
        known = self._store.stamps(Source.FILE, self._sender)
        changed = (
            name for name, (_, stamp) in found.items() if stamp not in (known.get(name), self._bad.get(name))
        )
        for some in chunked(changed, AT_ONCE):
            self._put([order for name in some if (order := self._read(name, *found[name]))])
            self._worker.beat()
            if self._stopping.is_set():
                return
        for name in known.keys() - found.keys():
            if known[name]:
                self._store.withdraw(Source.FILE, self._sender, name)
                log.info("worklist_file_gone", file=name)
        self._bad = {name: stamp for name, stamp in self._bad.items() if name in found}
        self._unread = {name: reason for name, reason in self._unread.items() if name in found}
        self._worker.done()

    def _read(self, name: str, path: Path, stamp: str) -> NewOrder | None:
        """Return the order of a file; None where it has none, or is no more."""
        try:
            dataset = read_file(path)
            self._unread.pop(name, None)
            return order_of(dataset, Source.FILE, self._sender, name, stamp)
        except FileNotFoundError:
            pass  # removed meanwhile; the next update follows that
        except OSError as error:  # such as a fault of the network: the next update tries again
            if self._unread.get(name) != str(error):
                log.warning("worklist_file_passed_over", file=name, reason=str(error))
            self._unread[name] = str(error)
        except Exception as error:  # noqa: BLE001  a fault of one file stops no other
            self._pass_over(name, stamp, error)
        return None

    def _put(self, orders: Sequence[NewOrder]) -> None:
        """Put orders into the index. Raises NotKept, DatabaseFault."""
        for order, error in zip(orders, self._store.put_each(orders), strict=True):
            if error:
                self._pass_over(order.identity, order.stamp, error)
            else:
                self._bad.pop(order.identity, None)
                log.info("worklist_file", file=order.identity)

    def _pass_over(self, name: str, stamp: str, error: Exception) -> None:
        self._bad[name] = stamp
        fault = None if isinstance(error, BadItem) else error
        log.warning("worklist_file_passed_over", file=name, reason=str(error), exc_info=fault)

    def _files(self) -> Iterator[tuple[str, tuple[Path, str]]]:
        """Yield the name, path and stamp of each worklist file, in order of name. Raises OSError."""

        def fail(error: OSError) -> None:
            raise error

        paths = (path for path in files_below(self._root, fail) if path.name.lower().endswith(SUFFIX))
        for count, path in enumerate(paths):
            if count == MAX_FILES:
                log.error("worklist_folder_too_large", folder=str(self._root), files=MAX_FILES)
                return
            try:
                status = path.lstat() if path.is_symlink() and not path.exists() else path.stat()
            except FileNotFoundError:
                continue  # removed meanwhile
            yield printable(path.relative_to(self._root)), (path, f"{status.st_mtime_ns}:{status.st_size}")
