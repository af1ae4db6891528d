"""The daemon's reload, without a process."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from index import PublishSettings, TargetSettings
from scp.daemon.service import Daemon, needs_restart
from scp.settings.sections import Configuration, DicomSettings, LimitsSettings


class Listening:
    """Takes the place of the listener."""

    def reload(self, *_: object) -> None:
        """Take everything."""


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), AttributeError("a fault of ours")])
def test_a_reload_that_fails_for_any_reason_leaves_the_daemon_as_it_is(error: Exception) -> None:
    def reread() -> Configuration:
        raise error

    started = Configuration()
    daemon = Daemon(started, reread)
    with capture_logs() as events:
        daemon._reload(cast("Any", None), cast("Any", Listening()), ())
    assert [("reload_refused", [f"{type(error).__name__}: {error}"])] == [
        (event["event"], event["faults"]) for event in events
    ]
    assert started is daemon._in_force()


def test_a_reload_takes_targets_over() -> None:
    new = Configuration(publish=PublishSettings(targets=(TargetSettings(name="ehr", url="http://ehr"),)))
    used: list[object] = []
    index = SimpleNamespace(targets=SimpleNamespace(use=used.append))
    daemon = Daemon(Configuration(), lambda: new)
    daemon._reload(cast("Any", index), cast("Any", Listening()), ())
    assert [new.publish.targets] == used
    assert [] == needs_restart(Configuration(), new)


def test_the_keys_that_need_a_restart_are_named() -> None:
    new = Configuration(
        dicom=DicomSettings(aet="OTHER", port=104), limits=LimitsSettings(associations=5, object_size=5000)
    )
    assert ["dicom.port", "limits.object_size"] == needs_restart(Configuration(), new)
