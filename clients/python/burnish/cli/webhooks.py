"""`burnish webhooks`: the project's endpoints and their deliveries."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

import click

from burnish.cli.connection import connect_client
from burnish.cli.output import format_time, json_option, limit_option, print_json, print_line, print_table

if TYPE_CHECKING:
    from burnish.schemas import WebhookEndpoint

_MOMENT = click.DateTime(("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"))


@click.group()
def webhooks() -> None:
    """Tell your receivers when jobs end."""


@webhooks.command("list")
@limit_option
@json_option
def list_(limit: int, as_json: bool) -> None:
    """List endpoints, newest first."""
    with connect_client() as client:
        endpoints = list(islice(client.webhooks.endpoints.list(limit=min(limit, 100)), limit))
    if as_json:
        print_json(endpoints)
    else:
        rows = [
            (e.id, e.name, e.url, _endpoint_state(e), "\n".join(e.event_types), format_time(e.created_at))
            for e in endpoints
        ]
        print_table(("id", "name", "url", "state", "events", "created"), rows)


@webhooks.command()
@click.argument("url")
@click.option("--name", help="What to call it; by default, the URL's beginning.")
@click.option("--event", "event_types", multiple=True, metavar="TYPE", help="Only this event; may be repeated.")
@json_option
def create(url: str, name: str | None, event_types: tuple[str, ...], as_json: bool) -> None:
    """Create an endpoint at URL, for all events unless some are named. Prints its signing secret, this once."""
    with connect_client() as client:
        types = event_types or client.webhooks.event_types()
        endpoint = client.webhooks.endpoints.create(name=name or url[:255], url=url, event_types=types)
    _print_secret(endpoint, as_json)


@webhooks.command()
@click.argument("endpoint_id")
@json_option
def delete(endpoint_id: str, as_json: bool) -> None:
    """Delete an endpoint; it gets no further events."""
    with connect_client() as client:
        deletion = client.webhooks.endpoints.delete(endpoint_id)
    print_json(deletion) if as_json else print_line(f"Deleted {deletion.id}.")


@webhooks.command()
@click.argument("endpoint_id")
@json_option
def enable(endpoint_id: str, as_json: bool) -> None:
    """Enable an endpoint that was disabled."""
    with connect_client() as client:
        endpoint = client.webhooks.endpoints.update(endpoint_id)
    print_json(endpoint) if as_json else print_line(f"{endpoint.id} is {_endpoint_state(endpoint)}.")


@webhooks.command()
@click.argument("endpoint_id")
@click.option("--keep-old", is_flag=True, help="Sign with the old secret too, for 24 hours.")
@json_option
def rotate(endpoint_id: str, keep_old: bool, as_json: bool) -> None:
    """Give an endpoint a new signing secret. Prints it, this once."""
    with connect_client() as client:
        endpoint_secret = client.webhooks.endpoints.rotate_secret(
            endpoint_id, keep_old_secret_active_for_24_hours=keep_old
        )
    _print_secret(endpoint_secret, as_json)


@webhooks.command()
@click.argument("endpoint_id")
@click.option("--event", "event_type", metavar="TYPE", default="fine_tuning.job.succeeded", show_default=True)
@json_option
def test(endpoint_id: str, event_type: str, as_json: bool) -> None:
    """Let the server post a sample event to an endpoint."""
    with connect_client() as client:
        delivery = client.webhooks.endpoints.test(endpoint_id, event_type=event_type)
    print_json(delivery) if as_json else print_line(f"The receiver answered {delivery.status_code}.")


@webhooks.command()
@click.argument("endpoint_id")
@limit_option
@json_option
def deliveries(endpoint_id: str, limit: int, as_json: bool) -> None:
    """List every try to deliver an event to an endpoint, newest first."""
    with connect_client() as client:
        endpoint_deliveries = list(
            islice(client.webhooks.endpoints.deliveries(endpoint_id, limit=min(limit, 1000)), limit)
        )
    if as_json:
        print_json(endpoint_deliveries)
    else:
        columns = ("event", "type", "status", "ms", "when", "error")
        rows = [
            (d.event_id, d.event_type, d.status_code, d.duration_ms, format_time(d.created_at), d.error)
            for d in endpoint_deliveries
        ]
        print_table(columns, rows)


@webhooks.command()
@click.argument("endpoint_id")
@click.argument("event_ids", nargs=-1)
@click.option("--from", "begin", type=_MOMENT, help="Events since this time, by this machine's zone unless it has one.")
@click.option("--to", "end", type=_MOMENT, help="Events before this time; by default, now.")
@json_option
def replay(
    endpoint_id: str, event_ids: tuple[str, ...], begin: datetime | None, end: datetime | None, as_json: bool
) -> None:
    """Deliver events again: those with the EVENT_IDS, or those of a span of time."""
    if bool(event_ids) == (begin is not None) or (end is not None and begin is None):
        raise click.UsageError("Name either the events' ids, or a span by --from (and --to).")
    with connect_client() as client:
        if begin is None:
            replay_result = client.webhooks.endpoints.replay(endpoint_id, event_ids=event_ids)
        else:
            replay_result = client.webhooks.endpoints.replay(
                endpoint_id, begin=begin, end=end or datetime.now().astimezone()
            )
    print_json(replay_result) if as_json else print_line(f"Events on their way again: {len(replay_result.event_ids)}.")


def _endpoint_state(endpoint: WebhookEndpoint) -> str:
    return "enabled" if endpoint.enabled else f"disabled: {endpoint.disabled_reason}"


def _print_secret(endpoint: WebhookEndpoint, as_json: bool) -> None:
    if as_json:
        print_json(endpoint)
    else:
        print_line(endpoint.id)
        print_line(f"Signing secret, shown only now: {endpoint.signing_secret}")
