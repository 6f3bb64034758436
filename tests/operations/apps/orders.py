"""Counts orders in Redis; a WSGI app for gunicorn. It speaks Redis' protocol by hand, which is one line each way."""

import json
import os
import socket

REDIS = ("127.0.0.1", int(os.environ["REDIS_PORT"]))


def redis(*words):
    with socket.create_connection(REDIS, timeout=2) as connection:
        connection.sendall((" ".join(words) + "\r\n").encode())
        said = connection.makefile("rb").readline().decode().strip()
    if said.startswith("-"):
        raise RuntimeError(said)
    return said[1:]


# As apps do: without what it needs it does not even start.
redis("PING")


def app(environ, start_response):
    try:
        status, document = "200 OK", {"orders": int(redis("INCR", "orders"))}
    except OSError as error:
        status, document = "503 Service Unavailable", {"error": str(error)}
    start_response(status, [("content-type", "application/json")])
    return [json.dumps(document).encode()]
