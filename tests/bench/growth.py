"""How speed depends on size: python -m tests.bench.growth.

The last 1,000 of 20,000 instances of one study against its first 1,000, and 1,000 instances into an index of
1,000,000 against an empty one. Small instances, one association, power-loss, resources are published.
"""

import argparse
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.peers import ours, running
from support.sender import Sender, template

BATCH = 1000
STUDY = 20_000
INDEX = 1_000_000
# In the index that is filled: as in a CT study of today.
INSTANCES_PER_SERIES = 250
SERIES_PER_STUDY = 4
RUNS = 5


def send(sender: Sender, study: int, numbers: range) -> float:
    """Send these instances of a study; return the seconds."""
    message = sender.message(template(study=study))
    began = time.perf_counter()
    for number in numbers:
        message.become(number)
        status = sender.store(message)
        if status:
            raise RuntimeError(f"answered {status:04X}")
    return time.perf_counter() - began


def of_one_study(folder: Path, count: int, batch: int) -> float:
    """Return the time of a study's last batch divided by that of its first."""
    with running(ours(), folder / "study") as daemon:
        sender = Sender(daemon.address)
        send(sender, 2, range(10))  # warm-up
        first = send(sender, 1, range(batch))
        send(sender, 1, range(batch, count - batch))
        last = send(sender, 1, range(count - batch, count))
        sender.release()
    return last / first


def fill(data: Path, count: int) -> None:
    """Multiply the one instance of an index by SQL: rows as reception writes them, without objects.

    Ids, UIDs and paths are made from the row's number. All other columns are copied.
    """
    series, studies = -(-count // INSTANCES_PER_SERIES), -(-count // INSTANCES_PER_SERIES // SERIES_PER_STUDY)
    of_study, of_series = f"2 + (n - 1) / {SERIES_PER_STUDY}", f"2 + (n - 1) / {INSTANCES_PER_SERIES}"
    in_study = f"2 + (n - 1) / {INSTANCES_PER_SERIES * SERIES_PER_STUDY}"
    number = "printf('%012d', n)"
    tables: dict[str, tuple[int, dict[str, str]]] = {
        "patient": (studies, {"key": f"key || {number}"}),
        "study": (studies, {"uid": "uid || '.' || n", "revision": "1", "published": "1"}),
        "study_variant": (
            studies,
            {"study_id": "n + 1", "patient_id": "n + 1", "digest": f"digest || {number}"},
        ),
        "series": (series, {"study_id": of_study, "uid": "uid || '.' || n"}),
        "series_variant": (series, {"series_id": "n + 1", "digest": f"digest || {number}"}),
        "instance": (
            count,
            {
                "uid": "uid || '.' || n",
                "series_id": of_series,
                "study_variant_id": in_study,
                "series_variant_id": of_series,
                "path": f"printf('objects/%06x/%03x.dcm', {1 << 20} + n / 4096, n % 4096)",
            },
        ),
    }
    database = sqlite3.connect(data / "index.sqlite")
    with database:
        for table, (rows, differing) in tables.items():
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[1] != "id"]
            values = ", ".join(differing.get(column, column) for column in columns)
            counted = f"SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {rows}"  # noqa: S608  our own names
            database.execute(
                f"WITH RECURSIVE number(n) AS ({counted}) "  # noqa: S608
                f"INSERT INTO {table} (id, {', '.join(columns)}) "
                f"SELECT n + 1, {values} FROM {table}, number WHERE {table}.id = 1"
            )
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def prepare(data: Path, count: int) -> None:
    """Make a data directory with `count` instances in its index, or with one where `count` is 0."""
    with running(ours(), data) as daemon:
        sender = Sender(daemon.address)
        send(sender, 1, range(1))
        sender.release()
    if count:
        fill(data, count)


def into(data: Path, study: int, batch: int) -> tuple[float, float]:
    """Return the seconds of a start, and those of one batch of a new study."""
    began = time.perf_counter()
    with running(ours(), data) as daemon:
        ready = time.perf_counter() - began
        sender = Sender(daemon.address)
        send(sender, study + 1, range(10))
        took = send(sender, study, range(batch))
        sender.release()
    return ready, took


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--study", type=int, default=STUDY, help="instances of the one study")
    parser.add_argument("--index", type=int, default=INDEX, help="instances in the full index")
    parser.add_argument("--batch", type=int, default=BATCH, help="instances whose time is compared")
    parser.add_argument("--quick", action="store_true", help="one run of a hundredth: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args(arguments)
    if options.quick:
        options.runs, options.batch, options.study, options.index = 1, 20, 200, 10_000
    folder = Path(tempfile.mkdtemp(prefix="bench", dir=options.folder))
    try:
        ratios = []
        for number in range(options.runs):
            ratios.append(of_one_study(folder / str(number), options.study, options.batch))
            shutil.rmtree(folder / str(number))
        print("| work | ratio of times | must | aim |\n|---|---:|---:|---:|")
        print(
            f"| last {options.batch} of {options.study} instances of one study against its first "
            f"| {statistics.median(ratios):.2f} | 1.2 | 1.05 |"
        )
        prepare(folder / "empty", 0)
        prepare(folder / "full", options.index)
        times: dict[str, list[tuple[float, float]]] = {"empty": [], "full": []}
        for number in range(options.runs):
            for name, measured in times.items():
                measured.append(into(folder / name, 10 + 2 * number, options.batch))
        starts, medians = (
            {name: statistics.median(one[part] for one in measured) for name, measured in times.items()}
            for part in (0, 1)
        )
        print(
            f"| {options.batch} into an index of {options.index} instances against an empty one "
            f"| {medians['full'] / medians['empty']:.2f} | 1.2 | 1.05 |"
        )
        print(f"\nStart until it listens: {starts['empty']:.2f} s empty, {starts['full']:.2f} s full.")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
