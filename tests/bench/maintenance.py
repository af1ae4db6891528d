"""Instances a second of import, verify, reindex and backup, beside reception.

python -m tests.bench.maintenance
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.peers import ours, running
from support.dicom import part10
from support.sender import Sender, template

COUNT = 100_000
INSTANCES_PER_STUDY = 1000
RECEIVED = 3000


def make(folder: Path, count: int) -> None:
    """Write `count` small Part 10 files, in studies of 1,000."""
    for first in range(0, count, INSTANCES_PER_STUDY):
        source = template(study=1 + first // INSTANCES_PER_STUDY)
        study = folder / source.study
        study.mkdir(parents=True)
        for number in range(min(INSTANCES_PER_STUDY, count - first)):
            uid = source.uid(number)
            (study / f"{number}.dcm").write_bytes(part10(source.data_set(number), uid))


def receive(folder: Path, count: int) -> float:
    """Send `count` instances over one association; return the seconds, without the last publication."""
    with running(ours(), folder / "received") as daemon:
        sender = Sender(daemon.address)
        message = sender.message(template(study=1))
        began = time.perf_counter()
        for number in range(count):
            message.become(number)
            if status := sender.store(message):
                raise RuntimeError(f"answered {status:04X}")
        took = time.perf_counter() - began
        sender.release()
    return took


def command(data: Path, *arguments: str) -> float:
    """Run a command of imagingstudyd; return the seconds."""
    os.sync()
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "scp", *arguments, "--data", str(data)], capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
    return time.perf_counter() - began


def copy(source: Path, target: Path) -> float:
    """Copy files as `cp -r` and `sync` do, which an import is compared with; return the seconds."""
    os.sync()
    began = time.perf_counter()
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    os.sync()
    return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--quick", action="store_true", help="few instances: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args(arguments)
    count, received = (50, 20) if options.quick else (options.count, RECEIVED)
    folder = Path(tempfile.mkdtemp(prefix="bench", dir=options.folder))
    data = folder / "data"
    print("| what | instances | seconds | instances a second |\n|---|---:|---:|---:|")

    def print_row(what: str, instances: int, seconds: float) -> None:
        print(f"| {what} | {instances} | {seconds:.1f} | {instances / seconds:.0f} |", flush=True)

    try:
        print_row("reception, 1 association", received, receive(folder, received))
        make(folder / "files", count)
        files = str(folder / "files")
        print_row("cp -r and sync", count, copy(folder / "files", folder / "copy"))
        print_row("import, resources included", count, command(data, "import", files))
        print_row("import again, nothing new", count, command(data, "import", files))
        print_row("verify", count, command(data, "verify"))
        print_row("reindex, resources included", count, command(data, "reindex"))
        print_row("backup", count, command(data, "backup", str(folder / "backup")))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
