"""Options of the verbs that deliver, and the request that they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelberth.cli.options import Decorator, output_option, state_option

if TYPE_CHECKING:
    from modelberth.flows.delivery import DeliveryRequest

_OPTIONS: tuple[Decorator, ...] = (
    click.option(
        "--connections", type=click.IntRange(1, 64), default=4, show_envvar=True, help="Parts that move at a time."
    ),
    click.option(
        "--part-size", metavar="SIZE", default="64MiB", show_envvar=True,
        help="Bytes of a part: what is sent again after a break, and what is looked at to find a wrong byte.",
    ),
    click.option(
        "--stall-timeout", type=click.FloatRange(min=1), default=60.0, metavar="SECONDS", show_envvar=True,
        help="Time without a byte after which a connection is given up and made anew.",
    ),
    click.option("--endpoint", metavar="URL", show_envvar=True, help="S3 store.  [default: AWS_ENDPOINT_URL, or AWS]"),
    click.option("--region", metavar="NAME", show_envvar=True, help="Region of the S3 store.  [default: AWS_REGION]"),
    click.option("--profile", metavar="NAME", show_envvar=True, help="AWS profile.  [default: AWS_PROFILE]"),
    click.option(
        "--ca-bundle", type=click.Path(path_type=Path, dir_okay=False), show_envvar=True,
        help="Authorities that sign the certificates of store or registry.  [default: AWS_CA_BUNDLE, the system's]",
    ),
    click.option(
        "--virtual-host/--path-style", default=None, show_envvar=True,
        help="Buckets as bucket.host, or as host/bucket.  [default: bucket.host at AWS only]",
    ),
    click.option("--plain-http", is_flag=True, show_envvar=True, help="Registry without TLS; loopback needs no flag."),
    click.option(
        "--exclude", multiple=True, metavar="PATTERN", show_envvar=True,
        help="Files that stay behind: a name, a folder or a shell pattern.",
    ),
    click.option(
        "--allow-pickle", is_flag=True, show_envvar=True,
        help="Deliver pickled weights too. They can run code when they are loaded.",
    ),
)  # fmt: skip


def delivery_options(*forms: str) -> Decorator:
    """The options that all verbs of delivery have."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (*reversed(_OPTIONS), state_option(), output_option(*forms)):
            command = option(command)
        return command

    return decorate


def delivery_request(
    source: str, destination: str, options: dict[str, Any], *, base: str = "", workspace: Path | None = None,
    verify: bool = False,
) -> DeliveryRequest:  # fmt: skip
    """The request of a command line.

    Raises:
        UsageError: a size that is none.
    """
    from modelberth.base.units import parse_bytes
    from modelberth.flows.delivery import DeliveryRequest
    from modelberth.flows.places import PlaceOptions

    places = PlaceOptions(
        endpoint=options["endpoint"],
        region=options["region"],
        profile=options["profile"],
        ca_bundle=str(options["ca_bundle"]) if options["ca_bundle"] else None,
        virtual_host=options["virtual_host"],
        plain_http=options["plain_http"],
        stall_seconds=options["stall_timeout"],
        part_bytes=parse_bytes(options["part_size"]),
        exclude=tuple(options["exclude"]),
        allow_pickle=options["allow_pickle"],
    )
    return DeliveryRequest(
        source, destination, state=options["state"], connections=options["connections"], workspace=workspace,
        base=base, verify=verify, places=places,
    )  # fmt: skip
