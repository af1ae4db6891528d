"""An index that is filled without a network: reception, called directly."""

import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from index import Index, InstanceReceiver, Kept, Origin, StorageSettings
from support.dicom import encoded

ORIGIN = Origin("SCANNER", "IMAGINGSTUDYD", "127.0.0.1", "test")
# Tests make small files on whatever disk there is.
STORAGE = StorageSettings(watermark=0, durability="process-crash")


def served(data: Path, storage: StorageSettings = STORAGE) -> Index:
    """Return an index that is served as the daemon does it."""
    index = Index(data, storage)
    index.serve()
    return index


def begun(index: Index, dataset: Dataset, origin: Origin = ORIGIN) -> InstanceReceiver:
    """Send all of an instance to the index; it is yet to be kept."""
    receiver = index.receive(origin, dataset.SOPClassUID, dataset.SOPInstanceUID, ExplicitVRLittleEndian)
    receiver.write(encoded(dataset))
    return receiver


def receive(index: Index, dataset: Dataset, origin: Origin = ORIGIN) -> Kept:
    """Let the index receive one instance."""
    return begun(index, dataset, origin).keep()


def keep(index: Index, dataset: Dataset, origin: Origin = ORIGIN) -> Kept:
    """Let the index receive one instance, and wait until it is indexed."""
    kept = receive(index, dataset, origin)
    assert index.catch_up(60)
    return kept


def keep_by_threads(index: Index, datasets: list[Dataset], threads: int) -> None:
    """Send the instances by several threads at the same time."""

    def send(mine: Iterable[Dataset], number: int) -> None:
        for dataset in mine:
            keep(index, dataset, Origin(f"SCANNER{number}", "ANY", f"10.0.0.{number}", f"a{number}"))

    senders = [
        threading.Thread(target=send, args=(datasets[number::threads], number)) for number in range(threads)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def crashed(index: Index, target: Path, *lost: str) -> Path:
    """Copy what a crash leaves; what fits the patterns is lost as well."""
    shutil.copytree(index.data, target)
    for path in [path for pattern in lost for path in target.glob(pattern)]:
        path.unlink()
    return target
