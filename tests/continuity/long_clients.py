"""Clients of python-socketio for long.mjs, in one process. The same as long-clients.mjs: JSON on stdin and stdout."""

import asyncio
import json
import os
import sys
import time

import socketio

TRANSPORTS = [["websocket"], ["polling", "websocket"], ["polling"]]
STATUS_SECONDS = 0.2
WATCH_SECONDS = 0.5
# Seconds that a CONNECT may wait for its answer when the client connects for the first time.
PATIENCE = 20


def say(what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Client:
    """One client. Its own reconnection gives up where an error escapes it: when a poll is cut within its body, and when the
    server has ended a session with `1`. As an app would, this then goes on with another `AsyncClient`."""

    def __init__(self, index, told):
        # Half of them where events are repeated in doubt, half where they are skipped.
        self.index, self.url = index, told["url"]
        self.namespace = told["namespaces"][index % len(told["namespaces"])]
        self.transports = TRANSPORTS[index // len(told["namespaces"]) % len(TRANSPORTS)]
        self.got, self.story = [], []
        self.fresh = self.recovered = self.revived = 0
        self.ended = False
        self.sid = None
        self.client = self.make()

    def make(self):
        client = socketio.AsyncClient(
            reconnection_delay=0.05, reconnection_delay_max=0.5, randomization_factor=0.02
        )
        for event in ("connect", "disconnect", "connect_error", "n", "end"):
            client.on(event, getattr(self, "on_" + event), namespace=self.namespace)
        return client

    async def connect(self):
        await self.client.connect(
            self.url,
            # A function, since the client takes the cookie out of a dictionary when it uses it.
            headers=lambda: {"Cookie": f"device=python-{self.index}"},
            transports=self.transports,
            namespaces=[self.namespace],
            wait_timeout=PATIENCE,
            retry=True,
        )

    def has_given_up(self):
        reads, returns = self.client.eio.read_loop_task, self.client._reconnect_task
        if returns is not None:
            return returns.done()
        return not self.client.connected or reads is None or reads.done()

    async def watch(self):
        """Never returns."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            # What it looks like for a moment between two connections does not count.
            if not self.has_given_up():
                continue
            await asyncio.sleep(WATCH_SECONDS)
            if self.has_given_up():
                self.revived += 1
                self.tell("revived", None)
                self.client = self.make()
                try:
                    await self.connect()
                except Exception as error:
                    self.tell("refused", str(error))

    def on_connect(self):
        sid = self.client.get_sid(self.namespace)
        if sid == self.sid:
            self.recovered += 1
        else:
            self.fresh += 1
            say({"fresh": {"index": self.index, "namespace": self.namespace, "sid": sid}})
        self.tell("connect", ("recovered " if sid == self.sid else "fresh ") + str(sid))
        self.sid = sid

    def on_disconnect(self, reason):
        self.tell("disconnect", reason)

    def on_connect_error(self, *error):
        self.tell("refused", str(error))

    def on_n(self, *args):
        number, payload = args[0], args[1]
        whole = payload == str(number).encode() or payload == {"words": "é"}
        if not whole or len(args) != 2:
            self.tell("spoilt", [number, len(args)])
        else:
            self.got.append(number)

    def on_end(self):
        self.ended = True

    def tell(self, what, details):
        self.story.append([int(time.time() * 1000), what, details])

    def report(self):
        names = ("index", "namespace", "transports", "got", "story", "fresh", "recovered", "revived", "ended")
        return {"kind": "python", **{name: getattr(self, name) for name in names}}


async def main():
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    told = json.loads(await lines.readline())
    clients = [Client(index, told) for index in range(told["count"])]
    connecting = asyncio.gather(*(client.connect() for client in clients))

    async def tell_status():
        while True:
            connected = sum(client.client.connected for client in clients)
            say({"connected": connected, "ended": sum(client.ended for client in clients)})
            await asyncio.sleep(STATUS_SECONDS)

    status = asyncio.create_task(tell_status())
    await connecting
    watching = [asyncio.create_task(client.watch()) for client in clients]
    await lines.readline()
    for task in watching:
        task.cancel()
    status.cancel()
    for client in clients:
        say({"report": client.report()})
    say({"done": True})
    # Clients that are not closed complain of it when the interpreter ends.
    os._exit(0)


asyncio.run(main())
