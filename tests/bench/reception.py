"""Instances a second against other receivers, as a table of ratios: python -m tests.bench.reception.

All receivers of a workload are measured in turn, round after round, so that other work of the machine affects
all of them alike. A ratio is one of medians. Between two measurements the disks are synced. Files are emptied
between workloads and removed at the end: for a minute after a removal ext4 searches for inodes that were not
freed lately, and then every new file takes 0.3 ms more.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import peers
from bench.peers import Peer, Running, ours, running
from bench.rates import Work, rate
from support.sender import CT_SIZE, SMALL_SIZE

RUNS = 5
SECONDS = 3.0


@dataclass(frozen=True)
class Row:
    """A line of the table: a workload, the other receiver, and the ratios that must and should be reached."""

    work: Work
    peer: Peer
    must: float
    aim: float
    durability: str = "power-loss"

    @property
    def name(self) -> str:
        """The text in which `--rows` searches."""
        return f"{self.work} | {self.peer.name} | {self.durability}"


def _rows() -> list[Row]:
    installed = (peers.STORESCP_INSTALLED, peers.DCMQRSCP_INSTALLED, peers.ORTHANC_INSTALLED)
    rows = [
        Row(Work(nagle=True, associations=1, size=size), peer, must, aim)
        for size, must, aim in ((SMALL_SIZE, 10, 25), (CT_SIZE, 6, 12))
        for peer in installed
    ]
    one = [Work(nagle=False, associations=1, size=size) for size in (CT_SIZE, SMALL_SIZE)]
    four = [Work(nagle=False, associations=4, size=size) for size in (CT_SIZE, SMALL_SIZE)]
    rows += [Row(one[0], peers.ORTHANC, 2.8, 4), Row(one[1], peers.ORTHANC, 3.8, 5)]
    rows += [Row(four[0], peers.ORTHANC, 2.5, 4), Row(four[1], peers.ORTHANC, 3, 5)]
    rows += [Row(work, peers.PYNETDICOM, 3, 6) for work in one + four]
    crash = "process-crash"
    rows += [Row(one[0], peers.STORESCP, 0.5, 1, crash), Row(one[1], peers.STORESCP, 0.2, 0.5, crash)]
    rows += [
        Row(four[0], peers.STORESCP_FORK, 1, 1.2, crash),
        Row(four[1], peers.STORESCP_FORK, 0.4, 0.6, crash),
    ]
    return rows


ROWS = _rows()


def measure(
    work: Work, contenders: Sequence[Peer], folder: Path, runs: int, seconds: float
) -> dict[str, list[float]]:
    """Measure each contender `runs` times; return instances a second by its name."""
    rates: dict[str, list[float]] = {peer.name: [] for peer in contenders}
    studies = itertools.count(1, work.associations)
    with ExitStack() as stack:
        receivers: list[tuple[Peer, Running]] = [
            (peer, stack.enter_context(running(peer, folder / str(number))))
            for number, peer in enumerate(contenders)
        ]
        for _ in range(runs):
            for peer, receiver in receivers:
                os.sync()
                try:
                    rates[peer.name].append(rate(receiver.address, work, next(studies), seconds))
                except RuntimeError as error:
                    raise RuntimeError(f"{peer.name}: {error}; see {folder}") from error
    return rates


def empty(folder: Path) -> None:
    """Free the space of all files below a folder, and keep the files."""
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".log":
            os.truncate(path, 0)


def table(rows: Sequence[Row], medians: dict[tuple[Work, str], float]) -> str:
    """Return the table, as Markdown."""
    lines = [
        "| work | ours | a second | against | a second | ratio | must | aim | |",
        "|---|---|---:|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        own = medians[row.work, ours(row.durability).name]
        other = medians[row.work, row.peer.name]
        ratio = own / other
        verdict = "aim" if ratio >= row.aim else "must" if ratio >= row.must else "MISSED"
        lines.append(
            f"| {row.work} | {row.durability} | {own:.0f} | {row.peer.name} | {other:.0f} "
            f"| {ratio:.2f} | {row.must:g} | {row.aim:g} | {verdict} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="", help="only rows whose name contains this text")
    parser.add_argument("--list", action="store_true", help="print the names of the rows, and end")
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="measurements of each, of which the median counts"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="one measurement of 0.3 s: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    parser.add_argument("--json", type=Path, help="write every single rate to this file")
    options = parser.parse_args(arguments)
    rows = [row for row in ROWS if options.rows.lower() in row.name.lower()]
    if options.list:
        print("\n".join(row.name for row in rows))
        return
    runs, seconds = (1, 0.3) if options.quick else (options.runs, options.seconds)
    top = Path(tempfile.mkdtemp(prefix="bench", dir=options.folder))
    rates: dict[str, dict[str, list[float]]] = {}
    medians: dict[tuple[Work, str], float] = {}
    for work in dict.fromkeys(row.work for row in rows):
        mine = [row for row in rows if row.work == work]
        own = [ours(name) for name in dict.fromkeys(row.durability for row in mine)]
        contenders = own + list({row.peer.name: row.peer for row in mine}.values())
        folder = Path(tempfile.mkdtemp(dir=top))
        try:
            rates[str(work)] = measured = measure(work, contenders, folder, runs, seconds)
        finally:
            empty(folder)
        medians |= {(work, name): statistics.median(values) for name, values in measured.items()}
    shutil.rmtree(top)
    print(table(rows, medians))
    if options.json:
        options.json.write_text(json.dumps(rates, indent=1))


if __name__ == "__main__":
    main()
