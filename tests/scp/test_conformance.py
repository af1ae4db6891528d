"""The conformance statement: what it says is what the daemon does."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom.uid import UID_dictionary
from pynetdicom import AE
from typer.testing import CliRunner

from index import QUERY_KEYS, WORKLIST_KEYS, DicomWeb, DicomWebSettings
from scp.commands.main import register_commands
from scp.conformance.statement import PROVIDED, STORED, statement
from scp.conformance.statuses import STATUSES
from scp.conformance.web import PREFIX, RESOURCES
from scp.services.notify import AVAILABILITY
from scp.settings.http import HttpSettings
from scp.settings.sections import Configuration, DicomSettings, Peer
from scp.settings.tls import TlsSettings
from scp.wire import status
from support.daemon import Daemon

TREE = Path(__file__).parent.parent.parent
FILE = TREE / "scp/CONFORMANCE.md"
ADVICE = "run `imagingstudyd conformance > scp/CONFORMANCE.md`"


def section(title: str, text: str) -> str:
    """Return what stands below a heading, to the next one of the same level or a higher one."""
    level = title.partition(" ")[0]
    return re.split(
        rf"^#{{1,{len(level)}}} ", text.partition(f"\n{title}\n")[2], maxsplit=1, flags=re.MULTILINE
    )[0]


def test_the_file_is_what_the_command_prints(tmp_path: Path) -> None:
    printed = CliRunner().invoke(register_commands(), ["conformance", "--data", str(tmp_path)])
    assert 0 == printed.exit_code, printed.output
    assert FILE.read_text(encoding="utf-8") == printed.stdout, ADVICE


@pytest.fixture
def everything(start: Callable[..., Daemon]) -> Daemon:
    return start(IMAGINGSTUDYD_DICOM__UNKNOWN_CALLERS="all")


def accepted(daemon: Daemon, proposed: list[str]) -> set[str]:
    """Return the abstract syntaxes that the daemon accepts, 128 in an association."""
    found: set[str] = set()
    for at in range(0, len(proposed), 128):
        ae = AE("SCU")
        for uid in proposed[at : at + 128]:
            ae.add_requested_context(uid)
        association = ae.associate("127.0.0.1", daemon.port)
        assert association.is_established or not association.is_aborted
        found |= {str(context.abstract_syntax) for context in association.accepted_contexts}
        association.release()
    return found


def test_what_is_accepted_is_what_the_tables_have(everything: Daemon) -> None:
    """Every SOP Class of PS3.6 is proposed, with our private one: what is in no table is refused."""
    text = FILE.read_text(encoding="utf-8")
    tables = section("## Overview", text) + section("## Annex: storage SOP Classes", text)
    # Of these we are SCU only.
    listed = {*re.findall(r"\| (1\.2\.840[.\d]+) \|", tables)} - {AVAILABILITY}
    assert {*PROVIDED, *STORED} == listed
    every = {uid for uid, (_, kind, *_) in UID_dictionary.items() if "SOP Class" in kind}
    found = accepted(everything, sorted({*every, *listed, "1.2.3.4.5"}))
    assert {*listed, "1.2.3.4.5"} == found
    assert "1.2.840.10008.5.1.4.1.2.3.1" not in found  # Patient/Study Only, retired
    assert "1.2.840.10008.5.1.4.34.6.1" not in found  # Unified Procedure Step


# A name of scp/wire/status.py that stands in a service is answered by it.
SERVICES = {
    "find": ("C-FIND",),
    "retrieve": ("C-MOVE, C-GET",),
    "mpps": ("N-CREATE, N-SET (MPPS)", "N-GET (MPPS)"),
    "commitment": ("N-ACTION (storage commitment)",),
    "store": ("C-STORE",),
}


@pytest.mark.parametrize(("module", "operations"), SERVICES.items())
def test_every_status_of_a_service_is_in_its_table(module: str, operations: tuple[str, ...]) -> None:
    found = names_of_statuses(TREE / f"scp/services/{module}.py")
    listed = {code for operation in operations for code in STATUSES[operation]}
    assert {f"{code:04X}" for code in found} <= {f"{code:04X}" for code in listed}
    for mapping in {"store": [status.C_STORE], "mpps": [status.PROCEDURE_STEP]}.get(module, []):
        assert {*mapping.values()} <= listed


def test_every_status_of_the_dispatch_is_in_a_table() -> None:
    listed = {code for meanings in STATUSES.values() for code in meanings}
    for name in ("dispatch", "dimse"):
        assert names_of_statuses(TREE / f"scp/upperlayer/{name}.py") <= listed


def names_of_statuses(path: Path) -> set[int]:
    """Return the values of the names that a module imports from scp/wire/status.py."""
    imports = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom))
    names = [alias.name for node in imports if node.module == "scp.wire.status" for alias in node.names]
    return {
        value
        for name in names
        if isinstance(value := getattr(status, name), int)
        and name.isupper()
        and name != "ERROR_COMMENT_LENGTH"
    }


def test_every_key_is_listed() -> None:
    text = FILE.read_text(encoding="utf-8")
    for level, keys in QUERY_KEYS.items():
        rows = section(f"#### Level {level}", text)
        assert {f"({key.tag.group:04X},{key.tag.element:04X})" for key in keys.values()} <= set(
            re.findall(r"\([0-9A-F]{4},[0-9A-F]{4}\)", rows)
        )
    assert all(f"({key.tag.group:04X},{key.tag.element:04X})" in section("#### Modality Worklist", text)
               for key in WORKLIST_KEYS.values())  # fmt: skip


def test_the_configuration_in_force(tmp_path: Path) -> None:
    tls = TlsSettings(certificate=tmp_path, key=tmp_path, ca=tmp_path, minimum_version="1.3", plain=False)
    dicom = DicomSettings(aet="ARCHIVE", tls=tls, transfer_syntaxes=("lossless", "1.2.840.10008.1.2"))
    peers = (Peer(aet="CT|1", host="10.0.0.1", port=104, tls=True, services=("store",)),)
    text = statement(Configuration(dicom=dicom, peers=peers))
    assert "| AE title | ARCHIVE |" in text
    assert "| CT\\|1 | 10.0.0.1:104 | yes | store | as above |" in text
    assert "DICOM without TLS" not in text
    assert "| DICOM over TLS | 0.0.0.0, port 2762 |" in text
    assert "| versions | 1.3 and later |" in text
    orders = section("### Transfer syntaxes that are accepted, the preferred one first", text)
    assert orders.index("JPEG Lossless") < orders.index("Implicit VR Little Endian")
    assert "Explicit VR Little Endian |" not in orders.replace(
        "Encapsulated Uncompressed Explicit VR Little Endian |", ""
    )
    assert "any other" not in orders


def test_dicomweb_is_what_is_routed() -> None:
    nothing = SimpleNamespace(queries=None, retrieval=None)
    routes = DicomWeb(nothing, DicomWebSettings(""), lambda _: 0).routes()
    routed = {(one.path, method) for one in routes for method in one.methods - {"HEAD"}}
    assert routed == {
        (f"{PREFIX}{path}", method) for _, method, _, resources in RESOURCES for path in resources
    }
    assert "DICOMweb" not in statement(Configuration(http=HttpSettings(enabled=False)))
