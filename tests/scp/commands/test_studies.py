"""`studies`: its filters, its order, and what it prints."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from index import Index
from scp.commands import studies as command
from scp.commands.main import register_commands
from support.dicom import ROOT, instance
from support.filling import STORAGE, keep

app = register_commands()
UTF8 = "ISO_IR 192"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three published studies, one that is not published, and one that has a data set in conflict only."""
    folder = tmp_path_factory.mktemp("data")
    with Index(folder, STORAGE) as index:
        for number, name, date, modality in (
            (1, "Müller^Hans", "20200103", "CT"),
            (2, "Doe^Jane", "20200101", "MR"),
            (3, "MULLER^Eva", "20200102", "CT"),
        ):
            header = {"PatientName": name, "StudyDate": date, "Modality": modality, "PatientID": f"P{number}"}
            keep(index, instance(number, SpecificCharacterSet=UTF8, AccessionNumber=f"A{number}", **header))
        index.publish()
        keep(
            index, instance(4, PatientName="Roe", StudyDate="20210101", PatientID="P4", AccessionNumber="A4")
        )
        aside = instance(5, PatientName="Poe", PatientID="P5", AccessionNumber="B5", StudyDate="20190101")
        aside.SOPInstanceUID = instance(1).SOPInstanceUID
        keep(index, aside)
    return folder


def listed(data: Path, *arguments: str) -> list[int]:
    """Return the numbers of the studies that are printed."""
    done = CliRunner().invoke(app, ["studies", "--json", "--data", str(data), *arguments])
    assert 0 == done.exit_code, done.output
    return [int(study["uid"].removeprefix(f"{ROOT}.")) for study in json.loads(done.stdout)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [1, 2, 3, 4, 5]),
        (["--name", "muller"], [1, 3]),
        (["--name", "hans"], [1]),
        (["--name", "poe"], [5]),
        (["--name", "r*"], [4]),
        (["--patient", "P4"], [4]),
        (["--patient", "p4"], []),
        (["--accession", "A?"], [1, 2, 3, 4]),
        (["--modality", "MR"], [2]),
        (["--since", "2020-01-02", "--until", "20200103"], [1, 3]),
        (["--until", "2019-12-31"], [5]),
        (["--sort", "started"], [2, 3, 1, 4, 5]),
        (["--sort=-started"], [4, 1, 3, 2, 5]),
        (["--sort", "name"], [2, 3, 1, 4, 5]),
        (["--sort=-arrival", "--limit", "2"], [4, 3]),
        (["--limit", "5", "--name", "*"], [1, 2, 3, 4, 5]),
        (["--state", "available"], [1, 2, 3, 4]),
        (["--state", "registered"], []),
        (["--unmatched", "--modality", "CT", "--limit", "1"], [1]),
        (["--incomplete", "--name", "doe"], []),
    ],
)
def test_filters(data: Path, arguments: list[str], expected: list[int]) -> None:
    assert expected == listed(data, *arguments)


def failing(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["studies", *arguments])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "monday"], "--since: monday: allowed is a date, as 2026-01-31"),
        (["--until", "2020-13-01"], "--until: 2020-13-01: allowed is a date"),
        (["--since", "2020-01-02", "--until", "2020-01-01"], "--until: 2020-01-01 is before since"),
        (["--state", "done"], "--state: done: allowed are registered, available"),
        (["--sort", "size"], "--sort: size: allowed are arrival, received"),
        (["--limit", "0"], "Invalid value for '--limit'"),
        (["--limit", "many"], "Invalid value for '--limit'"),
        (["--name", "x" * 300], "--name: is longer than 199 characters"),
    ],
)
def test_bad_values_are_wrong_usage(data: Path, arguments: list[str], said: str) -> None:
    done = failing("--data", str(data), *arguments)
    assert 2 == done.exit_code
    assert said in done.output
    assert "Traceback" not in done.output


def test_keys_and_columns(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["studies", "--json", "--data", str(data), "--limit", "1"])
    assert (
        f'[{{"uid":"{ROOT}.1","patient_id":"P1","accession":"A1","modalities":["CT"],"series":1,"instances":1,'
        '"started":"2020-01-03"}]\n'
    ) == done.stdout
    assert "[]\n" == failing("--json", "--data", str(data), "--name", "nobody").stdout
    monkeypatch.setattr(command, "TABLE_ROWS", 2)
    table = failing("--data", str(data)).output
    assert 3 == table.count("Study Instance UID")
    assert "has only data sets in conflict, 1" in table
    assert [1] * 5 == [table.count(f"│ {ROOT}.{number} ") for number in range(1, 5)] + [
        table.count(f"│ {ROOT}.5 ")
    ]
