"""python-socketio, synchronous and asyncio, over every transport, against `bowline serve` (or, with
TARGET=reference, against the reference server). The cases of clients/cases.mjs, as far as this
client can do them.

    .venv/bin/pytest python
"""

import pytest
import socketio

from clients import until


def test_echo_text(connected):
    client = connected()
    client.echo("text", "hello")
    client.echo("no arguments")
    client.echo("several", 1, -2.5, True, False, None, "", [], {})
    client.echo("nested", {"a": [{"b": {"c": [1, [2, [3]]]}}], "": 0, "d e": '\n\t\\"/'})
    client.echo("big numbers", 2**53 - 1, 1e300, -0.000001)


def test_echo_unicode(connected):
    # Python escapes all but ASCII in its JSON; a gateway need not keep the escapes, but the words.
    client = connected()
    words = ["ünïcödé", "событие", "日本語", "🪢 knot", "\u2028 and \u2029", "nul \0 in", "\x1e", "\U0010ffff"]
    for word in words:
        client.echo("words", word, {word: word})
        client.echo(word, word)
    client.echo("words", "\ud800 alone")


def test_echo_binary(connected):
    client = connected()
    client.echo("one", b"\1\2\3")
    client.echo("first", b"\4", "then text", 5)
    client.echo("nested", {"a": {"b": [bytes(range(256)), {"c": b"\x1e\0\xff"}]}, "d": "text"})
    client.echo("several", *(bytes([i]) * (i + 1) for i in range(10)))
    client.echo("empty", b"", "rest")
    client.echo("text between", "b4", b"4", "b", b"b")
    client.echo("larger", b"\7" * 70_000)


def test_acks_of_client_events(connected, column):
    client = connected()
    assert client.ask("ask") == ()
    assert client.ask("ask", "one") == ("one",)
    assert client.ask("ask", 1, {"two": [3]}, None) == (1, {"two": [3]}, None)
    assert client.ask("ask", b"\1", {"deep": b"\2\3"}) == (b"\1", {"deep": b"\2\3"})

    answers = {}
    for numbers in groups(200, column):
        for n in numbers:
            client.emit("n", n, callback=lambda answer, n=n: answers.setdefault(n, answer))
        until(lambda: len(answers) > numbers[-1], lambda: f"200 acks, of which {len(answers)} came")
    assert answers == {n: n for n in range(200)}


def test_several_namespaces(connected):
    client = connected("/", "/relay")
    client.echo("here", "root")
    client.emit("here", "relay", namespace="/relay")
    until(lambda: client.heard["/relay"], "the event of /relay")
    assert client.heard == {"/": [("here", "root")], "/relay": [("here", "relay")]}


def test_refused_namespace(new_client):
    client = new_client("/", "/no-such-namespace")
    errors = []
    client.client.on("connect_error", errors.append, namespace="/no-such-namespace")
    with pytest.raises(socketio.exceptions.ConnectionError, match="/no-such-namespace"):
        client.connect()
    assert errors == [{"message": "Invalid namespace"}]


def test_payloads_near_the_limit(connected):
    client = connected()
    # Python escapes all but ASCII: six bytes for each of these letters.
    for payload in ("x" * 900_000, "ж" * 150_000, b"\xa5" * 700_000):
        client.echo("big", payload)
        assert client.ask("ask", payload) == (payload,)


def test_payload_over_the_limit(connected):
    client = connected()
    client.emit("too big", "x" * 1_200_000)
    until(lambda: client.disconnects, "the connection to be cut")
    until(lambda: client.connected, "the client to be back")
    client.echo("after it", 1)


def test_relay_to_all(connected):
    clients = [connected("/relay") for _ in range(3)]
    first = clients[0]

    def receivers():
        return first.ask("settle", namespace="/relay")[0]["receivers"]

    until(lambda: receivers() == 3, "the clients of other cases to be gone")
    for client in clients:
        until(lambda c=client: c.heard["/relay"].count(("settle",)) >= 1, "the last settle")
    said = [("say", "a"), ("say", "b", 1, {"c": None}), ("say", b"\1\2"), ("say", "ünï")]
    for event in said:
        assert first.ask(*event, namespace="/relay") == ({"receivers": 3},)
    for client in clients:
        heard = lambda c=client: [event for event in c.heard["/relay"] if event[0] == "say"]
        until(lambda: len(heard()) == 4, "the four events")
        assert heard() == said
    clients[2].close()
    until(lambda: receivers() == 2, "one receiver fewer")


def test_a_burst_in_order(connected, column):
    client = connected()
    heard = client.heard["/"]
    for numbers in groups(500, column):
        for n in numbers:
            client.emit("n", n)
        until(lambda: len(heard) > numbers[-1], lambda: f"500 echoes, of which {len(heard)} came")
    numbers = [n for _, n in heard]
    # The synchronous client runs each handler on a thread of its own: only the set is certain.
    assert (sorted(numbers) if column.startswith("sync") else numbers) == list(range(500))


def test_the_transport_asked_for(connected, column):
    client = connected()
    expected = "polling" if column.endswith("polling") else "websocket"
    until(lambda: client.current_transport == expected, f"the transport to be {expected}")
    client.echo("after it", 1)


def test_heartbeats(connected):
    # Four intervals of 300 ms are counted by the pings that the client got.
    client = connected()
    pings = []
    receive = client.client.eio._receive_packet

    def count(packet):
        if packet.packet_type == 2:
            pings.append(packet)
        return receive(packet)

    client.client.eio._receive_packet = count
    until(lambda: len(pings) >= 4, "four pings")
    client.echo("after four pings", 1)
    assert client.disconnects == []


def test_server_killed_and_started_again(connected, server):
    client = connected()
    client.echo("before", 1)
    server.kill()
    until(lambda: client.disconnects, "the client to notice")
    server.start()
    until(lambda: client.connected, "the client to be back")
    client.echo("after", b"\2")


def groups(count, column):
    """Numbers in as many groups as this client can take at once: python-engineio 4.15 gives up on a
    polling body of more than 16 packets (`Payload.max_decode_packets`), whoever sent it. A ping may
    travel in the same body."""
    size = 12 if column.endswith("polling") else count
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
