"""Retention: what goes, in which order, and what stays."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from index import Index, Origin, RetentionSettings
from index.database.tables import Study
from support.daemon import Daemon, eventually
from support.dicom import ROOT, instance, save
from support.filling import STORAGE, files, keep

DAY = 24 * 60 * 60 * 1000


def filled(data: Path, **rules: object) -> Index:
    """Three studies that came 30, 20 and 10 days ago; the second one from two senders."""
    index = Index(data, STORAGE, retention=RetentionSettings(**rules))
    for study, scanner in ((1, "CT1"), (2, "CT1"), (3, "US1")):
        keep(index, instance(study), Origin(scanner, "ARCHIVE", "10.0.0.1"))
    keep(index, instance(2, 1, 2), Origin("US1", "TEACHING", "10.0.0.2"))
    now = int(time.time() * 1000)
    for study in (1, 2, 3):
        received = now - (40 - 10 * study) * DAY
        with index._database.writing():
            changed = Study.update(last_received=received).where(Study.uid == f"{ROOT}.{study}")
            index._database.execute(changed)
    index.publish()
    return index


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        ({}, []),
        ({"days": 40}, []),
        ({"days": 25}, [1]),
        ({"days": 15}, [1, 2]),
        ({"calling_aets": {"US1": 5}}, [3]),
        ({"calling_aets": {"US1": 5, "CT1": 15}}, [1, 2, 3]),
        ({"days": 15, "calling_aets": {"US1": 100}}, [1]),
        ({"days": 5, "called_aets": {"TEACHING": 100}}, [1, 3]),
        ({"size": 0}, [1, 2, 3]),
        ({"size": 1 << 40}, []),
    ],
)
def test_rules(tmp_path: Path, rules: dict[str, object], gone: list[int]) -> None:
    with filled(tmp_path, **rules) as index:
        before = files(tmp_path / "objects")
        expected = [f"{ROOT}.{study}" for study in gone]
        assert expected == [one.uid for one in index.retain(dry_run=True)]
        assert before == files(tmp_path / "objects")
        assert expected == [one.uid for one in index.retain()]
        index.publish()
        assert 3 - len(gone) == len(index.studies())
        assert 3 - len(gone) == len(list((tmp_path / "fhir/r4/ImagingStudy").iterdir()))
        assert [] == index.retain()


def test_size_takes_the_oldest_until_the_rest_fits(tmp_path: Path) -> None:
    with filled(tmp_path) as index:
        sizes = sum(len(content) for content in files(tmp_path / "objects").values())
    with Index(tmp_path, STORAGE, retention=RetentionSettings(size=sizes - 1)) as index:
        assert [f"{ROOT}.1"] == [one.uid for one in index.retain()]


@pytest.mark.sqlite
def test_a_daemon_applies_the_rules(start: Callable[..., Daemon], tmp_path: Path) -> None:
    filled(tmp_path / "data").close()
    daemon = start(IMAGINGSTUDYD_RETENTION__DAYS="15")
    assert eventually(lambda: [f"{ROOT}.3"] == [study["uid"] for study in daemon.studies()])
    assert eventually(lambda: not daemon.resource(f"{ROOT}.1").exists())
    daemon.send(save(instance(4), tmp_path / "one.dcm"), tool="storescu")
    assert 0 == daemon.stop()
