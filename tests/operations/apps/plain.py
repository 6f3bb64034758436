"""Says which process answers, as WSGI and as ASGI."""

import os

from loading import answer, lifespan


async def startup():
    pass


def wsgi(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    return [str(os.getpid()).encode()]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send, startup)
    else:
        await answer(send, 200, os.getpid())
