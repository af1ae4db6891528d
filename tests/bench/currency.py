"""Seconds from the last answer of an association until the study's resource counts every instance.

python -m tests.bench.currency
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.peers import ours, running
from support.sender import Sender, Template, template

SIZES = (100, 1000, 5000, 20_000, 40_000)
RUNS = 5
# Between two checks of the file, in seconds. A check is one stat, until the file has changed.
CHECK_INTERVAL = 0.002
MOST_SECONDS = 120.0


def until_current(data: Path, address: tuple[str, int], source: Template, numbers: range) -> float:
    """Send these instances and release; return the seconds until the resource counts the last of them."""
    path = data / "fhir" / "dstu2" / "ImagingStudy" / f"{source.study}.json"
    sender = Sender(address)
    message = sender.message(source)
    for number in numbers:
        message.become(number)
        if status := sender.store(message):
            raise RuntimeError(f"answered {status:04X}")
    answered = time.perf_counter()
    sender.release()
    seen = 0
    while time.perf_counter() - answered < MOST_SECONDS:
        changed = path.stat().st_mtime_ns if path.exists() else 0
        now = time.perf_counter()
        if changed != seen:
            seen = changed
            if json.loads(path.read_bytes())["numberOfInstances"] == numbers.stop:
                return now - answered
        time.sleep(CHECK_INTERVAL)
    raise RuntimeError(f"{path} is not current after {MOST_SECONDS} s")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="instances of the study")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--quick", action="store_true", help="one run of small studies: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args(arguments)
    sizes, runs = ((10, 100), 1) if options.quick else (sorted(options.sizes), options.runs)
    folder = Path(tempfile.mkdtemp(prefix="bench", dir=options.folder))
    print("| instances of the study | seconds until current | must | aim |\n|---:|---:|---:|---:|")
    try:
        with running(ours(), folder / "data") as daemon:
            source, had = template(study=1), 0
            for size in sizes:
                # Each of the last ones has an association of its own: its end makes the whole resource anew.
                ends = [size - runs + number + 1 for number in range(runs)]
                seconds = []
                for end in ends:
                    seconds.append(until_current(folder / "data", daemon.address, source, range(had, end)))
                    had = end
                must = 1 if size <= 20_000 else 5
                print(f"| {size} | {statistics.median(seconds):.3f} | {must} | {must / 10:g} |")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
