"""Several data directories share one PostgreSQL index: each keeps, deletes and verifies its own objects."""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from index import DatabaseFault, Index, IndexSettings, NotFound, Outcome, StorageSettings
from index.database.node import nodes
from index.database.tables import CompletionRow, Conflict, Instance, JournalPosition, RemovedObject, Study
from index.errors import ForeignIndex
from index.storage.object_keys import node_of
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep, keep_by_threads
from support.postgresql import create_database, drop_database

_numbers = itertools.count()


@pytest.fixture
def url(postgresql_server: str) -> Iterator[str]:
    name = f"nodes{next(_numbers)}"
    yield create_database(postgresql_server, name)
    drop_database(postgresql_server, name)


def joined(data: Path, url: str, storage: StorageSettings = STORAGE) -> Index:
    index = Index(data, storage, IndexSettings(url=SecretStr(url)), joins=True)
    index.serve()
    return index


@pytest.fixture
def two(url: str, tmp_path: Path) -> Iterator[tuple[Index, Index]]:
    with joined(tmp_path / "one", url) as one, joined(tmp_path / "two", url) as other:
        yield one, other


def objects(index: Index) -> list[str]:
    return sorted(f"objects/{name}" for name in files(index.data / "objects"))


def paths(index: Index) -> list[str]:
    return sorted(path for (path,) in index._database.rows(Instance.select(Instance.path)))


def findings(index: Index, *, repair: bool = False) -> list[str]:
    index._publisher.publish_all()
    kinds = (str(found.kind) for found in index.verify(grace=0, repair=repair))
    return [kind for kind in kinds if "RESOURCE" not in kind.upper()]


def test_each_keeps_objects_under_its_own_paths(two: tuple[Index, Index]) -> None:
    one, other = two
    for number in range(3):
        keep(one, instance(1, 1, 2 * number + 1))
        keep(other, instance(1, 1, 2 * number + 2))
    assert objects(one) + objects(other) == paths(one)
    assert 6 == len(set(paths(one)))
    second = nodes(one._database)[1].id
    assert {0, second} == {node_of(path) for path in paths(one)}
    assert [6] == [study["instances"] for study in other.studies()]
    assert [] == findings(one) + findings(other)
    rows = one._database.rows(JournalPosition.select(JournalPosition.node))
    assert [(0,), (second,)] == sorted(rows)


def test_a_deletion_unlinks_at_each_node_what_is_there(two: tuple[Index, Index]) -> None:
    """One deletion unlinked 120 files of other instances, and kept those of the deleted study."""
    one, other = two
    for index in two:
        keep(index, instance(1, 1, 1 + two.index(index)))
        keep(index, instance(2, 1, 1 + two.index(index)))
    assert 2 == one.delete(f"{ROOT}.1").instances
    assert (1, 2) == (len(objects(one)), len(objects(other)))
    assert 1 == len(one._database.rows(RemovedObject.select(RemovedObject.path)))
    assert [] == findings(one, repair=True)
    # The other notices by itself when it settles next.
    keep(other, instance(3))
    assert eventually(lambda: 2 == len(objects(other)))
    assert [] == findings(other)
    assert paths(one) == objects(one) + objects(other)


def test_verify_leaves_alone_what_is_elsewhere(two: tuple[Index, Index]) -> None:
    one, other = two
    keep(one, instance(1))
    keep(other, instance(2))
    (other.data / objects(other)[0]).unlink()
    assert [] == findings(one, repair=True)
    assert 1 == len(findings(other, repair=True))
    assert 2 == len(paths(one))


def test_the_same_and_another_data_set_at_two_nodes(two: tuple[Index, Index]) -> None:
    one, other = two
    assert Outcome.STORED is keep(one, instance()).outcome
    assert Outcome.DUPLICATE is keep(other, instance()).outcome
    assert [] == objects(other)
    for index in (other, one):  # the same conflict at both: one is kept
        assert Outcome.CONFLICT is keep(index, instance(StudyDescription="Neck")).outcome
    ((path,),) = one._database.rows(Conflict.select(Conflict.path))
    assert nodes(one._database)[1].id == node_of(path)
    assert (other.data / path).is_file()
    assert {} == files(one.data / "conflicts")
    assert [] == findings(one, repair=True) + findings(other, repair=True)


def test_an_object_of_another_node_is_replaced(url: str, tmp_path: Path) -> None:
    """Its node keeps it aside before it unlinks it."""
    storage = STORAGE.model_copy(update={"duplicates": "replace"})
    with joined(tmp_path / "one", url, storage) as one, joined(tmp_path / "two", url, storage) as other:
        keep(one, instance())
        before = (one.data / objects(one)[0]).read_bytes()
        assert Outcome.REPLACED is keep(other, instance(StudyDescription="Neck")).outcome
        keep(one, instance(2))
        assert eventually(lambda: 1 == len(objects(one)))
        assert [before] == list(files(one.data / "conflicts").values())
        assert [] == findings(one) + findings(other)


def test_objects_of_another_node_are_not_called_missing(two: tuple[Index, Index]) -> None:
    one, other = two
    keep(one, instance())
    (stored,) = other.retrieval.find_uid(f"{ROOT}.1").instances()
    with pytest.raises(NotFound, match=rf"is kept by node .*:{one.data}"):
        other.retrieval.open(stored)
    with one.retrieval.open(stored):
        pass


def test_a_study_that_another_node_deletes_while_it_comes(two: tuple[Index, Index]) -> None:
    """What is remembered of its rows is wrong then."""
    one, other = two
    keep(one, instance(1, 1, 1))
    keep(other, instance(1, 1, 2))
    other.delete(f"{ROOT}.1")
    assert Outcome.STORED is keep(one, instance(1, 1, 3)).outcome
    assert [1] == [study["instances"] for study in other.studies()]
    assert eventually(lambda: objects(one) == paths(one))
    assert [] == findings(one)


def test_one_study_over_three_nodes_at_once(url: str, tmp_path: Path) -> None:
    """It gave a deadlock and an A700; tests/durability does it with daemons."""
    with contextlib.ExitStack() as stack:
        three = [stack.enter_context(joined(tmp_path / str(number), url)) for number in range(3)]
        both = [
            instance(study, series, number) for study in (1, 2) for series in (1, 2) for number in range(9)
        ]
        sent = [threading.Thread(target=keep_by_threads, args=(index, both[at:], 3)) for at, index in
                enumerate(three)]  # fmt: skip
        for thread in sent:
            thread.start()
        for thread in sent:
            thread.join()
        assert sorted(paths(three[0])) == sorted(path for index in three for path in objects(index))
        counts = three[0]._database.rows(Study.select(Study.instance_count, Study.series_count))
        assert [(18, 2), (18, 2)] == counts
        assert [] == [found for index in three for found in findings(index)]


def test_several_that_start_at_once(url: str, tmp_path: Path) -> None:
    """Both made the schema; one died in the middle of it."""
    ends: list[object] = []
    ready = threading.Barrier(3)

    def begin(number: int) -> None:
        ready.wait()
        try:
            with joined(tmp_path / str(number), url) as index:
                ready.wait(60)
                ends.append(index._objects.node)
        except Exception as error:  # noqa: BLE001  whatever it is, the test is to show it
            ends.append(error)

    starts = [threading.Thread(target=begin, args=(number,)) for number in range(3)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert (3, 3, True) == (len(ends), len({str(end) for end in ends}), 0 in ends), ends


def test_only_an_empty_directory_joins(url: str, tmp_path: Path) -> None:
    joined(tmp_path / "one", url).close()
    with Index(tmp_path / "two", STORAGE) as alone:
        keep(alone, instance())
    with pytest.raises(ForeignIndex, match="is the index of"):
        joined(tmp_path / "two", url)
    with pytest.raises(ForeignIndex, match="is the index of"):
        Index(tmp_path / "three", STORAGE, IndexSettings(url=SecretStr(url)))


def test_a_node_that_stops_is_silent_at_once(url: str, tmp_path: Path) -> None:
    with joined(tmp_path / "one", url) as one:
        with joined(tmp_path / "two", url) as other:
            assert frozenset() == one._ownership.silent_nodes()
            assert None is not other._ownership.node
            with one._database.writing():  # as one that was killed
                one._database.peewee.execute_sql("UPDATE node SET seen = seen - 60000 WHERE id = %s",
                                                 (other._ownership.node,))  # fmt: skip
            assert {other._ownership.node} == one._ownership.silent_nodes()
        assert {other._ownership.node} == one._ownership.silent_nodes()


def test_what_replaces_the_index_is_refused(two: tuple[Index, Index], url: str) -> None:
    """Only one directory's objects are seen."""
    from index import FhirSettings, reindex

    for index in two:
        index.close()
    with pytest.raises(DatabaseFault, match="2 data directories"):
        reindex(two[0].data, STORAGE, IndexSettings(url=SecretStr(url)), FhirSettings())


def test_one_node_tells_that_a_study_is_complete(two: tuple[Index, Index]) -> None:
    for index in two:
        index.completions.notifications.use(["RIS"])
        index.completions.stop()
    one, other = two
    for number in range(6):
        keep(one, instance(number, 1, 1))
    unpublished = Study.select(Study.id).where(Study.revision != Study.published)
    assert eventually(lambda: not one._database.rows(unpublished))
    with one._database.writing():
        one._database.execute(CompletionRow.update(due=1))
    threads = [threading.Thread(target=index.completions.find_quiet) for index in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [entry.id for entry in other.changes() if (entry.change, entry.fhir) == ("complete", "r4")]
    assert sorted(told) == sorted(f"{ROOT}.{number}" for number in range(6))
    assert [6] == [entry.waiting for entry in one.outbox.listing.status()]
