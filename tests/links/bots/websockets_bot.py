"""A bot as the documentation of websockets shows one: it reconnects by itself. The URL is its argument.

It answers each message, and says on its standard output what happened to it, a line of JSON each."""

import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


def tell(**what):
    print(json.dumps(what), flush=True)


async def main():
    async for socket in connect(sys.argv[1]):
        tell(event="connect")
        try:
            async for text in socket:
                data = json.loads(text)
                if data["type"] != "message":
                    tell(event="other", data=data)
                    continue
                tell(event="message", id=data["id"], room=data["room"], n=data["n"])
                await socket.send(json.dumps({"type": "answer", "to": data["id"]}))
        except ConnectionClosed:
            pass
        tell(event="disconnect", code=socket.close_code)


asyncio.run(main())
