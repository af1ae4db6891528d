"""A daemon that has nothing to do does nothing: threads are woken, they do not look."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from support.daemon import Daemon
from support.peer import Parrot
from support.trace import strace

ASSOCIATIONS = 100
# The publisher looks for changes of other processes less often after some time without any.
QUIET_SECONDS = 12
# Some threads look each second or two; a window that is shorter would count them by chance.
WINDOW_SECONDS = 10
MOST_CALLS_A_SECOND = 5


# A peer to whom all is forwarded, who is notified of complete studies, and who is down; so is a FHIR server.
PEERS = """
[[peers]]
aet = "PACS"
host = "127.0.0.1"
port = 1
notify = true
[[routes]]
to = "PACS"
[[publish.targets]]
name = "ehr"
url = "http://127.0.0.1:1/fhir"
"""


def test_an_idle_daemon_makes_few_system_calls(start: Callable[..., Daemon], tmp_path: Path) -> None:
    """Also with open associations and routes: a slow machine's core belongs to others meanwhile."""
    trace, config = tmp_path / "trace", tmp_path / "config.toml"
    config.write_text(PEERS)
    daemon = start("--config", str(config), prefix=strace(trace, calls="all", strings=0))

    def calls() -> list[str]:
        with trace.open(errors="replace") as lines:
            return [line for line in lines if "resumed>" not in line and "+++" not in line]

    with ExitStack() as stack:
        for _ in range(ASSOCIATIONS):
            stack.enter_context(Parrot(daemon.port)).associate()  # accepted
        # It is time itself that is measured here: what is made while nothing happens.
        time.sleep(QUIET_SECONDS)
        before, began = len(calls()), time.monotonic()
        time.sleep(WINDOW_SECONDS)
        made = calls()[before:]
        seconds = time.monotonic() - began
        assert len(made) <= MOST_CALLS_A_SECOND * seconds, "".join(made)
