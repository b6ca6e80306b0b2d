"""Choosing ports."""

import contextlib
import socket

import pytest

from bluesky_plugins.embedded.parts import StackError
from bluesky_plugins.embedded.ports import PortReservations, PortWish, choose_ports
from tests.servers import free_port


@pytest.fixture
def reservations(tmp_path):
    with contextlib.closing(PortReservations(tmp_path)) as reservations:
        yield reservations


@pytest.fixture
def port():
    return free_port()


def taking(*taken: int):
    return lambda port, wish: port not in taken


def test_the_usual_port_is_used_where_it_is_free():
    assert choose_ports([PortWish("kafka", 9092)], {}, taking()) == {"kafka": 9092}


def test_the_next_free_port_is_used_where_the_usual_one_is_taken():
    assert choose_ports([PortWish("kafka", 9092)], {}, taking(9092, 9093)) == {"kafka": 9094}


def test_the_port_of_last_time_comes_before_the_usual_one():
    assert choose_ports([PortWish("kafka", 9092)], {"kafka": 9999}, taking()) == {"kafka": 9999}


def test_the_port_of_last_time_is_left_when_it_is_taken():
    assert choose_ports([PortWish("kafka", 9092)], {"kafka": 9999}, taking(9999)) == {"kafka": 9092}


def test_two_parts_never_get_one_port():
    wishes = [PortWish("a", 5064), PortWish("b", 5064)]
    assert choose_ports(wishes, {}, taking()) == {"a": 5064, "b": 5065}


def test_a_port_that_a_person_chose_is_not_replaced():
    wish = PortWish("web", 80, fixed=True, setting="http.queueserver_port")
    with pytest.raises(StackError, match=r"port 80 \(http.queueserver_port\) is taken"):
        choose_ports([wish], {"web": 8080}, taking(80))


def test_no_free_port_is_an_error_that_names_the_part():
    with pytest.raises(StackError, match="no free port for kafka"):
        choose_ports([PortWish("kafka", 65500)], {}, lambda port, wish: False)


@pytest.mark.parametrize(
    ("kind", "wish"),
    [
        (socket.SOCK_STREAM, PortWish("tcp", 0)),
        (socket.SOCK_DGRAM, PortWish("udp", 0, tcp=False, udp=True)),
        (socket.SOCK_DGRAM, PortWish("both", 0, host="", udp=True)),
    ],
)
def test_a_port_that_somebody_uses_is_not_free(reservations, kind, wish):
    with socket.socket(socket.AF_INET, kind) as user:
        user.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            user.listen()
        assert not reservations.take(user.getsockname()[1], wish)


def test_a_server_can_bind_the_port_that_is_held_for_it(reservations, port):
    assert reservations.take(port, PortWish("web", port))
    with (
        socket.create_server(("127.0.0.1", port)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert client.getpeername()[1] == port


def test_no_outgoing_connection_gets_a_port_that_is_held(reservations):
    # One that the kernel gives to connections, and has not given to another test's just now.
    port = next(p for p in range(40000, 50000) if reservations.take(p, PortWish("web", p)))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        with pytest.raises(OSError, match="in use"):
            client.bind(("127.0.0.1", port))
        client.connect(server.getsockname())
        assert client.getsockname()[1] != port


def test_two_stacks_that_choose_at_once_do_not_get_one_port(tmp_path, port):
    one, two = PortReservations(tmp_path), PortReservations(tmp_path)
    try:
        assert one.take(port, PortWish("kafka", port))
        assert not two.take(port, PortWish("kafka", port))
        one.close()
        assert two.take(port, PortWish("kafka", port))
    finally:
        one.close()
        two.close()
