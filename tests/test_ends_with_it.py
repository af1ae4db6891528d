"""A process that a test starts ends with the test."""

import subprocess
import sys
from pathlib import Path

from support.daemon import eventually

SCRIPT = """
import sys
from pathlib import Path
from support.daemon import Daemon

daemon = Daemon(Path(sys.argv[1]))
print(daemon.process.pid, flush=True)
sys.stdin.read()
"""


def test_a_daemon_ends_with_tests_that_are_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "data")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    ) as tests:
        assert tests.stdout
        daemon = Path("/proc") / tests.stdout.readline().strip()
        assert daemon.exists()
        tests.kill()
    assert eventually(lambda: not daemon.exists())
