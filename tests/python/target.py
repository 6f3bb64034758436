"""Starts the server under test: `bowline serve` (BOWLINE_BIN, by default the debug build), or with
TARGET=reference the reference server with the same two handlers. The same as clients/target.mjs."""

import http.client
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
NAME = "reference" if os.environ.get("TARGET") == "reference" else "bowline"

# Seconds until a server that was started must answer. A debug build on a busy machine.
START_DEADLINE = 15


class Target:
    def __init__(self, folder, ping_interval_ms=25_000):
        self.folder = Path(folder)
        self.ping_interval_ms = ping_interval_ms
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = tempfile.TemporaryFile("w+")
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,  # a group of its own, so that kill() also reaches its children
        )
        deadline = time.monotonic() + START_DEADLINE
        while not self._is_live():
            assert self.process.poll() is None, f"the server ended:\n{self.said()}"
            assert time.monotonic() < deadline, f"the server does not answer:\n{self.said()}"
            time.sleep(0.02)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """Ends the server for good, and fails if it had ended by itself."""
        ended = self.process.poll()
        if ended is None:
            self.kill()
        assert ended is None, f"the server ended by itself: {ended}\n{self.said()}"

    def said(self):
        self.log.seek(0)
        return self.log.read()[-4000:]

    def _command(self):
        listen = f"127.0.0.1:{self.port}"
        interval = f"{self.ping_interval_ms}ms"
        if NAME == "reference":
            settings = f'{{"engine":{{"ping-interval":"{interval}"}}}}'
            script = TESTS / "reference" / "relay-server.mjs"
            return ["node", str(script), "--listen", listen, "--settings", settings]
        binary = os.environ.get("BOWLINE_BIN", TESTS.parent / "target/debug/bowline")
        config = self.folder / "bowline.toml"
        config.write_text(f'[engine]\nping-interval = "{interval}"\n')
        return [str(binary), "serve", "--listen", listen, "--admin-listen", "127.0.0.1:0", "--config", str(config)]

    def _is_live(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/health/live", headers={"Connection": "close"})
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def free_port():
    """A port that was free a moment ago, below the range given to outgoing connections, so that a
    server can be started again on it."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
