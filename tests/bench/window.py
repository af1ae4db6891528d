"""Instances a second with one C-STORE at a time, and with 16 (PS3.7 Section D.3.3.3), over a line with delay.

python -m tests.bench.window
"""

import argparse
import multiprocessing
import queue
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from bench.peers import ours, running
from support.sender import SMALL_SIZE, Sender, template

# Of the line, in each direction, in milliseconds.
DELAYS = (0, 5, 20)
WINDOWS = (1, 16)
RUNS = 5
CHUNK = 256 * 1024

_fork = multiprocessing.get_context("fork")


def _carry(source: socket.socket, target: socket.socket, seconds: float) -> None:
    """Pass on what comes, each piece so many seconds later."""
    pieces: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def deliver() -> None:
        while True:
            due, piece = pieces.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not piece:
                target.close()
                return
            target.sendall(piece)

    delivering = threading.Thread(target=deliver, daemon=True)
    delivering.start()
    piece = b"-"
    while piece:
        piece = source.recv(CHUNK)
        pieces.put((time.monotonic() + seconds, piece))
    delivering.join()


def _line(listening: socket.socket, address: tuple[str, int], seconds: float) -> None:
    """Connect one caller to `address` by a line with delay."""
    caller, _ = listening.accept()
    receiver = socket.create_connection(address)
    for end in (caller, receiver):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=_carry, args=(caller, receiver, seconds), daemon=True).start()
    _carry(receiver, caller, seconds)


def rate(address: tuple[str, int], delay: float, window: int, study: int, seconds: float) -> float:
    """Send new instances for so many seconds, `window` at a time; return instances a second."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        line = _fork.Process(target=_line, args=(listening, address, delay), daemon=True)
        line.start()
        sender = Sender(listening.getsockname()[:2])
    message = sender.message(template(SMALL_SIZE, study))
    outstanding: deque[int] = deque()
    answered = number = 0
    began = time.monotonic()
    while outstanding or time.monotonic() - began < seconds:
        while len(outstanding) < window and time.monotonic() - began < seconds:
            message.become(number)
            sender.socket.sendall(message.wire)
            outstanding.append(number)
            number += 1
        if outstanding:
            outstanding.popleft()
            if status := sender.response():
                raise RuntimeError(f"answered {status:04X}")
            answered += 1
    took = time.monotonic() - began
    sender.release()
    line.terminate()
    line.join()
    return answered / took


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--quick", action="store_true", help="one short run: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args(arguments)
    runs, seconds = (1, 0.2) if options.quick else (options.runs, options.seconds)
    folder = Path(tempfile.mkdtemp(prefix="bench", dir=options.folder))
    print("| delay in each direction | 1 at a time | 16 at a time | ratio |\n|---:|---:|---:|---:|")
    try:
        with running(ours(), folder / "data") as daemon:
            study = 0
            for delay in DELAYS:
                found: dict[int, list[float]] = {window: [] for window in WINDOWS}
                for _ in range(runs):
                    for window in WINDOWS:
                        study += 1
                        found[window].append(rate(daemon.address, delay / 1000, window, study, seconds))
                one, many = (statistics.median(found[window]) for window in WINDOWS)
                print(f"| {delay} ms | {one:.0f} | {many:.0f} | {many / one:.2f} |")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
