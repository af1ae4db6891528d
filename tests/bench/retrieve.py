"""Instances a second by C-MOVE to storescp, and by C-GET, against dcmqrscp: python -m tests.bench.retrieve.

Both hold the same study and send it to the same storescp, which keeps nothing, in turn, round after round. A
ratio is one of medians. DCMTK runs with TCP_NODELAY=1: without it, dcmqrscp waits 40 ms for each instance.
"""

import argparse
import contextlib
import itertools
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.peers import NO_DELAY, Peer, ours, running
from bench.rates import Work, rate
from support.sender import CT_SIZE, SMALL_SIZE, send, template

MUST, AIM = 0.7, 1.0
RUNS = 5
SECONDS = 3.0
# Instances by their size in bytes: a measurement takes about a second.
WORK = {SMALL_SIZE: 1000, CT_SIZE: 300}
DESTINATION = "STORESCP"
Retrieve = Callable[[int, str, str], float]
AETS = ("IMAGINGSTUDYD", "ANY-SCP")


def _dcmqrscp(folder: Path, port: int, destination: int) -> list[str]:
    (folder / "storage").mkdir()
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
        f"HostTable BEGIN\ndest = ({DESTINATION}, localhost, {destination})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nANY-SCP {folder}/storage RW (100000, 1000gb) ANY\nAETable END\n"
    )
    return ["dcmqrscp", "-c", str(folder / "dcmqrscp.cfg"), str(port)]


def _contenders(destination: int) -> list[Peer]:
    own = ours("process-crash")

    def command(folder: Path, port: int) -> list[str]:
        file = folder / "peers.toml"
        file.write_text(
            f'[[peers]]\naet = "{DESTINATION}"\nhost = "127.0.0.1"\nport = {destination}\n'
            '[[peers]]\naet = "MOVESCU"\n[[peers]]\naet = "GETSCU"\n'
        )
        return [*own.command(folder, port), "--config", str(file)]

    dcmqrscp = Peer("dcmqrscp", lambda folder, port: _dcmqrscp(folder, port, destination), NO_DELAY)
    return [Peer("imagingstudyd", command, own.environment), dcmqrscp]


@contextlib.contextmanager
def _destination(folder: Path) -> Iterator[int]:
    peer = Peer("storescp", lambda _, port: ["storescp", "--ignore", "-pdu", "131072", str(port)], NO_DELAY)
    with running(peer, folder) as receiver:
        yield receiver.address[1]


def _move(port: int, study: str, called: str) -> float:
    """Return how long a C-MOVE of a study takes, in seconds."""
    return _retrieve(port, study, called, "movescu", "-aem", DESTINATION)


def _get(port: int, study: str, called: str) -> float:
    """Return how long a C-GET of a study takes, in seconds; getscu drops what comes."""
    return _retrieve(port, study, called, "getscu", "--ignore", "-pdu", "131072")


def _retrieve(port: int, study: str, called: str, *command: str) -> float:
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
    began = time.perf_counter()
    done = subprocess.run(
        [command[0], "-S", *command[1:], "-aec", called, *keys, "127.0.0.1", str(port)],
        capture_output=True,
        text=True,
        env={**os.environ, **NO_DELAY},
        check=True,
    )
    if done.stderr:
        raise RuntimeError(done.stderr)
    return time.perf_counter() - began


def measure(folder: Path, size: int, count: int, runs: int, retrieve: Retrieve) -> dict[str, list[float]]:
    """Return instances a second of each measurement, by contender."""
    source = template(size)
    rates: dict[str, list[float]] = {}
    with ExitStack() as stack:
        destination = stack.enter_context(_destination(folder / "storescp"))
        contenders = []
        for number, peer in enumerate(_contenders(destination)):
            address = stack.enter_context(running(peer, folder / str(number))).address
            send(address, source, range(count))
            contenders.append((peer.name, address[1], AETS[number]))
        for name, port, aet in contenders:
            retrieve(port, source.study, aet)  # files and tables are in memory then
            rates[name] = []
        for _ in range(runs):
            for name, port, aet in contenders:
                rates[name].append(count / retrieve(port, source.study, aet))
    return rates


def reception(folder: Path, size: int, count: int, runs: int, seconds: float) -> dict[str, list[float]]:
    """Return instances a second that we receive, alone and while C-MOVEs are sent without a pause."""
    work, studies = Work(nagle=False, associations=1, size=size), itertools.count(10)
    rates: dict[str, list[float]] = {"alone": [], "while sending": []}
    with ExitStack() as stack:
        destination = stack.enter_context(_destination(folder / "storescp"))
        address = stack.enter_context(running(_contenders(destination)[0], folder / "0")).address
        source = template(size)
        send(address, source, range(count))
        for _ in range(runs):
            rates["alone"].append(rate(address, work, next(studies), seconds))
            with _moving(address[1], source.study):
                rates["while sending"].append(rate(address, work, next(studies), seconds))
    return rates


@contextlib.contextmanager
def _moving(port: int, study: str) -> Iterator[None]:
    """Move a study again and again."""
    stopping, began = threading.Event(), threading.Event()

    def run() -> None:
        while not stopping.is_set():
            began.set()
            _move(port, study, AETS[0])

    thread = threading.Thread(target=run)
    thread.start()
    began.wait()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _verdict(ratio: float) -> str:
    return "aim" if ratio >= AIM else "must" if ratio >= MUST else "MISSED"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="measurements of each, of which the median counts"
    )
    parser.add_argument("--quick", action="store_true", help="one measurement of a few: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args(arguments)
    top = Path(tempfile.mkdtemp(prefix="bench", dir=options.folder))
    print("| retrieve | ours, a second | dcmqrscp, a second | ratio | must | aim | |")
    print("|---|---:|---:|---:|---:|---:|---|")
    both: dict[str, Retrieve] = {"C-MOVE to storescp": _move, "C-GET by getscu": _get}
    for (operation, retrieve), (size, count) in itertools.product(both.items(), WORK.items()):
        runs, many = (1, 5) if options.quick else (options.runs, count)
        rates = measure(Path(tempfile.mkdtemp(dir=top)), size, many, runs, retrieve)
        own, other = (statistics.median(values) for values in rates.values())
        ratio = own / other
        name = f"{operation}, {many} of {size // 1000} kB"
        print(f"| {name} | {own:.0f} | {other:.0f} | {ratio:.2f} | {MUST:g} | {AIM:g} | {_verdict(ratio)} |")
    print("\n| reception by 1 association | alone, a second | while sending | ratio | must | aim | |")
    print("|---|---:|---:|---:|---:|---:|---|")
    for size, count in WORK.items():
        runs, many, seconds = (1, 5, 0.3) if options.quick else (options.runs, count, SECONDS)
        rates = reception(Path(tempfile.mkdtemp(dir=top)), size, many, runs, seconds)
        other, own = (statistics.median(values) for values in rates.values())
        row = f"| {size // 1000} kB | {other:.0f} | {own:.0f} | {own / other:.2f}"
        print(f"{row} | {MUST:g} | {AIM:g} | {_verdict(own / other)} |")
    shutil.rmtree(top)


if __name__ == "__main__":
    main()
