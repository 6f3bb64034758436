"""Passes on what the orders app says; an ASGI app for uvicorn that asks it once at its start."""

import asyncio
import json
import os
from urllib.request import urlopen

from loading import answer, lifespan

ORDERS = f"http://127.0.0.1:{os.environ['ORDERS_PORT']}/"


def orders():
    with urlopen(ORDERS, timeout=2) as response:
        return json.load(response)["orders"]


async def startup():
    # Without what it needs it does not even start.
    await asyncio.to_thread(orders)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send, startup)
        return
    try:
        await answer(send, 200, {"orders": await asyncio.to_thread(orders)})
    except OSError as error:
        await answer(send, 503, {"error": str(error)})
