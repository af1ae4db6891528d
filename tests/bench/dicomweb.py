"""DICOMweb: python -m tests.bench.dicomweb.

A page of 50 studies out of 100,000 by QIDO-RS; objects by WADO-RS against Orthanc's plugin, in turn, round
after round; and reception alone and while a study is streamed without a pause and a search comes each second.
"""

import argparse
import contextlib
import itertools
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx

from bench.growth import STUDIES, fill_studies, prepare
from bench.peers import NO_DELAY, Peer, running
from bench.rates import Work, rate
from support.sender import CT_SIZE, SMALL_SIZE, send, template

MUST, AIM = 0.8, 0.9
RUNS = 5
SECONDS = 5.0
COUNT = 300
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
SEARCHES: dict[str, dict[str, str]] = {
    "all": {},
    "all, from 90,000 on": {"offset": "90000"},
    "as OHIF asks": {"fuzzymatching": "true", "includefield": "00081030,00080060", "PatientName": "*comp*"},
    "by patient": {"PatientID": "P77"},
    "by date": {"StudyDate": "20040101-20041231"},
    "by modality": {"ModalitiesInStudy": "CT"},
}  # fmt: skip
# Search of each second beside reception.
PAUSE = 1.0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _ours(http: int) -> Peer:
    def command(folder: Path, port: int) -> list[str]:
        serve = [sys.executable, "-m", "scp", "serve", "--data", str(folder), "--host", "127.0.0.1"]
        return [*serve, "--port", str(port), "--http-port", str(http)]

    return Peer("imagingstudyd", command, {"IMAGINGSTUDYD_HTTP__LOCAL": "all"})


def _orthanc(http: int) -> Peer:
    def command(folder: Path, port: int) -> list[str]:
        settings = {
            "DicomPort": port,
            "HttpPort": http,
            "StorageDirectory": str(folder / "storage"),
            "DicomCheckCalledAet": False,
            "Plugins": [PLUGIN],
            "DicomWeb": {"Enable": True, "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        return ["Orthanc", str(folder / "orthanc.json")]

    return Peer("Orthanc", command, NO_DELAY)


@contextlib.contextmanager
def _serving(make: Callable[[int], Peer], folder: Path) -> Iterator[tuple[tuple[str, int], str]]:
    """Yield the address for DICOM, and the URL of DICOMweb."""
    http = _free_port()
    with running(make(http), folder) as receiver:
        url = f"http://127.0.0.1:{http}/dicom-web"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{url}/studies?limit=1", timeout=60)
                break
        yield receiver.address, url


def _get(url: str, accept: str) -> tuple[float, int]:
    """Return seconds and bytes of a request by curl, which drops what comes."""
    done = subprocess.run(
        [
            "curl",
            "-sf",
            "-o",
            "/dev/null",
            "-w",
            "%{time_total} %{size_download}",
            "-H",
            f"Accept: {accept}",
            url,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    took, size = done.stdout.split()
    return float(took), int(size)


def searches(folder: Path, count: int, runs: int) -> Iterator[tuple[str, float]]:
    """Yield the milliseconds of each search among so many studies."""
    prepare(folder, 0)
    fill_studies(folder, count)
    with _serving(_ours, folder) as (_, url), httpx.Client(timeout=600) as client:
        for name, parameters in SEARCHES.items():
            times = []
            for _ in range(runs + 1):
                began = time.perf_counter()
                client.get(f"{url}/studies", params={"limit": "50", **parameters}).raise_for_status()
                times.append((time.perf_counter() - began) * 1000)
            yield name, statistics.median(times[1:])


def retrieval(folder: Path, size: int, count: int, runs: int) -> dict[str, dict[str, float]]:
    """Return MB a second of a study's objects, and objects a second of its metadata, by contender."""
    source = template(size)
    study = f"/studies/{source.study}"
    rates: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        urls = {}
        for number, make in enumerate((_ours, _orthanc)):
            address, url = stack.enter_context(_serving(make, folder / str(number)))
            send(address, source, range(count))
            urls[make(0).name] = url
        for name, url in urls.items():
            rates[name] = {"objects": [], "metadata": []}
            _get(url + study, AS_STORED)  # files are in memory then
        for (name, url), _ in itertools.product(urls.items(), range(runs)):
            took, received = _get(url + study, AS_STORED)
            if received < count * size:
                raise RuntimeError(f"{name} sent {received} bytes")
            rates[name]["objects"].append(received / took / 1e6)
            rates[name]["metadata"].append(
                count / _get(f"{url}{study}/metadata", "application/dicom+json")[0]
            )
    return {
        name: {kind: statistics.median(values) for kind, values in kinds.items()}
        for name, kinds in rates.items()
    }


def reception(folder: Path, work: Work, count: int, runs: int, seconds: float) -> tuple[float, float]:
    """Return instances a second that we receive: alone, and with a stream and a search each second."""
    alone, beside = [], []
    studies = itertools.count(100, 10)
    with _serving(_ours, folder) as (address, url):
        source = template(CT_SIZE)
        send(address, source, range(count))
        for _ in range(runs):
            alone.append(rate(address, work, next(studies), seconds))
            with _streaming(f"{url}/studies/{source.study}"), _searching(f"{url}/studies?limit=50"):
                beside.append(rate(address, work, next(studies), seconds))
    return statistics.median(alone), statistics.median(beside)


@contextlib.contextmanager
def _again_and_again(work: Callable[[], object], pause: float) -> Iterator[None]:
    stopping, began = threading.Event(), threading.Event()

    def run() -> None:
        while not stopping.wait(pause if began.is_set() else 0):
            began.set()
            work()

    thread = threading.Thread(target=run)
    thread.start()
    began.wait()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _streaming(url: str) -> contextlib.AbstractContextManager[None]:
    # At the rate of a viewer's line of a gigabit; without a limit it measures who gets the processor.
    command = ["curl", "-sf", "--limit-rate", "100M", "-o", "/dev/null", "-H", f"Accept: {AS_STORED}", url]
    return _again_and_again(lambda: subprocess.run(command, check=True), 0)


def _searching(url: str) -> contextlib.AbstractContextManager[None]:
    return _again_and_again(lambda: httpx.get(url, timeout=600).raise_for_status(), PAUSE)


def _verdict(ratio: float) -> str:
    return "aim" if ratio >= AIM else "must" if ratio >= MUST else "MISSED"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--studies", type=int, default=STUDIES, help="studies that are searched")
    parser.add_argument("--quick", action="store_true", help="one measurement of a few: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args(arguments)
    count, seconds = COUNT, SECONDS
    sizes = ((CT_SIZE, count), (SMALL_SIZE, 3 * count))
    one = Work(nagle=False, associations=1, size=CT_SIZE)
    works = (one, replace(one, size=SMALL_SIZE), replace(one, associations=4))
    if options.quick:
        options.runs, options.studies, count, seconds = 1, 500, 5, 0.3
        sizes, works = ((SMALL_SIZE, count),), works[:1]
    top = Path(tempfile.mkdtemp(prefix="bench", dir=options.folder))
    try:
        print(f"| QIDO-RS, 50 of {options.studies} studies | ms |\n|---|---:|")
        for name, took in searches(top / "studies", options.studies, options.runs):
            print(f"| {name} | {took:.0f} |")
        print("\n| WADO-RS | ours | Orthanc | ratio |\n|---|---:|---:|---:|")
        for size, many in sizes:
            ours, other = retrieval(Path(tempfile.mkdtemp(dir=top)), size, many, options.runs).values()
            for kind, unit in (("objects", "MB a second"), ("metadata", "instances a second")):
                ratio = ours[kind] / other[kind]
                row = (
                    f"| {kind} of {many} of {size // 1000} kB, {unit} | {ours[kind]:.0f} | {other[kind]:.0f}"
                )
                print(f"{row} | {ratio:.2f} |")
        print("\n| reception | alone, a second | with a stream and searches | ratio | must | aim | |")
        print("|---|---:|---:|---:|---:|---:|---|")
        for one in works:
            folder = Path(tempfile.mkdtemp(dir=top))
            alone, beside = reception(folder, one, count, options.runs, seconds)
            ratio = beside / alone
            row = f"| {one} | {alone:.0f} | {beside:.0f} | {ratio:.2f}"
            print(f"{row} | {MUST:g} | {AIM:g} | {_verdict(ratio)} |")
    finally:
        shutil.rmtree(top)


if __name__ == "__main__":
    main()
