"""A bot as the documentation of python-socketio shows one. URL and namespace are its arguments.

It answers each message, acknowledges it, and says on its standard output what happened to it, a line of JSON each."""

import asyncio
import json
import sys

import socketio

url, namespace = sys.argv[1:]
client = socketio.AsyncClient()


def tell(**what):
    print(json.dumps(what), flush=True)


@client.on("connect", namespace=namespace)
async def connect():
    tell(event="connect")


@client.on("disconnect", namespace=namespace)
async def disconnect(reason=None):
    tell(event="disconnect", reason=reason)


@client.on("message", namespace=namespace)
async def message(told):
    event, data = told["data"]
    tell(event=event, id=told["id"], room=told["room"], n=data["n"], attempt=told["attempt"])
    await client.emit("answer", {"to": told["id"]}, namespace=namespace)
    return "thanks for " + told["id"]


async def main():
    await client.connect(url, namespaces=[namespace])
    await client.wait()


asyncio.run(main())
