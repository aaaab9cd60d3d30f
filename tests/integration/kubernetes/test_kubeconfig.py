"""Which cluster, and as whom: every fault of a kubeconfig is told with its file and the way on; no secret is."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from kube_server import KubeServer
from kube_server.server import TOKEN
from modelberth.adapters.kubernetes_api import Change, Target, Watch, connect, credentials
from modelberth.adapters.kubernetes_api.kinds import CONFIG_MAPS
from modelberth.adapters.kubernetes_api.kubeconfig import read_login
from modelberth.base.errors import AuthError, BerthError, PrerequisiteMissing, UsageError

PATIENCE = 30.0
CANARY = "canary-token-value"


def config(user: dict[str, Any], server: str = "https://api.example.com:6443", **changes: Any) -> str:
    entries = {
        "apiVersion": "v1", "kind": "Config", "current-context": "prod",
        "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
    }  # fmt: skip
    return json.dumps(entries | changes)


def test_what_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(config({"token": CANARY}))
    login = read_login(Target(kubeconfig=path))
    assert (login.context, login.server, login.namespace, login.user) == (
        "prod", "https://api.example.com:6443", "team", "u",
    )  # fmt: skip
    assert read_login(Target(kubeconfig=path, namespace="other")).namespace == "other"
    assert CANARY not in repr(login)


def test_several_files_are_merged_and_the_first_wins(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two" / "config"
    two.parent.mkdir()
    one.write_text(json.dumps({"current-context": "b"}))
    (two.parent / "token").write_text("from two\n")
    two.write_text(
        json.dumps(
            {
                "current-context": "a",
                "clusters": [{"name": "c", "cluster": {"server": "http://two"}}],
                "users": [{"name": "u", "user": {"tokenFile": "token"}}],
                "contexts": [{"name": "b", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    login = read_login(Target(), {"KUBECONFIG": os.pathsep.join([str(tmp_path / "absent"), str(one), str(two)])})
    assert login.context == "b"
    assert credentials.Identity(login).credentials().token == "from two"


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        ("a: [", UsageError, "the kubeconfig is not valid YAML"),
        ("- a\n", UsageError, "that is no kubeconfig"),
        (config({}, **{"current-context": ""}), PrerequisiteMissing, "no current context"),
        (config({}, **{"current-context": "prd"}), UsageError, "no context prd"),
        (config({}, clusters=[]), UsageError, "names a cluster that is not there: c"),
        (config({}, users=[]), UsageError, "names a user that is not there: u"),
        (config({}, server=""), UsageError, "has no server"),
    ],
)
def test_a_kubeconfig_that_is_wrong(tmp_path: Path, text: str, error: type[BerthError], what: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(error, match=what) as caught:
        read_login(Target(kubeconfig=path))
    assert str(path) in caught.value.where


def test_the_nearest_context_is_suggested(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(config({}))
    with pytest.raises(UsageError) as caught:
        read_login(Target(kubeconfig=path, context="prood"))
    assert caught.value.why == "did you mean 'prod'?"


def test_no_kubeconfig_at_all(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteMissing, match="there is no kubeconfig") as caught:
        read_login(Target(kubeconfig=tmp_path / "none"))
    assert caught.value.exit_code == 3
    assert "--kubeconfig" in caught.value.next_step


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """A credential plug-in that is a real program; its text is the body of a shell script."""

    def make(script: str) -> dict[str, Any]:
        path = tmp_path / "login-plugin"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path), "args": ["get"],
                         "env": [{"name": "WHO", "value": "me"}], "installHint": "pip install the-plugin"}}  # fmt: skip

    return make


def answer(token: str) -> str:
    return json.dumps(
        {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
    )


def login_of(tmp_path: Path, user: dict[str, Any], server: str = "https://api.example.com:6443") -> Any:
    path = tmp_path / "config"
    path.write_text(config(user, server))
    return read_login(Target(kubeconfig=path))


def test_a_plugin_gives_the_token_and_sees_what_it_is_for(tmp_path: Path, plugin: Callable[[str], Any]) -> None:
    seen = tmp_path / "seen"
    user = plugin(f'echo "$WHO $1 $KUBERNETES_EXEC_INFO" > {seen}\ncat <<E\n{answer(CANARY)}\nE')
    identity = credentials.Identity(login_of(tmp_path, user))
    assert identity.credentials().token == CANARY
    assert seen.read_text().startswith("me get {")
    assert CANARY not in repr(identity.credentials())


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo no session >&2; exit 3", "no session"),
        ("exit 4", "exit code 4"),
        ("echo not json", "expected an ExecCredential"),
        ('echo \'{"apiVersion": "client.authentication.k8s.io/v1beta1", "status": {"token": "t"}}\'', "expected an"),
        ('echo \'{"apiVersion": "client.authentication.k8s.io/v1", "status": {}}\'', "expected an ExecCredential"),
    ],
)
def test_a_plugin_that_fails(tmp_path: Path, plugin: Callable[[str], Any], script: str, why: str) -> None:
    with pytest.raises(AuthError, match="the credential plug-in") as caught:
        credentials.Identity(login_of(tmp_path, plugin(script))).credentials()
    assert why in caught.value.why


def test_a_plugin_that_hangs_is_given_up(
    tmp_path: Path, plugin: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    user = plugin("sleep 1000")
    with pytest.raises(AuthError) as caught:
        credentials.run_plugin(user["exec"], login_of(tmp_path, user), seconds=0.2)
    assert "it gave no answer" in caught.value.why


def test_a_plugin_that_is_not_installed(tmp_path: Path) -> None:
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "no-such-plugin",
                     "installHint": "see the handbook"}}  # fmt: skip
    with pytest.raises(PrerequisiteMissing, match="no-such-plugin is not installed") as caught:
        credentials.Identity(login_of(tmp_path, user)).credentials()
    assert caught.value.why == "see the handbook"


def test_a_token_that_has_changed_is_read_again_once(
    server: KubeServer, tmp_path: Path, plugin: Callable[[str], Any]
) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    path = tmp_path / "config"
    path.write_text(config({"tokenFile": str(token)}, server.url))
    server.tokens["old"] = "tester"
    with connect(Target(kubeconfig=path)) as cluster:
        cluster.list(_pods())
        del server.tokens["old"]
        token.write_text(TOKEN)
        cluster.list(_pods())  # the 401 is answered with what the file says now
        token.write_text("wrong")
        del server.tokens[TOKEN]
        with pytest.raises(AuthError, match="does not know who we are"):
            cluster.list(_pods())


def test_a_new_login_is_found_in_the_kubeconfig(server: KubeServer, tmp_path: Path) -> None:
    """`oc login` in another window writes a new token, and may make another context the current one."""
    path = tmp_path / "config"
    path.write_text(config({"token": "old"}, server.url))
    server.tokens["old"] = "tester"
    with connect(Target(kubeconfig=path)) as cluster:
        cluster.list(_pods())
        del server.tokens["old"]
        path.write_text(config({"token": TOKEN}, server.url, **{"current-context": "another"}))
        cluster.list(_pods())
        path.write_text("no kubeconfig: [")
        del server.tokens[TOKEN]
        with pytest.raises(AuthError, match="does not know who we are"):
            cluster.list(_pods())


def test_a_watch_goes_on_when_its_token_has_ended(server: KubeServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    path = tmp_path / "config"
    path.write_text(config({"tokenFile": str(token)}, server.url))
    server.tokens["old"] = "tester"
    changes: SimpleQueue[Change] = SimpleQueue()
    with connect(Target(kubeconfig=path)) as cluster:
        watching = Watch(cluster, CONFIG_MAPS, "default", changes).start()
        assert changes.get(timeout=PATIENCE).event == "listed"
        del server.tokens["old"]
        token.write_text(TOKEN)
        server.break_connections()
        about = {"name": "a", "namespace": "default"}
        server.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about})
        events = []
        while not {"changed", "listed"} & set(events):
            events.append(changes.get(timeout=PATIENCE).event)
        assert "forbidden" not in events
        watching.stop()


def _pods() -> Any:
    from modelberth.adapters.kubernetes_api.kinds import PODS

    return PODS


@pytest.mark.parametrize("value", ["***", base64.b64encode(b"no certificate").decode()])
def test_authorities_that_are_none(tmp_path: Path, value: str) -> None:
    path = tmp_path / "config"
    cluster = {"server": "https://api.example.com", "certificate-authority-data": value}
    path.write_text(config({}, clusters=[{"name": "c", "cluster": cluster}]))
    with pytest.raises(UsageError, match="certificate-authority"):
        connect(Target(kubeconfig=path))
