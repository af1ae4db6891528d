"""Group work: each item in one group, whoever comes when; nobody waits for ever."""

import random
import threading
import time
from collections.abc import Sequence

from index.reception.batching import GroupLeader


def test_every_item_is_in_one_group_and_nobody_returns_before() -> None:
    done: list[int] = []
    acting = threading.Lock()

    def act(group: Sequence[int]) -> None:
        assert acting.acquire(blocking=False), "two groups at a time"
        time.sleep(random.uniform(0, 0.001))
        done.extend(group)
        acting.release()

    together = GroupLeader(act)

    def come(number: int) -> None:
        for nth in range(50):
            together.submit(100 * number + nth)
            assert 100 * number + nth in done

    threads = [threading.Thread(target=come, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert sorted(100 * number + nth for number in range(16) for nth in range(50)) == sorted(done)
    assert 0 == together.waiting()


def test_those_who_wait_become_one_group() -> None:
    groups: list[list[int]] = []
    together = GroupLeader(lambda group: groups.append(list(group)))
    threads = [threading.Thread(target=together.submit, args=(number,)) for number in range(5)]
    with together._acting:
        assert not together.makes_progress(0.01)
        for thread in threads:
            thread.start()
        while together.waiting() < 5:
            time.sleep(0.001)
    for thread in threads:
        thread.join(120)
    assert [[0, 1, 2, 3, 4]] == [sorted(group) for group in groups]
    assert together.makes_progress(1)


def test_what_ends_one_group_does_not_end_the_next() -> None:
    calls: list[int] = []

    def act(group: Sequence[int]) -> None:
        calls.extend(group)
        if 1 in group:
            raise MemoryError

    together = GroupLeader(act)
    for number in range(3):
        try:
            together.submit(number)
        except MemoryError:
            assert 1 == number
    assert [0, 1, 2] == calls
