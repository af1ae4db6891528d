"""The same index in a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from index import Index, IndexSettings, NotFound, Outcome
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep, keep_by_threads
from support.postgresql import server


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as url:
        yield url


def test_the_same_instances_give_the_same_bytes(url: str, tmp_path: Path) -> None:
    datasets = [
        instance(study, series, number) for study in (1, 2) for series in (1, 2) for number in (1, 2, 3)
    ]
    indexes = {
        "sqlite": Index(tmp_path / "sqlite", STORAGE),
        "postgresql": Index(tmp_path / "postgresql", STORAGE, IndexSettings(url=SecretStr(url))),
    }
    for index in indexes.values():
        keep_by_threads(index, datasets, 4)
        assert Outcome.DUPLICATE is keep(index, datasets[0]).outcome
        assert Outcome.CONFLICT is keep(index, instance(1, 1, 1, StudyDescription="Neck")).outcome
        index.publish()
    assert files(tmp_path / "sqlite/fhir") == files(tmp_path / "postgresql/fhir")
    assert len(files(tmp_path / "sqlite/fhir"))
    listed = [sorted(index.studies(), key=lambda study: study["uid"]) for index in indexes.values()]
    assert listed[0] == listed[1]
    on_server = indexes["postgresql"]
    on_server.delete(f"{ROOT}.1")
    on_server.publish()
    with pytest.raises(NotFound):
        on_server.resource(f"{ROOT}.1")
    for index in indexes.values():
        index.close()
