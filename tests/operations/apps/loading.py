"""What the apps with engines have in common: six engines that load slowly, and the answers of an app.

The engines of the incident took 34 s each; here ENGINE_SECONDS says how long one takes. MOMENTS names a file that gets a
line of JSON for each moment from which on something is so, which is what the test compares Bowline's words with.
"""

import json
import os
import socket
import time

ENGINES = ["intents", "entities", "embeddings", "reranker", "speech", "vision"]
SECONDS = float(os.environ.get("ENGINE_SECONDS", "34"))


def moment(what):
    line = json.dumps({"what": what, "at": time.time() * 1000})
    with open(os.environ["MOMENTS"], "a") as file:
        file.write(line + "\n")


def load(number):
    """Loads one: nothing else of this thread happens meanwhile."""
    time.sleep(SECONDS)
    print(f"engine {ENGINES[number]} is loaded", flush=True)


def notify(text):
    """sd_notify(3), in four lines."""
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        notifier.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)


async def lifespan(receive, send, startup):
    """The life of an ASGI app; `startup` is awaited before the server binds."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await startup()
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def answer(send, status, document):
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
