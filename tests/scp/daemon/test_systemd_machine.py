"""The service in a real systemd: systemd/README.md followed literally, from its installation to its stop.

Sources: sd_notify(3), systemd.service(5) (Type=notify, WatchdogSec=, Restart=), systemd.socket(5).
"""

import json
import re
import shlex
from pathlib import Path

import pytest

from support.daemon import eventually
from support.dicom import ROOT, instance, save
from support.machine import DEPENDENCIES, GIVEN, SOURCE, Machine, booted, steps
from support.manager import Authority

CONFIGURATION = "/etc/imagingstudyd/imagingstudyd.toml"
SERVICE = "imagingstudyd"
COMMAND = f"/opt/imagingstudyd/bin/imagingstudyd {{}} --config {CONFIGURATION}"
DROP_IN = f"/run/systemd/system/{SERVICE}.service.d/test.conf"
# pip finds the packages of the tests, and fetches nothing.
OFFLINE = {
    "PYTHONPATH": DEPENDENCIES,
    "PIP_NO_DEPS": "1",
    "PIP_NO_INDEX": "1",
    "PIP_NO_BUILD_ISOLATION": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


@pytest.mark.timeout(3600)  # some hundred commands, each a Python of its own on a busy machine
def test_the_service_in_a_real_systemd(tmp_path: Path) -> None:
    given = tmp_path / "given"
    save(instance(number=1), given / "1.dcm")
    save(instance(number=2), given / "2.dcm")
    Authority(given).issue("archive")
    with booted(tmp_path) as machine:
        installed(machine)
        started(machine)
        reloaded(machine)
        killed(machine)
        frozen(machine)
        activated(machine)
        verified(machine)
        stopped(machine)


def installed(machine: Machine) -> None:
    machine.do(steps("Install"), SOURCE, **OFFLINE)
    # What pip would have fetched.
    machine.do(f"echo {DEPENDENCIES} > $(echo /opt/imagingstudyd/lib/python3*/site-packages)/fetched.pth")
    assert "enabled" == machine.do("systemctl is-enabled imagingstudyd").strip()


def started(machine: Machine) -> None:
    check, *rest = steps("Start").splitlines()
    checked = machine.run(check)
    # Only systemd can make the data directory.
    assert (2, True) == (checked.returncode, "/var/lib/imagingstudyd: no such data dir" in checked.stdout), (
        checked
    )
    # Whoever starts it is told when it is ready, and not before: echoscu comes at once.
    machine.do("\n".join(rest))
    assert "active running" == f"{machine.property('ActiveState')} {machine.property('SubState')}"
    assert "DICOM on 0.0.0.0:11112 as IMAGINGSTUDYD" == machine.property("StatusText")
    assert (
        "imagingstudyd imagingstudyd 750" == machine.do("stat -c '%U %G %a' /var/lib/imagingstudyd").strip()
    )
    sent(machine, 1)


def reloaded(machine: Machine) -> None:
    process = machine.property("MainPID")
    machine.do(f"printf '[[peers]]\\naet = \"CT1\"\\n' >> {CONFIGURATION}; systemctl reload {SERVICE}")
    assert eventually(lambda: [1] == [one["peers"] for one in events(machine, "reloaded")])
    machine.do(f"cp {CONFIGURATION} /root/good; echo broken >> {CONFIGURATION}; systemctl reload {SERVICE}")
    assert eventually(lambda: 1 == len(events(machine, "reload_refused")))
    machine.do(f"cat /root/good > {CONFIGURATION}")
    assert (process, "active") == (machine.property("MainPID"), machine.property("ActiveState"))


def killed(machine: Machine) -> None:
    """A crash: systemd starts it again, and nothing is lost."""
    machine.do(f"systemctl kill --signal=KILL {SERVICE}")
    assert eventually(lambda: restarted(machine, 1)), machine.journal()
    assert [(f"{ROOT}.1", 1)] == studies(machine)
    sent(machine, 2)


def frozen(machine: Machine) -> None:
    """A process that does nothing any more is ended by the watchdog, and another one started."""
    configure(machine, "[Service]\\nWatchdogSec=15\\n")
    machine.do(f"systemctl restart {SERVICE}; systemctl reset-failed {SERVICE}")
    before = int(machine.property("NRestarts"))
    machine.do(f"systemctl kill --kill-whom=main --signal=STOP {SERVICE}")
    assert eventually(lambda: restarted(machine, before + 1)), machine.journal()
    assert "Watchdog timeout" in machine.journal()
    assert [(f"{ROOT}.1", 2)] == studies(machine)
    configure(machine, "")


def activated(machine: Machine) -> None:
    """systemd opens the ports below 1024, and passes them."""
    folder = Path(CONFIGURATION).parent
    machine.do(f"install -m 0640 -g imagingstudyd -t {folder} {GIVEN}/archive.pem {GIVEN}/archive.key")
    tls = f'[dicom.tls]\ncertificate = "{folder}/archive.pem"\nkey = "{folder}/archive.key"\n'
    machine.do(f"printf %s {shlex.quote(tls)} >> {CONFIGURATION}")
    machine.do(steps("Port 104, and TLS on 2762"))
    machine.do("echoscu -aec IMAGINGSTUDYD localhost 104")
    machine.do("echoscu +tla -ic -aec IMAGINGSTUDYD localhost 2762")
    # The first caller starts it.
    machine.do(f"systemctl stop {SERVICE}")
    assert eventually(lambda: 0 == machine.run("echoscu -aec IMAGINGSTUDYD localhost 104").returncode)
    assert eventually(lambda: "active" == machine.property("ActiveState"))


def verified(machine: Machine) -> None:
    machine.do("systemctl is-enabled imagingstudyd-verify.timer; systemctl start imagingstudyd-verify")
    assert "success" == machine.property("Result", "imagingstudyd-verify")
    assert "0 faults, 0 mended" in machine.journal("imagingstudyd-verify")


def stopped(machine: Machine) -> None:
    machine.do(f"systemctl stop imagingstudyd.socket imagingstudyd-tls.socket {SERVICE}")
    assert ("inactive", "success") == (machine.property("ActiveState"), machine.property("Result"))
    assert events(machine, "stopped")[-1]["fault"] is None
    # Nothing of it was forbidden: a call that the unit's filter refuses is answered EPERM.
    assert "Operation not permitted" not in machine.journal()


def configure(machine: Machine, drop_in: str) -> None:
    machine.do(f"install -D /dev/null {DROP_IN}; printf '{drop_in}' > {DROP_IN}; systemctl daemon-reload")


def sent(machine: Machine, number: int) -> None:
    machine.do(f"dcmsend -aec IMAGINGSTUDYD localhost 11112 {GIVEN}/{number}.dcm")
    assert (f"{ROOT}.1", number) in studies(machine)


def restarted(machine: Machine, times: int) -> bool:
    return (machine.property("NRestarts"), machine.property("SubState")) == (str(times), "running")


def studies(machine: Machine) -> list[tuple[str, int]]:
    listing = COMMAND.format("studies --json")
    said = machine.do(f"sudo -u imagingstudyd STATE_DIRECTORY=/var/lib/imagingstudyd {listing}")
    return [(study["uid"], study["instances"]) for study in json.loads(said.splitlines()[-1])]


def events(machine: Machine, name: str) -> list[dict[str, object]]:
    lines = re.findall(r"^\{.*\}$", machine.journal(), re.MULTILINE)
    return [event for event in map(json.loads, lines) if event.get("event") == name]
