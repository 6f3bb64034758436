"""A python-socketio server that sends one binary event to everybody: `mixed-audience.py PORT`, then POST /emit."""

import sys

import socketio
from aiohttp import web

sio = socketio.AsyncServer(async_mode="aiohttp")
app = web.Application()
sio.attach(app)


async def emit(_request):
    await sio.emit("blob", b"abc")
    return web.Response()


app.router.add_post("/emit", emit)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
