"""The two clients of python-socketio behind one face, so that each case is written once."""

import asyncio
import sys
import threading
import time

import socketio

# The synchronous client handles each message on a new thread, which may be overtaken by the next
# one if Python switches between them. It rarely does; with long time slices hardly ever.
sys.setswitchinterval(0.2)

# Seconds that a condition may take. Far more than it needs: a deadline, not a figure.
DEADLINE = 15

TRANSPORTS = {
    "polling": ["polling"],
    "websocket": ["websocket"],
    "upgrade": ["polling", "websocket"],
}

OPTIONS = {"reconnection_delay": 0.05, "reconnection_delay_max": 0.2, "randomization_factor": 0}


class SyncClient:
    """`socketio.Client`, each on threads of its own."""

    def __init__(self, url, transport, namespaces=("/",)):
        self.url, self.transport = url, transport
        self.heard = {namespace: [] for namespace in namespaces}  # events, names first, in order
        self.disconnects = []
        self.client = socketio.Client(**OPTIONS)
        self._listen()

    def connect(self):
        self._do(self.client.connect(
            self.url,
            transports=TRANSPORTS[self.transport],
            namespaces=list(self.heard),
            wait_timeout=DEADLINE,
        ))
        return self

    def emit(self, event, *args, namespace="/", callback=None):
        self._do(self.client.emit(event, args, namespace=namespace, callback=callback))

    def ask(self, event, *args, namespace="/"):
        """The arguments with which an event is acked, as a tuple."""
        answers = []
        self.emit(event, *args, namespace=namespace, callback=lambda *answer: answers.append(answer))
        until(lambda: answers, f"the ack of {event}")
        return answers[0]

    def echo(self, event, *args, namespace="/"):
        """Emits an event and waits for the next one, which must be the same."""
        heard = self.heard[namespace]
        seen = len(heard)
        self.emit(event, *args, namespace=namespace)
        until(lambda: len(heard) > seen, f"the echo of {event}")
        assert heard[seen] == (event, *args)

    def close(self):
        self._do(self.client.disconnect())

    @property
    def connected(self):
        return self.client.connected and set(self.heard) == set(self.client.namespaces)

    @property
    def current_transport(self):
        return self.client.eio.transport()

    @property
    def engine_id(self):
        return self.client.eio.sid

    def _listen(self):
        for namespace, heard in self.heard.items():
            # A handler per namespace keeps the list it belongs to.
            def on_any(event, *args, heard=heard):
                heard.append((event, *args))

            self.client.on("*", on_any, namespace=namespace)
        self.client.on("disconnect", self.disconnects.append, namespace=next(iter(self.heard)))

    def _do(self, result):
        return result


class AsyncClient(SyncClient):
    """`socketio.AsyncClient`, all on one event loop in a thread."""

    loop = None

    def __init__(self, url, transport, namespaces=("/",)):
        if AsyncClient.loop is None:
            AsyncClient.loop = asyncio.new_event_loop()
            threading.Thread(target=AsyncClient.loop.run_forever, daemon=True).start()
        self.url, self.transport = url, transport
        self.heard = {namespace: [] for namespace in namespaces}
        self.disconnects = []
        self.client = self._do(self._make())
        self._listen()

    async def _make(self):
        return socketio.AsyncClient(**OPTIONS)

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(2 * DEADLINE)


CLIENTS = {"sync": SyncClient, "asyncio": AsyncClient}


def until(condition, what, deadline=DEADLINE):
    """Waits for a condition."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what() if callable(what) else what}"
        time.sleep(0.005)
