"""An app behind HTTP with nothing but Python's own server: python backend-app.py PORT SECRET-FILE

Refuses what is not signed as Standard Webhooks has it, by the official library.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook

PORT, SECRET_FILE = int(sys.argv[1]), sys.argv[2]
WEBHOOK = Webhook(open(SECRET_FILE).read().strip())
NAMES = {}


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = WEBHOOK.verify(body.decode(), headers)
        answer = json.dumps(answer_of(asked)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def answer_of(asked):
    if asked["type"] == "connect":
        name = (asked["auth"] or {}).get("name")
        if not name:
            return {"allow": False, "message": "who are you?", "data": {"code": "no-name"}}
        NAMES[asked["sid"]] = name
        return {"allow": True, "rooms": ["lobby"], "data": {"name": name}}
    if asked["type"] == "disconnect":
        NAMES.pop(asked["sid"], None)
        return {}
    if asked["event"] == "say":
        message = {"from": asked["data"]["name"], "text": asked["args"][0]}
        return {"ack": ["said"], "emit": [{"to": ["lobby"], "event": "message", "args": [message]}]}
    if asked["event"] == "who":
        return {"ack": [sorted(NAMES.values())]}
    return {"ack": asked["args"]}


ThreadingHTTPServer(("127.0.0.1", PORT), App).serve_forever()
