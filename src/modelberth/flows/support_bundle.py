"""`berth support-bundle`: what helps others to find a fault, without secrets, in one archive.

It is laid out as `oc adm inspect` does, so that `berth diagnose --must-gather BUNDLE` reads it. Everything passes the
redaction on its way: Secrets keep the names of their keys, their values are taken out of every other file as well.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelberth import __version__
from modelberth.adapters.bundle_file import BundleFile, bundle_file
from modelberth.adapters.kubernetes_api import Cluster, Document
from modelberth.adapters.kubernetes_api.kinds import SECRETS
from modelberth.base.clock import utc_now
from modelberth.base.errors import AuthError
from modelberth.base.redaction import Redactor
from modelberth.base.text import names_secret, printable
from modelberth.base.yamlio import write_documents
from modelberth.findings.diagnosis.belonging import belonging
from modelberth.findings.diagnosis.diagnose import Log, diagnose_objects
from modelberth.findings.diagnosis.documents import document
from modelberth.findings.diagnosis.finding import Diagnosis
from modelberth.flows.cluster.evidence import logs_of, look

_TOP = "support-bundle"


@dataclass(frozen=True)
class Bundle:
    """What was written.

    Attributes:
        path: of the archive.
        files: in it.
        size: bytes of the archive.
        diagnosis: of the same evidence.
        notes: what could not be seen.
    """

    path: Path
    files: int
    size: int
    diagnosis: Diagnosis
    notes: tuple[str, ...]


def write_bundle(
    cluster: Cluster, namespace: str, path: Path, services: Sequence[str] = (), specs: Sequence[Path] = (),
    environment: Mapping[str, str] = os.environ,
) -> Bundle:  # fmt: skip
    """Gather a namespace into an archive.

    Args:
        cluster: that it is on.
        namespace: to gather.
        path: of the archive.
        services: to look at; empty for all.
        specs: files that go along, such as berth.yaml.
        environment: whose secrets must be seen nowhere.

    Raises:
        AuthError, RemoteUnavailable: the cluster cannot be asked.
        DoesNotFit: the disk is full; there is no archive then.
    """
    evidence = look(cluster, namespace)
    notes = evidence.notes
    secrets = _secrets(cluster, namespace, notes)
    redactor = Redactor([*_values(secrets), *(value for key, value in environment.items() if names_secret(key))])
    objects = evidence.objects
    if services:
        found_of = {id(each): dict(each) for name in services for each in belonging(objects, name)}
        objects = list(found_of.values())
    logs = logs_of(cluster, objects, notes)
    with bundle_file(path, _TOP, int(utc_now().timestamp())) as bundle:
        for each in [*objects, *secrets]:
            text = write_documents([redactor.document(each)])
            bundle.add(_place(each), text.encode())
        kept = [_keep(bundle, log, namespace, redactor) for log in logs]
        found = diagnose_objects(objects, kept)
        about = json.dumps(document(found), indent=2, ensure_ascii=False)
        bundle.add("berth/diagnosis.json", redactor.text(about).encode())
        bundle.add("berth/about.txt", redactor.text(_about(cluster, namespace, notes)).encode())
        for spec in specs:
            bundle.add(f"berth/{spec.name}", redactor.text(spec.read_text(errors="replace")).encode())
        count = bundle.count
    return Bundle(path, count, path.stat().st_size, found, tuple(notes))


def _secrets(cluster: Cluster, namespace: str, notes: list[str]) -> list[Document]:
    try:
        return list(cluster.list(SECRETS, namespace).items)
    except AuthError:
        notes.append("Secrets may not be listed: their shape is not in the bundle, their values not looked for")
        return []


def _values(secrets: Iterable[Document]) -> Iterator[str]:
    """What the Secrets hold, and what stands inside of JSON in them: none of it may be seen elsewhere."""
    for secret in secrets:
        for value in (secret.get("data") or {}).values():
            try:
                text = base64.b64decode(str(value)).decode()
            except (binascii.Error, ValueError):
                continue
            yield text
            yield from _inside(text)


def _inside(text: str) -> Iterator[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict):
        yield from (value for key, value in found.items() if isinstance(value, str) and names_secret(str(key)))


def _keep(bundle: BundleFile, log: Log, namespace: str, redactor: Redactor) -> Log:
    """Write a log without secrets, and keep what was written for the diagnosis: both see the same."""
    kept: list[bytes] = []

    def clean() -> Iterator[bytes]:
        for block in log.blocks:
            line = redactor.text(block.decode(errors="replace")).encode()
            kept.append(line)
            yield line

    which = "previous" if log.name.endswith("(previous)") else "current"
    bundle.add_blocks(
        f"namespaces/{namespace}/pods/{log.pod}/{log.container}/{log.container}/logs/{which}.log", clean()
    )
    return Log(log.name, kept, log.pod, log.container, log.version)


def _place(each: Document) -> str:
    about = each["metadata"]
    group = str(each.get("apiVersion", "v1")).rpartition("/")[0] or "core"
    resource = f"{group}/{str(each.get('kind', '')).lower()}s/{about['name']}.yaml"
    namespace = about.get("namespace")
    return f"namespaces/{namespace}/{resource}" if namespace else f"cluster-scoped-resources/{resource}"


def _about(cluster: Cluster, namespace: str, notes: Sequence[str]) -> str:
    lines = [
        f"berth {__version__}",
        f"written {utc_now():%Y-%m-%dT%H:%M:%SZ}",
        f"namespace {namespace}",
        f"Kubernetes {cluster.version()}",
        *(f"note: {printable(note)}" for note in notes),
    ]
    return "\n".join(lines) + "\n"
