"""What was told of complete studies stays known: over a reindex, an upgrade."""

import sqlite3
from importlib import resources
from pathlib import Path

import pytest

from index import IndexSettings, reindex
from index.database.migrations import statements
from support.completion import R4, STUDY, entries, opened, pass_time, put, step, told
from support.dicom import ROOT
from support.filling import STORAGE

pytestmark = pytest.mark.sqlite


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_reindex_does_not_tell_again(tmp_path: Path, *, is_lost: bool) -> None:
    """Without the old index it is not known what was told: every study would be, for silence."""
    data = tmp_path / "data"
    with opened(data) as index:
        put(index, 1)
        step(index, 1)
        put(index, 1, study=2)
        before = told(index)
    if is_lost:
        (data / "index.sqlite").unlink()
    reindex(data, STORAGE, IndexSettings(), R4)
    with opened(data) as index:
        pass_time(index, 601)
        found = told(index), told(index, f"{ROOT}.2")
        assert ([] if is_lost else [STUDY, f"{ROOT}.2"]) == [uid for _, uid, _ in entries(index)]
    earlier = ("earlier", 1, 0)
    assert ((earlier, earlier) if is_lost else (before, ("quiet", 1, 0))) == found


def test_an_upgrade_tells_nothing_of_old_studies(tmp_path: Path) -> None:
    """A study that may still grow is told, an old one is not."""
    with opened(tmp_path) as index:
        put(index, 1)
        put(index, 1, study=2)
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("UPDATE study SET last_received = last_received - 7200000 WHERE uid = ?", (STUDY,))
        connection.execute("DELETE FROM completion")
        script = (resources.files("index.database") / "migrations/0090_completion.sql").read_text()
        (insert,) = [one for one in statements(script) if one.startswith("INSERT INTO completion")]
        connection.execute(insert)
    with opened(tmp_path) as index:
        pass_time(index, 601)
        assert (("earlier", 1, 0), ("quiet", 1, 0)) == (told(index), told(index, f"{ROOT}.2"))
        assert [f"{ROOT}.2"] == [uid for _, uid, _ in entries(index)]
