"""`serve`: the daemon."""

import signal
from typing import Annotated

import typer

from index import CannotListen, DatabaseFault
from scp.commands.application import (
    Config,
    Data,
    app,
    exit_on_bad_configuration,
    exit_on_fault,
    flags_by_section,
)


@app.command()
def serve(
    config: Config = None,
    data: Data = None,
    aet: Annotated[str | None, typer.Option(help="Our AE title.")] = None,
    host: Annotated[str | None, typer.Option(help="Address for DICOM.")] = None,
    port: Annotated[int | None, typer.Option(help="Port for DICOM; 0 takes a free one.")] = None,
    http_host: Annotated[str | None, typer.Option(help="Address for HTTP.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port for HTTP; 0 takes a free one.")] = None,
    no_http: Annotated[bool, typer.Option("--no-http", help="No HTTP at all.")] = False,  # noqa: FBT002  typer's way
) -> None:
    """Receive instances until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
    from scp.observing import logs  # before any other module imports structlog

    flags = flags_by_section(
        data,
        dicom={"aet": aet, "host": host, "port": port},
        http={"host": http_host, "port": http_port, "enabled": False if no_http else None},
    )
    # Threads that a library starts when it is imported (numpy's) must not take signals: SIGTERM would end us.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    from scp.daemon.checks import data_fault, start_faults
    from scp.daemon.service import Daemon
    from scp.daemon.systemd import passed_sockets
    from scp.settings.file import load, load_with_sources
    from scp.settings.sections import ConfigurationError

    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with exit_on_bad_configuration(), exit_on_fault():
        configuration, sources = load_with_sources(config, flags, check_files=True)
        logs.configure(configuration.log)
        sockets = passed_sockets()
        if faults := start_faults(configuration, sockets):
            raise ConfigurationError(*(fault.at(sources) for fault in faults))
        if unusable := data_fault(configuration.data):
            raise DatabaseFault(unusable.text)
        daemon = Daemon(configuration, lambda: load(config, flags, check_files=True), sockets)
        try:
            raise typer.Exit(daemon.run())
        except CannotListen as error:  # the address was free when `start_faults` tried it
            raise ConfigurationError(f"{sources.near(tuple(error.key.split('.')))}: {error}") from None
