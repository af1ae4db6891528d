"""Published to @medplum/fhir-router, a FHIR R4 server that validates and that nobody here wrote."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from index import TargetFilter, TargetSettings
from index.publication import study as study_module
from support.daemon import Daemon, cli, eventually
from support.dicom import ROOT, instance, save
from support.filling import keep
from support.medplum import Medplum
from support.targets import FHIR, Site, here

Sites = Callable[..., Site]


@pytest.fixture
def medplum(tmp_path: Path) -> Iterator[Medplum]:
    made = Medplum(tmp_path / "medplum.json")
    yield made
    made.kill()


def target(server: Medplum, **values: object) -> TargetSettings:
    return TargetSettings(name="ehr", url=server.url, interval=0, **values)


def test_what_it_has_is_what_the_files_have(
    site: Sites, medplum: Medplum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = site(target(medplum))
    for study in (1, 2, 3):
        for series in (1, 2):
            names = {"ReferringPhysicianName": "House^Greg", "InstitutionName": "Clinic"}
            keep(made.index, instance(study, series, PatientID=f"P{study % 2}", **names))
    assert made.is_published()
    assert [] == made.left()
    assert here(tmp_path / "data") == medplum.resources()
    keep(made.index, instance(1, 3, PatientID="P1", PatientBirthDate="19700101"))
    made.index.delete(f"{ROOT}.2")
    assert eventually(lambda: f"ImagingStudy/{ROOT}.2" not in medplum.resources())
    assert made.is_published()
    assert here(tmp_path / "data") == medplum.resources()
    # What it refuses is a dead letter, with its words.
    plain = study_module.encode
    monkeypatch.setattr(study_module, "encode", lambda one: plain({**one, "status": "excellent", "foo": 1}))
    keep(made.index, instance(4))
    assert eventually(lambda: made.states() == {"dead"})
    (entry,) = made.index.targets.listing.entries(TargetFilter())
    assert "400 Bad Request" in entry.error
    assert any('Invalid additional property "foo"' in issue for issue in entry.issues)
    monkeypatch.undo()
    keep(made.index, instance(4, 1, 2))
    assert made.is_published()
    assert [] == made.left()
    assert here(tmp_path / "data") == medplum.resources()


def test_it_gives_ids_and_is_the_master_of_patients(site: Sites, medplum: Medplum) -> None:
    made = site(target(medplum, write="conditional"))
    for study in (1, 2):
        keep(made.index, instance(study, PatientID="P1", ReferringPhysicianName="House^Greg"))
    assert made.is_published()
    keep(made.index, instance(1, 1, 2, PatientID="P1"))
    assert made.is_published()
    assert [] == made.left()
    found = medplum.resources()
    (patient,) = (name for name in found if name.startswith("Patient/"))
    studies = [one for name, one in found.items() if name.startswith("ImagingStudy/")]
    assert ([patient] * 2, [1, 2]) == (
        [one["subject"]["reference"] for one in studies],
        sorted(one["numberOfInstances"] for one in studies),
    )
    assert 1 == sum(name.startswith("Practitioner/") for name in found)
    made.close()
    made = site(TargetSettings(name="second", url=medplum.url, write="conditional", patients="look-up"))
    keep(made.index, instance(3, PatientID="P1"))
    keep(made.index, instance(4, PatientID="P4"))
    assert eventually(lambda: [("second", f"{ROOT}.4", "held")] == [one[:3] for one in made.left()])
    assert {patient} == {
        one["subject"]["reference"]
        for name, one in medplum.resources().items()
        if name.startswith("ImagingStudy/")
    }


def killed_at_random(tmp_path: Path, studies: int, instances: int, kills: int, write: str = "put") -> None:
    """Send all, kill either side at random moments, and compare at the end."""
    medplum = Medplum(tmp_path / "medplum.json")
    config = tmp_path / "config.toml"
    config.write_text(
        f'[fhir]\nbase_url = "{FHIR.base_url}"\n[publish]\ninterval = 0.1\n'
        f'[[publish.targets]]\nname = "ehr"\nurl = "{medplum.url}"\ninterval = 0.2\nwrite = "{write}"\n'
    )
    for study in range(1, studies + 1):
        for number in range(1, instances + 1):
            save(instance(study, 1, number, PatientID=f"P{study % 7}"), tmp_path / f"{study}/{number}.dcm")
    chance, data = random.Random(1), tmp_path / "data"
    daemon = Daemon(data, "--config", str(config))
    for kill in range(kills + 1):
        numbers = range(1 + kill * studies // (kills + 1), 1 + (kill + 1) * studies // (kills + 1))
        mine = [tmp_path / str(study) for study in numbers]
        sending = threading.Thread(target=daemon.send, args=mine)
        sending.start()
        eventually(lambda: False, chance.uniform(0, 1))
        if kill == kills:
            pass
        elif kill % 2:
            medplum.kill()
            medplum.start()
        else:
            daemon.kill()
            daemon = Daemon(data, "--config", str(config))
        sending.join()
        # What was not acknowledged is sent again, as scanners do.
        assert 0 == daemon.send(*mine).returncode

    def is_over() -> bool:
        found = medplum.resources()
        shown = [one["numberOfInstances"] for name, one in found.items() if name.startswith("ImagingStudy/")]
        is_same = here(data) == found if write == "put" else len(here(data)) == len(found)
        return [instances] * studies == shown and is_same

    assert eventually(is_over, 600)
    assert studies == len(daemon.studies())
    said = cli("publish", "status", "--json", "--data", str(data), "--config", str(config)).stdout
    (status,) = json.loads(said)
    assert {0} == {status[key] for key in ("held", "dead", "behind", "filling")}
    assert 0 == daemon.stop()
    medplum.kill()


def test_killed_on_either_side_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    killed_at_random(tmp_path, studies=6, instances=3, kills=2)


@pytest.mark.long
@pytest.mark.parametrize("write", ["put", "conditional"])
def test_the_same_with_10_000_instances_in_200_studies(tmp_path: Path, write: str) -> None:
    killed_at_random(tmp_path, studies=200, instances=50, kills=40, write=write)
