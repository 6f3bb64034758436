"""python-socketio (asyncio, on aiohttp) with the two handlers of `bowline serve`: `/` echoes,
`/relay` sends to everybody.

    ../tests/.venv/bin/python peers/python_server.py 8000
"""

import sys

import socketio
from aiohttp import web

server = socketio.AsyncServer(async_mode="aiohttp", namespaces=["/", "/relay"])
app = web.Application()
server.attach(app)


@server.on("message", namespace="/")
async def echo(sid, *args):
    await server.emit("message", args, to=sid)


@server.on("message", namespace="/relay")
async def relay(sid, *args):
    await server.emit("message", args, namespace="/relay")


web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
