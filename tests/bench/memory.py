"""Resident memory: while a large multi-frame object arrives, with idle associations, after many associations.

python -m tests.bench.memory
"""

import argparse
import resource
import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from bench.peers import ours, running
from support.daemon import cpu_seconds
from support.sender import COMMAND, DATA, HEADER, LAST, Sender, Template, command, send, template

CONTEXT = 1
MEGABYTE = 1024 * 1024
OBJECT = 2_000_000_000
IDLE = 500
MANY = 10_000
# How long the CPU time of idle associations is measured, in seconds.
WATCHED = 5.0


def resident(process: int) -> float:
    """Return a process's resident memory, in MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MEGABYTE


class Peak:
    """Measures the largest resident memory of a process until `end`."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._most = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            self._most = max(self._most, resident(self._process))

    def end(self) -> float:
        """Stop measuring; return the largest value, in MB."""
        self._ended.set()
        self._thread.join()
        return self._most


def send_large(address: tuple[str, int], size: int) -> int:
    """Send one object with `size` bytes of pixel data, without holding it in memory; return its status."""
    sender = Sender(address, timeout=600)
    source = Template(*(getattr(template(0, 7), name) for name in ("study", "series", "content")))
    # Pixel Data (7FE0,0010) is last and empty: only its length is replaced.
    head = source.content[:-4] + struct.pack("<L", size)
    room = (min(sender.max_pdu or MEGABYTE, MEGABYTE) - 6) // 2 * 2
    request = command(source.uid(0))
    sender.socket.sendall(_pdu(request, COMMAND | LAST))
    sender.socket.sendall(_pdu(head, 0))
    whole = _pdu(bytes(room), 0)
    for _ in range((size - 1) // room):
        sender.socket.sendall(whole)
    sender.socket.sendall(_pdu(bytes((size - 1) % room + 1), LAST))
    status = sender.response()
    sender.release()
    return status


def _pdu(fragment: bytes, control: int) -> bytes:
    return HEADER.pack(DATA, len(fragment) + 6, len(fragment) + 2, CONTEXT, control) + fragment


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--object", type=int, default=OBJECT, help="bytes of the large object")
    parser.add_argument("--idle", type=int, default=IDLE, help="idle associations")
    parser.add_argument("--many", type=int, default=MANY, help="associations one after the other")
    parser.add_argument("--quick", action="store_true", help="a hundredth: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args(arguments)
    if options.quick:
        options.object, options.idle, options.many = options.object // 100, 5, 100
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = Path(tempfile.mkdtemp(prefix="bench", dir=options.folder))
    print("| resident memory | MB more | must | aim |\n|---|---:|---:|---:|")
    try:
        with running(ours(), folder / "data") as daemon:
            process = daemon.process.pid
            send(daemon.address, template(), range(100))
            time.sleep(1)
            before, peak = resident(process), Peak(process)
            status = send_large(daemon.address, options.object)
            print(f"| while an object of {options.object} bytes arrives (answered {status:04X}) "
                  f"| {peak.end() - before:.0f} | 50 | 25 |")  # fmt: skip
            before = resident(process)
            idle = [Sender(daemon.address) for _ in range(options.idle)]
            time.sleep(1)
            taken = cpu_seconds(process)
            time.sleep(WATCHED)
            share = (cpu_seconds(process) - taken) / WATCHED
            print(f"| with {options.idle} idle associations ({share:.1%} of a core) "
                  f"| {resident(process) - before:.0f} | 100 | 50 |")  # fmt: skip
            for sender in idle:
                sender.release()
            time.sleep(1)
            before = resident(process)
            for _ in range(options.many):
                Sender(daemon.address).release()
            time.sleep(1)
            print(f"| after {options.many} associations | {resident(process) - before:.0f} | 20 | 10 |")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
