"""How late a FHIR server has what was sent: python -m tests.bench.publishing.

First the seconds from the last answer of an association until a local server has accepted the study with all
of its instances. Then the server is down while studies come, and the seconds from its return until it has
them all. The server is in this process, in Python, and takes its share of the CPU.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.peers import Peer, ours, running
from support.fhir_server import FhirServer, Request, Response
from support.sender import Sender, template

# Studies that are sent to a server that answers, with so many instances each; studies that wait.
STUDIES, INSTANCES, WAITING = 100, 20, 1000
# Between two checks, in seconds: of one study, and of all, which takes longer.
CHECK_INTERVAL, ALL_INTERVAL = 0.001, 0.2
MOST_SECONDS = 600.0
# Seconds that the server is down after the last study, so that the daemon looks seldom.
OUTAGE_SECONDS = 60.0
MUST_LAG, AIM_LAG = 1.0, 0.1
MUST_CATCH_UP, AIM_CATCH_UP = 60.0, 30.0


def send_study(address: tuple[str, int], study: int, instances: int) -> tuple[str, float]:
    """Send a study over an association; return its UID, and when the last instance was answered."""
    source = template(study=study)
    sender = Sender(address)
    message = sender.message(source)
    for number in range(instances):
        message.become(number)
        if status := sender.store(message):
            raise RuntimeError(f"answered {status:04X}")
    answered = time.perf_counter()
    sender.release()
    return source.study, answered


def wait_until(is_so: Callable[[], bool], interval: float = CHECK_INTERVAL) -> None:
    """Wait for it. Raises RuntimeError where that takes too long."""
    until = time.monotonic() + MOST_SECONDS
    while not is_so():
        if time.monotonic() > until:
            raise RuntimeError(f"not there after {MOST_SECONDS:g} s")
        time.sleep(interval)


def lags(server: FhirServer, address: tuple[str, int], studies: int, instances: int) -> list[float]:
    """Return for each study the seconds until the server has it with every instance."""
    found = []
    for study in range(1, studies + 1):
        uid, answered = send_study(address, study, instances)
        name = f"ImagingStudy/{uid}"
        wait_until(lambda n=name: server.resources.get(n, {}).get("numberOfInstances") == instances)  # type: ignore[misc]
        found.append(time.perf_counter() - answered)
    return found


def caught_up(server: FhirServer, address: tuple[str, int], first: int, studies: int, outage: float) -> float:
    """Send studies while the server is down; return the seconds from its return until it has them all."""
    is_down = True

    def down(_: Request) -> Response | None:
        return Response(503) if is_down else None

    before = len(server.of("ImagingStudy"))
    server.script = down
    for study in range(first, first + studies):
        send_study(address, study, 1)
    time.sleep(outage)
    is_down, began = False, time.perf_counter()
    wait_until(lambda: len(server.of("ImagingStudy")) == before + studies, ALL_INTERVAL)
    return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--instances", type=int, default=INSTANCES, help="of each study")
    parser.add_argument("--waiting", type=int, default=WAITING, help="studies that come during an outage")
    parser.add_argument("--quick", action="store_true", help="a few studies: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args(arguments)
    studies, waiting, outage = options.studies, options.waiting, OUTAGE_SECONDS
    if options.quick:
        studies, waiting, outage = 2, 4, 0.0
    folder = Path(tempfile.mkdtemp(prefix="bench", dir=options.folder))
    server = FhirServer()
    config = folder / "config.toml"
    config.write_text(f'[[publish.targets]]\nname = "ehr"\nurl = "{server.url}"\n')
    own = ours()

    def command(data: Path, port: int) -> list[str]:
        return [*own.command(data, port), "--config", str(config)]

    print("| published to a local FHIR server | seconds | must | aim |\n|---|---:|---:|---:|")
    try:
        with running(Peer(own.name, command, own.environment), folder / "data") as daemon:
            found = lags(server, daemon.address, studies, options.instances)
            median, most = statistics.median(found), max(found)
            what = f"from the last C-STORE's answer to the study there, {studies} studies"
            print(f"| {what}: median | {median:.3f} | {MUST_LAG:g} | {AIM_LAG:g} |")
            print(f"| {what}: longest | {most:.3f} | {MUST_LAG:g} | - |")
            seconds = caught_up(server, daemon.address, studies + 1, waiting, outage)
            what = f"{waiting} studies after an outage, from the server's return"
            print(f"| {what} | {seconds:.1f} | {MUST_CATCH_UP:g} | {AIM_CATCH_UP:g} |")
    finally:
        server.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
