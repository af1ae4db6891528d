"""`forward`: what waits to be sent to peers by [[routes]] and `notify`, and what could not be."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from index import is_uid
from scp.commands.application import FAILED, WRONG_USAGE, AsJSON, Config, Data, app, exit_on_fault, use_index
from scp.commands.output import print_json, print_json_array, print_line, print_message, print_table

if TYPE_CHECKING:
    from index import Index, OutboxFilter

forward = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What is sent to peers by itself: instances that [[routes]] forward, and notifications of complete"
    " studies. Those that wait, and dead letters, which are not tried again.",
)
app.add_typer(forward, name="forward")

UID = Annotated[
    str, typer.Argument(metavar="[UID]", help="Only of this study, series or instance.", show_default=False)
]
Peer = Annotated[str, typer.Option(help="Only for this peer.")]
Everything = Annotated[bool, typer.Option("--all", help="All: neither UID nor --peer is needed.")]
Waiting = Annotated[bool, typer.Option("--waiting", help="Also those that wait.")]


@forward.command("list")
def list_entries(
    uid: UID = "",
    peer: Peer = "",
    waiting: Waiting = False,  # noqa: FBT002  typer's way
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """List dead letters, with the reason of the last failure."""
    _check(uid)
    with use_index(config, data) as index, exit_on_fault():
        entries = index.outbox.listing.entries(_filter(uid, peer), waiting=waiting)
        if as_json:
            print_json_array(
                {
                    "kind": one.kind,
                    "uid": one.uid,
                    "study": one.study_uid or None,
                    "peer": one.peer,
                    "state": one.state,
                    "attempts": one.attempts,
                    "since": _time(one.created),
                    "due": _time(one.due) if one.due else None,
                    "error": one.error,
                }
                for one in entries
            )
            return
        columns = ("Kind", "UID", "Peer", "State", "Attempts", "Since", "Reason")
        rows = (
            (one.kind, one.uid, one.peer, one.state, one.attempts, _time(one.created), one.error)
            for one in entries
        )
        print_table(columns, rows)


@forward.command()
def retry(
    uid: UID = "",
    peer: Peer = "",
    everything: Everything = False,  # noqa: FBT002
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Try dead letters and postponed instances again, at once. Ends with 1 where there is none."""
    _check_given(uid, peer, everything=everything)
    with use_index(config, data) as index, exit_on_fault():
        count = index.outbox.listing.retry(_filter(uid, peer))
        _print_count("retried", count, index, as_json=as_json)


@forward.command()
def drop(
    uid: UID = "",
    peer: Peer = "",
    everything: Everything = False,  # noqa: FBT002
    waiting: Waiting = False,  # noqa: FBT002
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Give dead letters up for good. The instances stay in the index. Ends with 1 where there is none."""
    _check_given(uid, peer, everything=everything)
    with use_index(config, data) as index, exit_on_fault():
        count = index.outbox.listing.drop(_filter(uid, peer), waiting=waiting)
        _print_count("dropped", count, index, as_json=as_json)


@forward.command()
def status(
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Print for each peer how many instances wait, since when, why, and how many are dead letters."""
    with use_index(config, data) as index, exit_on_fault():
        found = index.outbox.listing.status()
        wanted = {*index.outbox.wanted_by, *index.completions.notifications.wanted_by}
        routed = sorted(wanted - {one.peer for one in found})
    rows = [(one.peer, one.waiting, one.dead, one.oldest and _time(one.oldest), one.error) for one in found]
    rows += [(peer, 0, 0, None, "") for peer in routed]
    silent = {one.peer: one.silent for one in found}
    if as_json:
        keys = ("peer", "waiting", "dead", "oldest", "error")
        print_json(
            [{**dict(zip(keys, row, strict=True)), "silent_nodes": silent.get(row[0], {})} for row in rows]
        )
        return
    print_table(("Peer", "Waiting", "Dead letters", "Oldest waits since", "Last failure"), rows)
    for peer, places in silent.items():
        for place, count in places.items():
            print_message(f"{count} for {peer} wait at {place}, which is not served: only it can send them")


def _filter(uid: str, peer: str) -> "OutboxFilter":
    from index import OutboxFilter

    return OutboxFilter(peer, uid)


def _check(uid: str) -> None:
    """End with status 2 for what is no UID."""
    if uid and not is_uid(uid):
        print_message(f"imagingstudyd: {uid} is not a UID")
        raise typer.Exit(WRONG_USAGE)


def _check_given(uid: str, peer: str, *, everything: bool) -> None:
    if bool(uid or peer) == everything:
        print_message("imagingstudyd: give a UID, or --peer, or --all")
        raise typer.Exit(WRONG_USAGE)
    _check(uid)


def _print_count(done: str, count: int, index: "Index", *, as_json: bool) -> None:
    from index import is_served

    if as_json:
        print_json({done: count})
    else:
        print_line(f"{done} {count}")
        if count and done == "retried" and not is_served(index.data):
            print_message("no daemon runs: they are sent when it does")
    if not count:
        raise typer.Exit(FAILED)


def _time(milliseconds: int) -> str:
    """Return a time as ISO 8601 has it, in local time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone().isoformat(timespec="seconds")
