"""python-socketio (asyncio, on aiohttp) with the handlers that all peers have: `/` echoes,
`/relay` sends to everybody, `/rooms` to the room that a client named when it connected.

    ../.venv/bin/python python_server.py 8000

The echo is an ack and nothing else: a handler is not told whether one was asked for.
"""

import sys

import socketio
from aiohttp import web

server = socketio.AsyncServer(async_mode="aiohttp", namespaces=["/", "/relay", "/rooms"])
app = web.Application()
server.attach(app)


@server.on("message", namespace="/")
async def echo(sid, *args):
    return args


@server.on("message", namespace="/relay")
async def relay(sid, *args):
    await server.emit("message", args, namespace="/relay")


@server.on("connect", namespace="/rooms")
async def join(sid, environ, auth):
    await server.save_session(sid, auth["room"], namespace="/rooms")
    await server.enter_room(sid, auth["room"], namespace="/rooms")


@server.on("message", namespace="/rooms")
async def to_room(sid, *args):
    room = await server.get_session(sid, namespace="/rooms")
    await server.emit("message", args, to=room, namespace="/rooms")


web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
