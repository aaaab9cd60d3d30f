"""`berth chat`: one conversation with each of several variants, every one with its own history."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from modelberth.adapters.kubernetes_api import Target, connect
from modelberth.adapters.openai_api import Endpoint, Message, StreamedAnswer
from modelberth.base.errors import IntegrityError
from modelberth.base.text import printable
from modelberth.flows.cluster.verify_service import reached


@dataclass
class Partner:
    """One variant that is talked to.

    Attributes:
        name: of the service, or the URL.
        endpoint: that answers.
        model: name that is asked for.
        history: of this conversation.
    """

    name: str
    endpoint: Endpoint
    model: str
    history: list[Message] = field(default_factory=list)

    def say(self, text: str, max_tokens: int, on_text: Callable[[str], None]) -> StreamedAnswer:
        """Say something; the answer is kept for what follows.

        Raises:
            IntegrityError, NotReady, AuthError, RemoteUnavailable: no sound answer came; the history stays as it was.
        """
        streamed = self.endpoint.stream_chat(
            self.model, text, max_tokens, history=self.history, on_text=lambda piece: on_text(printable(piece))
        )
        self.history += [
            {"role": "user", "content": text}, {"role": "assistant", "content": streamed.answer.text},
        ]  # fmt: skip
        return streamed


@contextmanager
def partners(targets: Sequence[str], target: Target, model: str | None = None) -> Iterator[list[Partner]]:
    """Those who are talked to: URLs as they are, services through tunnels to their pods.

    Args:
        targets: names of services, or URLs.
        target: the cluster; not asked when all are URLs.
        model: to ask for; None for the only one that each offers.

    Raises:
        NotReady: a service is not ready.
        IntegrityError: an endpoint offers no such model, or several and none was named.
    """
    with ExitStack() as held:
        cluster = None
        found = []
        for each in targets:
            if "://" in each:
                endpoint = Endpoint(each.rstrip("/").removesuffix("/v1"))
            else:
                cluster = cluster or held.enter_context(connect(target))
                way = held.enter_context(reached(cluster, cluster.namespace, each))
                endpoint = Endpoint(way.url, unverified=way.unverified)
            held.callback(endpoint.close)
            found.append(Partner(each, endpoint, _model(endpoint, model)))
        yield found


def _model(endpoint: Endpoint, wanted: str | None) -> str:
    offered = endpoint.models()
    if wanted in offered or (wanted is None and len(offered) == 1):
        return wanted or offered[0]
    names = printable(", ".join(offered)) or "none"
    raise IntegrityError(
        f"{endpoint.url} does not offer {wanted}" if wanted else f"{endpoint.url} offers several models",
        why=f"offered: {names}", next_step="name one: --model NAME",
    )  # fmt: skip
