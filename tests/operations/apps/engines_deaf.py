"""Loads its engines in a task that begins right after the port is bound: connections are accepted, and nobody answers.

The blocking work stands in a coroutine, so it holds up the only thread there is. It says nothing about how far it is.
"""

import asyncio
import os
import socket

from loading import ENGINES, answer, lifespan, load, moment

tasks = set()


def is_bound():
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(os.environ["APP_PORT"]))) == 0


async def load_all():
    while not is_bound():
        await asyncio.sleep(0)
    moment("deaf")
    for number in range(len(ENGINES)):
        load(number)
    moment("ready")


async def startup():
    tasks.add(asyncio.create_task(load_all()))


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send, startup)
    else:
        await answer(send, 200, {"status": "ready"})
