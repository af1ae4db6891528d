"""The daemon: starts index, listener and HTTP, logs ready, reloads, and stops."""

import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import structlog

from index import DatabaseFault, Index
from scp.daemon.audit import start_audit, stop_audit
from scp.daemon.descriptors import raise_limit, shares
from scp.daemon.health import Health, health
from scp.daemon.http.server import HttpServer
from scp.daemon.listener import Listener
from scp.daemon.live import Live, Reloads
from scp.daemon.open_index import open_index
from scp.daemon.systemd import TLS_SOCKET, Watchdog, notify, reloading, stopping
from scp.observing import logs
from scp.observing.association_info import AssociationInfo
from scp.observing.metrics import Metrics
from scp.services.commitment import CommitmentService
from scp.services.delivery import Delivery
from scp.services.find import FindService
from scp.services.forward import Forwarding
from scp.services.mpps import StepService
from scp.services.notify import Notifying
from scp.services.retrieve import RetrieveService
from scp.services.store import StoreService
from scp.settings.sections import Configuration, ConfigurationError, LimitsSettings

if TYPE_CHECKING:
    from scp.daemon.http.application import Application
    from scp.observing.audit.trail import AuditTrail
    from scp.services.upstream import UpstreamWorklist

log = structlog.get_logger(__name__)

# After the drain: how long the last associations and the publisher may take, in seconds.
CLOSE_SECONDS = 60.0

# The signals that stop or reload the daemon.
SIGNALS = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))

# Sections that a reload takes over, [limits] except object_size; of [dicom] it takes all but the addresses.
_RELOADED = frozenset(("peers", "routes", "limits", "log"))
_RELOADED_KEYS = frozenset(("publish.targets",))


def log_uncaught(fault: threading.ExceptHookArgs) -> None:
    """Log the exception that ended a thread as an event, instead of a bare traceback on stderr."""
    if fault.exc_type is SystemExit:
        return
    name = fault.thread.name if fault.thread else None
    # A traceback needs memory and stack, which these lack.
    is_short = issubclass(fault.exc_type, MemoryError | RecursionError)
    log.error(
        "thread_failed",
        thread=name,
        error=fault.exc_type.__name__,
        exc_info=None if is_short else fault.exc_value,
    )


Deliveries = Sequence[Delivery[Any]]


class Daemon:
    """One running `imagingstudyd serve`. `reread` loads the configuration again, for SIGHUP.

    `sockets`: those that the service manager has passed, by name.
    """

    def __init__(
        self,
        configuration: Configuration,
        reread: Callable[[], Configuration] | None = None,
        sockets: Mapping[str, list[socket.socket]] | None = None,
    ) -> None:
        self._configuration = self._started_with = configuration
        self._reread = reread or (lambda: configuration)
        self._sockets = dict(sockets or {})
        self._fault: DatabaseFault | None = None
        self._metrics = Metrics()
        self._reloads = Reloads()
        self._stopping = threading.Event()
        self._shares = shares(raise_limit())

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or a fault of the database; return the exit status.

        Raises Locked, CannotListen, OSError (data directory unusable) and DatabaseFault at the start.
        """
        # Threads inherit the mask. The kernel may deliver an unmasked signal to any of them, and its handler
        # in Python would wait until this thread, which sleeps, runs again.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.excepthook = log_uncaught
        with ExitStack() as undo:
            index = open_index(self._configuration, on_fatal=self._fail, observer=self._metrics, joins=True)
            undo.callback(index.close)
            index.serve()
            audit = start_audit(self._configuration, index, self._metrics)
            deliveries = (
                Forwarding(index, self._in_force, self._metrics),
                Notifying(index, self._in_force, self._metrics),
            )
            commitment = CommitmentService(index, self._in_force, self._metrics)
            listener = self._listener(index, commitment)
            http = self._http(index, listener, deliveries)
            if http:
                undo.callback(http.stop)
            address = listener.start()
            undo.callback(listener.stop, 0)
            http_address = http.start() if http else None
            undo.pop_all()
        probes = {
            "accept loop": listener.makes_progress,
            "journal": index.makes_progress,
            "workers": lambda _: not index.workers.lost(),
        }
        watchdog = Watchdog(probes, index.workers)
        watchdog.start()
        commitment.start()
        for delivery in deliveries:
            delivery.start()
        upstream = self._upstream(index)
        self._log_ready(index, listener, address, http_address)
        # What start-up made is left out of every later collection.
        gc.collect()
        gc.freeze()
        while signal.sigwait(SIGNALS) == signal.SIGHUP:
            self._reload(index, listener, deliveries)
        if upstream:
            upstream.stop()
        commitment.stop()
        for delivery in deliveries:
            delivery.stop()
        self._stop(index, listener, http, audit)
        watchdog.stop()
        log.info("stopped", fault=str(self._fault) if self._fault else None)
        return 1 if self._fault else 0

    def _log_ready(
        self, index: Index, listener: Listener, address: tuple[str, int], http: tuple[str, int] | None
    ) -> None:
        dicom = self._configuration.dicom
        log.info(
            "ready",
            dicom=address,
            http=http,
            tls=listener.tls_address(),
            hl7=index.orders.hl7_address,
            aet=dicom.aet,
            data=str(index.data),
        )
        notify(f"READY=1\nSTATUS=DICOM on {address[0]}:{address[1]} as {dicom.aet}")

    def _stop(
        self, index: Index, listener: Listener, http: HttpServer | None, audit: "AuditTrail | None"
    ) -> None:
        drain = self._configuration.dicom.timeouts.drain
        stopping(drain + CLOSE_SECONDS)
        log.info("stopping", associations=listener.active())
        self._stopping.set()
        listener.stop(drain)
        if http:
            http.stop()
        if audit:
            stop_audit(audit)
        index.close()

    def _http(
        self, index: Index, listener: Listener, deliveries: Sequence[Delivery[Any]]
    ) -> HttpServer | None:
        """Return the HTTP server where one is wanted. Raises OSError where its port is taken."""
        settings = self._configuration.http
        if not settings.enabled:
            return None
        self._metrics.add_gauges(index.state, listener.active, index.workers.states)
        self._metrics.add_outbox(index.outbox)
        self._metrics.add_targets(index.targets)
        self._metrics.add_subscriptions(index.subscriptions)

        def healthy() -> Health:
            failing = {name: why for delivery in deliveries for name, why in delivery.failing().items()}
            return health(index, listener, index.workers.states(), failing)

        def make() -> "Application":
            from scp.daemon.http.application import make_application

            live = Live(
                listener, self._metrics.recent, healthy, self._in_force, self._reloads, self._stopping
            )
            return make_application(index, self._configuration, healthy, self._metrics, live)

        return HttpServer(settings, make, self._shares.http, index.workers)

    def _limits(self, configuration: Configuration) -> LimitsSettings:
        """Return the limits in force: no more associations than there are descriptors for."""
        limits, most = configuration.limits, self._shares.associations
        if limits.associations <= most:
            return limits
        total = self._shares.total
        log.warning("few_descriptors", descriptors=total, associations=most, configured=limits.associations)
        return limits.model_copy(update={"associations": most})

    def _reload(self, index: Index, listener: Listener, deliveries: Deliveries) -> None:
        """Load the configuration again; where it is wrong, log that and keep the old one."""
        reloading()
        try:
            configuration = self._reread()
            listener.reload(configuration.peers, self._limits(configuration), configuration.dicom)
        except (ConfigurationError, ValueError) as error:
            faults = error.faults if isinstance(error, ConfigurationError) else [str(error)]
            log.error("reload_refused", faults=faults)  # noqa: TRY400  the faults are enough
            self._reloads.done(f"Not reloaded: {'; '.join(faults)}")
        except Exception as error:  # such as a file that cannot be read any more: the daemon goes on
            log.exception("reload_refused", faults=[f"{type(error).__name__}: {error}"])
            self._reloads.done(f"Not reloaded: {type(error).__name__}: {error}")
        else:
            logs.configure(configuration.log)
            late = needs_restart(self._started_with, configuration)
            peers, routes = len(configuration.peers), len(configuration.routes)
            targets = len(configuration.publish.targets)
            log.info("reloaded", peers=peers, routes=routes, targets=targets, needs_restart=late)
            restart = f"; a restart is needed for {', '.join(late)}" if late else ""
            self._reloads.done(f"Reloaded: {peers} peers, {routes} routes, {targets} targets{restart}.")
            self._configuration = configuration
            for delivery in deliveries:
                delivery.reload()
            index.targets.use(configuration.publish.targets)
        notify("READY=1")

    def _listener(self, index: Index, commitment: CommitmentService) -> Listener:
        configuration = self._configuration
        tls_sockets = self._sockets.pop(TLS_SOCKET, [])
        if tls_sockets and configuration.dicom.tls is None:
            raise OSError(f"a socket named {TLS_SOCKET} was passed, but [dicom.tls] is not configured")

        services = (
            FindService(index, self._in_force, self._metrics),
            StepService(index, self._metrics),
            commitment,
            retrieve := RetrieveService(index, self._in_force, self._metrics),
        )

        def ended(info: AssociationInfo) -> None:
            index.association_ended(info.id)
            self._metrics.association_over(info.calling_aet)

        return Listener(
            configuration.dicom,
            self._limits(configuration),
            configuration.peers,
            StoreService(index, self._metrics),
            handlers=[handler for service in services for handler in service.handlers],
            services={uid: name for service in services for uid, name in service.SERVICES.items()},
            on_association_end=ended,
            sockets=[listening for named in self._sockets.values() for listening in named],
            tls_sockets=tls_sockets,
            metrics=self._metrics,
            workers=index.workers,
            retrieve=retrieve,
        )

    def _upstream(self, index: Index) -> "UpstreamWorklist | None":
        settings = self._configuration.worklist.upstream
        if settings is None:
            return None
        from scp.services.upstream import UpstreamWorklist

        upstream = UpstreamWorklist(index, settings, self._in_force)
        upstream.start()
        return upstream

    def _in_force(self) -> Configuration:
        """Return the configuration now."""
        return self._configuration

    def _fail(self, fault: DatabaseFault) -> None:
        self._fault = fault
        os.kill(os.getpid(), signal.SIGTERM)


def needs_restart(old: Configuration, new: Configuration) -> list[str]:
    """Return the keys that differ and need a restart."""
    changed = []
    for section in sorted(set(type(new).model_fields) - _RELOADED - {"dicom"}):
        before, after = getattr(old, section), getattr(new, section)
        keys = [f"{section}.{key}" for key in type(after).model_fields if _differ(before, after, key)]
        changed += [key for key in keys if key not in _RELOADED_KEYS]
    dicom = old.dicom, new.dicom
    changed += [f"dicom.{key}" for key in ("host", "port") if _differ(*dicom, key)]
    changed += ["limits.object_size"] if _differ(old.limits, new.limits, "object_size") else []
    if old.dicom.tls and new.dicom.tls:
        tls = old.dicom.tls, new.dicom.tls
        return changed + [f"dicom.tls.{key}" for key in ("host", "port", "plain") if _differ(*tls, key)]
    return changed + (["dicom.tls"] if new.dicom.tls else [])


def _differ(before: object, after: object, key: str) -> bool:
    return bool(getattr(before, key) != getattr(after, key))
