"""Options of every verb that talks to a cluster: which one, as whom, in which namespace."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from modelberth.adapters.kubernetes_api import Target

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def cluster_options() -> Decorator:
    """`--kubeconfig --context -n --as --request-timeout`, handed to the command as one argument, `target`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_target(
            *arguments: Any, kubeconfig: Path | None, context: str | None, namespace: str | None, as_user: str | None,
            request_timeout: float, **others: Any,
        ) -> Any:  # fmt: skip
            from modelberth.adapters.kubernetes_api import Target

            target: Target = Target(kubeconfig, context, namespace, as_user, request_timeout)
            return command(*arguments, target=target, **others)

        for option in _OPTIONS:
            with_target = option(with_target)
        return with_target

    return decorate


_OPTIONS = (
    click.option(
        "--request-timeout", type=click.FloatRange(min=0.1), default=30.0, metavar="SECONDS",
        envvar="BERTH_REQUEST_TIMEOUT", show_envvar=True,
        help="Time after which one request to the API server is given up.",
    ),
    click.option("--as", "as_user", metavar="USER", envvar="BERTH_AS", show_envvar=True, help="Act as another user."),
    click.option(
        "-n", "--namespace", metavar="NAME", envvar="BERTH_NAMESPACE", show_envvar=True,
        help="Namespace.  [default: the spec's, or the context's]",
    ),
    click.option(
        "--context", metavar="NAME", envvar="BERTH_CONTEXT", show_envvar=True,
        help="Context of the kubeconfig.  [default: the current one]",
    ),
    click.option(
        "--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), envvar="BERTH_KUBECONFIG", show_envvar=True,
        help="Kubeconfig file.  [default: $KUBECONFIG, or ~/.kube/config]",
    ),
)  # fmt: skip
