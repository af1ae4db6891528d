"""An index that publishes to scripted FHIR servers."""

import json
from pathlib import Path
from typing import Any

from index import FhirSettings, Index, PublishSettings, TargetFilter, TargetSettings
from index.database.tables import Study
from support.daemon import eventually
from support.fhir_server import FhirServer
from support.filling import STORAGE

FHIR = FhirSettings(
    base_url="http://127.0.0.1:8104/dicom-web",
    patient_system="http://clinic.example/patients",
    accession_system="http://clinic.example/accessions",
)


class Site:
    """An index that is served, with its targets; `server` is the first one's."""

    def __init__(
        self, data: Path, *targets: TargetSettings, fhir: FhirSettings = FHIR, **options: Any
    ) -> None:
        self.publish = PublishSettings(interval=0, backoff=0, targets=targets)
        self.index = Index(data, STORAGE, fhir=fhir, publish=self.publish, **options)
        self.index.serve()

    def left(self) -> list[tuple[str, str, str, int]]:
        entries = self.index.targets.listing.entries(TargetFilter(), waiting=True)
        return [(one.target, one.name, one.state, one.attempts) for one in entries]

    def states(self) -> set[str]:
        return {state for _, _, state, _ in self.left()}

    def is_published(self) -> bool:
        """Wait until all that is in the index has reached every target, or will not."""

        def is_over() -> bool:
            changed = Study.select(Study.id).where(Study.revision != Study.published)
            if self.index._database.rows(changed):
                return False
            status = self.index.targets.listing.status()
            return not any(one.behind or one.is_filling or one.waiting for one in status)

        return eventually(is_over)

    def close(self) -> None:
        self.index.close()


def target(server: FhirServer, name: str = "ehr", **values: Any) -> TargetSettings:
    own = {"name": name, "url": server.url, "version": server.version, "interval": 0}
    return TargetSettings(**{**own, **values})


def here(data: Path, version: str = "r4") -> dict[str, dict[str, Any]]:
    """Return the resources below `fhir/`, by `Type/id`."""
    folder = data / "fhir" / version
    found = {str(path.relative_to(folder)).removesuffix(".json"): path for path in folder.rglob("*.json")}
    return {name: json.loads(path.read_bytes()) for name, path in found.items()}


def there(server: FhirServer) -> dict[str, dict[str, Any]]:
    """Return the same of the server."""
    return {
        name: {key: value for key, value in one.items() if key != "meta"}
        for name, one in server.resources.items()
    }
