"""What became of arrivals: told to the publisher, the metrics and the log."""

import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from index.hooks import Observer
from index.reception.arrival import Arrival, Outcome

log = structlog.get_logger(__name__)

# Called with an association's id, and the studies that its instances changed; with each, when the first of
# these was acknowledged, on the monotonic clock.
OnIndexed = Callable[[str, Mapping[int, float]], None]


class Reporter:
    """Reports what became of arrivals."""

    def __init__(self, observer: Observer, on_indexed: OnIndexed) -> None:
        self._observer = observer
        self._on_indexed = on_indexed

    def report(self, arrivals: Sequence[Arrival]) -> None:
        """Report a batch, which is indexed."""
        now = time.monotonic()
        associations: dict[str, dict[int, float]] = {}
        for arrival in arrivals:
            studies = associations.setdefault(arrival.stored.origin.association, {})
            for study in arrival.studies:
                studies.setdefault(study, arrival.acknowledged or now)
        for association, studies in associations.items():
            if studies:
                self._on_indexed(association, studies)
        for arrival in arrivals:
            seconds = now - (arrival.acknowledged or now)
            if arrival.outcome is not None:
                self._observer.indexed(arrival.stored.origin.calling_aet, str(arrival.outcome), seconds)
            if arrival.outcome not in (Outcome.STORED, None):
                _log(arrival)


def _log(arrival: Arrival) -> None:
    level = log.info if arrival.outcome is Outcome.DUPLICATE else log.warning
    level(
        "indexed",
        association=arrival.stored.origin.association,
        outcome=str(arrival.outcome),
        sop_instance_uid=arrival.uid,
        kept_aside=arrival.kept_aside,
    )
