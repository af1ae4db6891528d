"""Instance Availability Notification to scripted peers: what is told, once it is taken, and again if not."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from index import Index, OutboxFilter, PublishSettings
from scp.observing.metrics import Metrics
from scp.services import delivery
from scp.services.notify import ATTRIBUTES, Notifying
from scp.settings.sections import Configuration, DicomSettings, Peer
from support.archive import Destination
from support.daemon import eventually
from support.dicom import CT_IMAGE_STORAGE, ROOT, instance
from support.filling import STORAGE, keep
from support.modality import MPPS, begun, ended
from support.notified import NotifiedPeer

STUDY = f"{ROOT}.1"
STEP = "1.2.826.0.1.55.9"


class Site:
    """An index whose studies are complete when their step says so, and what notifies peers."""

    def __init__(self, data: Path) -> None:
        self.configuration = Configuration(dicom=DicomSettings(aet="ARCHIVE"))
        self.metrics = Metrics()
        self.index = Index(data, STORAGE, publish=PublishSettings(quiet=0))
        self.notifying = Notifying(self.index, lambda: self.configuration, self.metrics)

    def peers(self, **ports: int) -> None:
        peers = tuple(Peer(aet=aet, host="127.0.0.1", port=port, notify=True) for aet, port in ports.items())
        self.configuration = self.configuration.model_copy(update={"peers": peers})
        self.index.completions.notifications.use(ports)

    def complete(self, study: int, *numbers: int) -> None:
        """Let a study be complete by its step."""
        uid = f"{ROOT}.{study}"
        for number in numbers:
            keep(self.index, instance(study, 1, number))
        self.index.procedures.create(f"{STEP}.{study}", "CT1", begun(study_uid=uid))
        made = [f"{uid}.1.{number}" for number in numbers]
        self.index.procedures.update(f"{STEP}.{study}", ended("COMPLETED", f"{uid}.1", made))
        self.index.publish()

    def left(self) -> list[tuple[str, str, str, int]]:
        entries = self.index.outbox.listing.entries(OutboxFilter(), waiting=True)
        return [(one.peer, one.study_uid, one.state, one.attempts) for one in entries]

    def close(self) -> None:
        self.notifying.stop()
        self.index.close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(delivery, "QUIET_SECONDS", 0.2)
    made = Site(tmp_path / "data")
    made.index._publisher.stop(0)
    yield made
    made.close()


@pytest.fixture
def peer() -> Iterator[Callable[..., NotifiedPeer]]:
    made = []

    def make(*arguments: object, **options: object) -> NotifiedPeer:
        made.append(NotifiedPeer(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def names(dataset: Dataset, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The attributes of a data set, each with the sequences that it is in."""
    found = set()
    for element in dataset:
        found.add((*path, element.keyword))
        for item in element.value if element.VR == "SQ" else ():
            found |= names(item, (*path, element.keyword))
    return found


def test_a_complete_study_is_told_with_its_step(site: Site, peer: Callable[..., NotifiedPeer]) -> None:
    ris = peer()
    site.peers(RIS=ris.port)
    site.notifying.start()
    site.complete(1, 1, 2)
    assert eventually(lambda: len(ris.notifications) == 1 and site.left() == [])
    ((uid, told),) = ris.notifications
    (step,) = told.ReferencedPerformedProcedureStepSequence
    assert (MPPS, f"{STEP}.1") == (step.ReferencedSOPClassUID, step.ReferencedSOPInstanceUID)
    assert [] == list(step.PerformedWorkitemCodeSequence)
    (series,) = told.ReferencedSeriesSequence
    assert (STUDY, f"{STUDY}.1") == (told.StudyInstanceUID, series.SeriesInstanceUID)
    assert [(CT_IMAGE_STORAGE, f"{STUDY}.1.{number}", "ONLINE", "ARCHIVE") for number in (1, 2)] == [
        (
            one.ReferencedSOPClassUID,
            one.ReferencedSOPInstanceUID,
            one.InstanceAvailability,
            one.RetrieveAETitle,
        )
        for one in series.ReferencedSOPSequence
    ]
    assert uid.startswith("2.25.")
    # PS3.4 R.3.2.1.1: additional attributes are forbidden, so that nothing of the patient is told.
    assert set(ATTRIBUTES) == names(told)
    assert b'notifications_total{outcome="sent",peer="RIS"} 1.0' in site.metrics.text()


def test_instances_without_a_step_have_an_empty_reference(
    site: Site, peer: Callable[..., NotifiedPeer]
) -> None:
    ris = peer()
    site.peers(RIS=ris.port)
    keep(site.index, instance(1, 1, 9))
    site.complete(1, 1)
    site.notifying.start()
    assert eventually(lambda: len(ris.notifications) == 2)
    steps = [len(told.ReferencedPerformedProcedureStepSequence) for _, told in ris.notifications]
    assert [1, 0] == steps
    assert 1 == ris.associations


def test_it_is_repeated_until_it_is_taken(site: Site, peer: Callable[..., NotifiedPeer]) -> None:
    """The same SOP Instance UID: an answer that was lost makes 0111, which is as good as 0000."""
    ris = peer(lambda number: {1: 0x0110, 2: 0x0213, 3: 0x0111}.get(number, 0))
    site.peers(RIS=ris.port)
    site.notifying.start()
    site.complete(1, 1)
    assert eventually(lambda: len(ris.notifications) == 3 and site.left() == [])
    assert 1 == len({uid for uid, _ in ris.notifications})


def test_what_a_peer_never_takes_is_a_dead_letter(site: Site, peer: Callable[..., NotifiedPeer]) -> None:
    ris = peer(lambda _: 0x0106)
    site.peers(RIS=ris.port)
    site.notifying.start()
    site.complete(1, 1)
    assert eventually(lambda: [("RIS", STUDY, "dead", delivery.MOST_ATTEMPTS)] == site.left())
    (entry,) = site.index.outbox.listing.entries(OutboxFilter("RIS", STUDY))
    assert ("notification", "answered 0106") == (entry.kind, entry.error)


def test_a_peer_that_is_down_is_told_later_and_others_at_once(
    site: Site, peer: Callable[..., NotifiedPeer]
) -> None:
    ris, other = peer(), peer()
    ris.stop()
    site.peers(RIS=ris.port, OTHER=other.port)
    site.notifying.start()
    site.complete(1, 1)
    assert eventually(lambda: len(other.notifications) == 1 and bool(site.notifying.failing()))
    assert [("RIS", STUDY, "waiting", 0)] == site.left()
    ris.listen()
    assert eventually(lambda: site.left() == [] and not site.notifying.failing())
    assert [STUDY] == [told.StudyInstanceUID for _, told in ris.notifications]


def test_a_peer_that_does_not_offer_it(site: Site) -> None:
    destination = Destination(accepts=lambda *_: None)
    site.peers(RIS=destination.port)
    site.notifying.start()
    site.complete(1, 1)
    assert eventually(
        lambda: "does not offer 1.2.840.10008.5.1.4.33" in site.notifying.failing().get("RIS", "")
    )
    destination.close()


def test_a_peer_that_dies_midway(site: Site) -> None:
    destination = Destination(lambda _: None)
    site.peers(RIS=destination.port)
    site.notifying.start()
    site.complete(1, 1)
    assert eventually(lambda: len(destination.commands) > 1)  # it is tried again
    destination.close()


def test_a_study_that_was_deleted_meanwhile_is_not_told(
    site: Site, peer: Callable[..., NotifiedPeer]
) -> None:
    ris = peer()
    site.peers(RIS=ris.port)
    site.complete(1, 1)
    site.index.delete(STUDY)
    site.notifying.start()
    assert eventually(lambda: site.left() == [])
    assert [] == ris.notifications


def test_a_stop_does_not_wait_for_a_peer_that_hangs(site: Site) -> None:
    """Nor does what it does not answer get lost."""
    from threading import Event

    asked, never = Event(), Event()

    def hang(_: int) -> int:
        asked.set()
        never.wait()
        return 0

    hanging = Destination(hang)
    site.peers(RIS=hanging.port)
    site.notifying.start()
    site.complete(1, 1)
    assert asked.wait(60)
    site.notifying.stop()
    assert [("RIS", STUDY, "waiting", 0)] == site.left()
    never.set()
    hanging.close()


def test_a_reload_takes_peers_over(site: Site, peer: Callable[..., NotifiedPeer]) -> None:
    ris = peer()
    site.notifying.start()
    site.complete(1, 1)  # nobody is notified of it
    peers = (Peer(aet="RIS", host="127.0.0.1", port=ris.port, notify=True), Peer(aet="OTHER"))
    site.configuration = site.configuration.model_copy(update={"peers": peers})
    site.notifying.reload()
    site.complete(2, 1)
    assert eventually(lambda: [f"{ROOT}.2"] == [told.StudyInstanceUID for _, told in ris.notifications])
