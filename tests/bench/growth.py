"""How speed depends on size: python -m tests.bench.growth.

The last 1,000 of 20,000 instances of one study against its first 1,000, and 1,000 instances into an index of
1,000,000 against an empty one. Small instances, one association, power-loss, resources are published.

Then the first page of `studies` at 100,000 studies, by each filter and order.
"""

import argparse
import collections
import dataclasses
import datetime as dt
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from bench.peers import ours, running
from index import Index, RetentionSettings, StorageSettings, StudyFilter
from index.publication.listing import Listed, as_they_are, save
from support.sender import Sender, template

BATCH = 1000
STUDY = 20_000
INDEX = 1_000_000
# In the index that is filled: as in a CT study of today.
INSTANCES_PER_SERIES = 250
SERIES_PER_STUDY = 4
RUNS = 5
STUDIES = 100_000
PAGE = 50
# Rows of the list that are made in one transaction.
FILL = 5000
# A few patients, names, days and modalities of those of 100,000 studies: some of few studies, some of many.
FILTERS: tuple[dict[str, str], ...] = (
    {},
    *({"sort": sort} for sort in ("-arrival", "-received", "started", "-started", "name", "patient")),
    {"patient": "P77"},
    {"accession": "A77*"},
    {"name": "müller^hans77"},
    {"name": "m*"},
    {"name": "*77"},
    {"name": "m*", "sort": "name", "modality": "CT"},
    {"modality": "US"},
    {"modality": "CT", "sort": "-started"},
    {"since": "2026-01-01", "sort": "-started"},
    {"since": "2001-01-01", "until": "2001-01-02"},
    {"state": "registered"},
)


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


def fill(
    data: Path, count: int, instances: int = INSTANCES_PER_SERIES, per_study: int = SERIES_PER_STUDY
) -> None:
    """Multiply the one instance of an index by SQL: rows as reception writes them, without objects.

    Ids, UIDs and paths are made from the row's number. All other columns are copied. `instances` are those
    of a series, `per_study` the series of a study.
    """
    series, studies = -(-count // instances), -(-count // instances // per_study)
    of_study, of_series = f"2 + (n - 1) / {per_study}", f"2 + (n - 1) / {instances}"
    in_study = f"2 + (n - 1) / {instances * per_study}"
    number = "printf('%012d', n)"
    tables: dict[str, tuple[int, dict[str, str]]] = {
        "patient": (studies, {"key": f"key || {number}"}),
        "study": (studies, {"uid": "uid || '.' || n", "revision": "1", "published": "1"}),
        "study_variant": (
            studies,
            {"study_id": "n + 1", "patient_id": "n + 1", "digest": f"digest || {number}"},
        ),
        "study_listing": (studies, {}),
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


def fill_studies(data: Path, count: int) -> None:
    """Make rows of published studies with one series and one instance each, as publication makes them."""
    with Index(data, StorageSettings(watermark=0, durability="process-crash")) as index:
        database = index._database
        (first,) = as_they_are(database, [1])
        index.publish()
    fill(data, count, 1, 1)
    with sqlite3.connect(data / "index.sqlite") as connection:
        connection.execute("DELETE FROM study_listing WHERE id > 1")
    with Index(data, StorageSettings(watermark=0, durability="process-crash")) as index:
        database = index._database
        for start in range(2, count + 2, FILL):
            with database.writing(durable=False):
                save(
                    database,
                    [_listed(first, number) for number in range(start, min(start + FILL, count + 2))],
                )


def _listed(first: Listed, number: int) -> Listed:
    """Return a made-up study: 26,000 days, 20 family names, a rare and a common modality."""
    day = dt.date(1990, 1, 1) + dt.timedelta(days=number * 7919 % 13_000)
    modality = "US" if number % 10_000 == 0 else "CT"
    summary = dataclasses.replace(
        first.summary,
        uid=f"{first.summary.uid}.{number - 1}",
        patient_id=f"P{number // 3}",
        accession=f"A{number}",
        modalities=(modality,),
        started=day.isoformat(),
    )
    family = ("Müller", "Doe", "Łódź", "O'Neil", "Yamada")[number % 5]
    return dataclasses.replace(
        first, id=number, revision=1, summary=summary, name=f"{family}^Hans{number}", last_received=number
    )


def lists(data: Path) -> list[tuple[str, float]]:
    """Return the milliseconds of the first page by each filter, and of `retain` that deletes nothing."""
    rules = RetentionSettings(days=36500, size=1 << 60)
    with Index(data, StorageSettings(watermark=0), retention=rules) as index:
        index.studies()[:1]
        measured = []
        for asked in FILTERS:
            first = partial(_first_page, index, StudyFilter(**asked))
            took = statistics.median(_milliseconds(first) for _ in range(RUNS))
            measured.append((" ".join(f"--{key} {value}" for key, value in asked.items()), took))
        measured.append(("retain", _milliseconds(lambda: index.retain(dry_run=True))))
        measured.append(("all studies", _milliseconds(lambda: collections.deque(index.find_studies(), 0))))
    return measured


def _first_page(index: Index, wanted: StudyFilter) -> None:
    collections.deque(islice(index.find_studies(wanted), PAGE), 0)


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


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
    parser.add_argument("--studies", type=int, default=STUDIES, help="studies in the list")
    parser.add_argument("--batch", type=int, default=BATCH, help="instances whose time is compared")
    parser.add_argument("--quick", action="store_true", help="one run of a hundredth: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args(arguments)
    if options.quick:
        options.runs, options.batch, options.study, options.index = 1, 20, 200, 10_000
        options.studies = 1000
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
        prepare(folder / "studies", 0)
        fill_studies(folder / "studies", options.studies)
        print(f"\n| first {PAGE} of {options.studies} studies | ms |\n|---|---:|")
        for asked, took in lists(folder / "studies"):
            print(f"| {asked or 'no filter'} | {took:.1f} |")
        print(f"\nStart until it listens: {starts['empty']:.2f} s empty, {starts['full']:.2f} s full.")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
