"""@medplum/fhir-router: a FHIR server that nobody here wrote. It validates, and refuses what is wrong."""

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from support.daemon import WITH_US

TESTS = Path(__file__).parent.parent
KINDS = ("ImagingStudy", "Patient", "Practitioner", "Organization", "Endpoint", "ServiceRequest", "Location")


class Medplum:
    """A process of it, whose resources outlive it in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, again at the same port."""
        script = TESTS / "support/medplum_server.cjs"
        command = [
            *WITH_US,
            "node",
            str(script),
            str(TESTS / "node_modules"),
            str(self.port),
            str(self._file),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/fhir"

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()

    def get(self, path: str) -> Any:
        """Return what it answers."""
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=60) as response:  # noqa: S310  our own
            return json.load(response)

    def resources(self) -> dict[str, dict[str, Any]]:
        """Return all that it has by `Type/id`, without what the server adds."""
        found = {}
        for kind in KINDS:
            for entry in self.get(f"{kind}?_count=1000").get("entry", ()):
                resource = entry["resource"]
                resource.pop("meta", None)
                found[f"{kind}/{resource['id']}"] = resource
        return found
