"""How many new instances a second a receiver acknowledges."""

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

from support.sender import Sender, template

# Instances before the clock starts: the receiver opens its files, and TCP its window.
WARM_UP = 5
# A slow run sends at least so many.
FEWEST = 5

_fork = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Work:
    """What is sent: objects of `size` bytes, over so many associations, with Nagle's algorithm on or off."""

    nagle: bool
    associations: int
    size: int

    def __str__(self) -> str:
        size = f"CT {self.size // 1000} kB" if self.size > 100_000 else f"small {self.size // 1000} kB"
        return f"{size}, {self.associations} assoc." + (", sender with Nagle" if self.nagle else "")


def rate(address: tuple[str, int], work: Work, study: int, seconds: float) -> float:
    """Send for so many seconds; return instances a second. Each association sends a study of its own."""
    ready = _fork.Barrier(work.associations)
    results: Queue[tuple[int, float] | str] = _fork.Queue()
    senders = [
        _fork.Process(target=_send, args=(address, work, study + number, seconds, ready, results))
        for number in range(work.associations)
    ]
    for sender in senders:
        sender.start()
    answers = [results.get() for _ in senders]
    for sender in senders:
        sender.join()
    counts = []
    for answer in answers:
        if isinstance(answer, str):
            raise RuntimeError(answer)  # noqa: TRY004  the error of the sender
        counts.append(answer)
    return sum(count for count, _ in counts) / max(took for _, took in counts)


def _send(
    address: tuple[str, int],
    work: Work,
    study: int,
    seconds: float,
    ready: Barrier,
    results: "Queue[tuple[int, float] | str]",
) -> None:
    try:
        sender = Sender(address, nagle=work.nagle)
        message = sender.message(template(work.size, study))
        for number in range(WARM_UP):
            message.become(number)
            _check(sender.store(message))
        ready.wait(60)
        count, began = 0, time.perf_counter()
        while count < FEWEST or time.perf_counter() - began < seconds:
            message.become(WARM_UP + count)
            _check(sender.store(message))
            count += 1
        results.put((count, time.perf_counter() - began))
        sender.release()
    except Exception as error:  # noqa: BLE001  sent to the parent
        ready.abort()
        results.put(repr(error))


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"answered {status:04X}")
