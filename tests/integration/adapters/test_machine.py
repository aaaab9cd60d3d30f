"""Ports on the loopback address, and what this machine says of itself."""

from __future__ import annotations

import errno
import os
import socket
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest

from modelberth.adapters import machine
from modelberth.base.errors import AuthError, Conflict

pytestmark = pytest.mark.integration


def listener(number=0, *, reuse=False):
    """A socket that listens on a port."""
    found = socket.socket()
    if reuse:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((machine.LOOPBACK, number))
        found.listen()
    except OSError:
        found.close()
        raise
    return found


def test_reserved_ports_differ():
    ports = [machine.reserve_port() for _ in range(20)]
    assert len({port.number for port in ports}) == 20
    for port in ports:
        port.release()


def test_a_taken_port_is_a_conflict():
    with listener() as taken:
        number = taken.getsockname()[1]
        with pytest.raises(Conflict) as caught:
            machine.reserve_port(number)
    assert caught.value.exit_code == 5
    assert f"port {number}" in caught.value.what
    assert caught.value.where == f"127.0.0.1:{number}"


def test_a_server_as_vllms_binds_a_reserved_port():
    """SO_REUSEADDR, as uvicorn and http.server set it, is what lets the engine in and nobody else."""
    port = machine.reserve_port()
    with pytest.raises(OSError, match="in use"):
        listener(port.number)
    with HTTPServer((machine.LOOPBACK, port.number), SimpleHTTPRequestHandler) as server:
        assert server.server_port == port.number
        with pytest.raises(Conflict):
            machine.reserve_port(port.number)
    port.release()


def test_a_released_port_is_free_again():
    port = machine.reserve_port()
    port.release()
    with listener(port.number) as taken:
        assert taken.getsockname()[1] == port.number
    again = machine.reserve_port(port.number)
    assert again.number == port.number
    again.release()


def test_a_port_that_needs_privileges(script):
    if os.geteuid() != 0:
        pytest.skip("only root can become a user without privileges")
    code = """
import os, sys
from modelberth.adapters import machine
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    machine.reserve_port(81).release()
except Exception as error:
    print(type(error).__name__, error.exit_code)
else:
    print("bound")
"""
    said = script(code).lines.next()
    if said == "bound":
        pytest.skip("this system lets everybody bind low ports")
    assert said == f"{AuthError.__name__} 4"


def test_this_machine_has_memory_and_processors():
    memory = machine.available_memory()
    assert memory is not None
    assert 0 < memory < 1 << 50
    assert set(machine.processors()) == os.sched_getaffinity(0)


def test_nobody_answers_on_a_reserved_port():
    port = machine.reserve_port()
    with socket.socket() as client:
        assert client.connect_ex((machine.LOOPBACK, port.number)) == errno.ECONNREFUSED
    port.release()
