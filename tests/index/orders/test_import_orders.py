"""Files of orders are read once: also those that can be read once only, such as named pipes."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from index import Index
from index.orders import dicom, import_orders
from index.orders.dicom import BadItem, parse
from support.filling import STORAGE
from support.hl7 import orm
from support.worklist import item, selected, write


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "data", STORAGE) as index:
        yield index


def piped(path: Path, content: bytes) -> Path:
    """Make a named pipe with this content, which can be read once."""
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(content,), daemon=True).start()
    return path


@pytest.mark.parametrize("kind", ["wl", "hl7"])
def test_orders_from_a_named_pipe(index: Index, tmp_path: Path, kind: str) -> None:
    content = write(item(1), tmp_path / "1.wl").read_bytes() if kind == "wl" else orm()
    report = index.orders.import_files([piped(tmp_path / "pipe", content)])
    assert (1, []) == (report.taken, report.failed)
    assert 1 == len(selected(index))


def test_what_a_pipe_gives_is_bounded(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_orders, "MAX_FILE", 1000)
    limit = piped(tmp_path / "limit", b" " * 1000)
    over = piped(tmp_path / "over", b" " * 1001)
    report = index.orders.import_files([limit, over])
    assert ["limit", "over"] == [path.name for path, _ in report.failed]
    assert "more than the 1000" not in report.failed[0][1]
    assert "more than the 1000" in report.failed[1][1]


def test_a_worklist_item_is_bounded() -> None:
    with pytest.raises(BadItem, match="bytes are more than"):
        parse(bytes(dicom.MAX_FILE + 1))
