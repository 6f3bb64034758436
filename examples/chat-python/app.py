"""A chat in Flask that holds no sockets: Bowline does, and asks here in JSON what to do.

One route, `/bowline`, gets everything: somebody connects, sends an event, is away, is back, is gone. The answer says what is to happen. docs/backend.md has
all keys of both. What nobody has asked for goes the other way, to Bowline's API. The other routes are the page.
"""

import json
import os
import threading
import time
import urllib.request
from collections import defaultdict, deque
from pathlib import Path

from flask import Flask, abort, jsonify, request, send_from_directory
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

HERE = Path(__file__).parent
PAGE = HERE.parent / "chat-page"
CLIENT = PAGE / "node_modules/socket.io-client/dist"

ROOMS = ["lounge", "kitchen", "garden"]
NAME_MAX, TEXT_MAX, HISTORY_MAX = 20, 2000, 100
# Seconds: longer than Bowline keeps a place (`continuity.window`). A Bowline that was killed could not say who has left.
AWAY_MAX = 300

# Where Bowline listens for operators; from another machine it wants a token.
ADMIN = os.environ.get("BOWLINE_ADMIN", "http://127.0.0.1:8001")

app = Flask(__name__)
# Bowline signs what it sends with this secret, so that nobody else can speak for our users.
webhook = Webhook((HERE / "secret").read_text().strip())

lock = threading.Lock()
people = {}  # sid -> {"name", "room"}
away = {}  # sid -> since when
history = defaultdict(lambda: deque(maxlen=HISTORY_MAX))  # room -> messages
last_number = 0


@app.post("/bowline")
def bowline():
    try:
        call = webhook.verify(request.get_data(), dict(request.headers))
    except WebhookVerificationError as error:
        abort(401, str(error))
    if call["type"] in ("away", "back", "disconnect"):
        presence(call)
        return jsonify({})
    with lock:
        return jsonify(answer(call))


def answer(call):
    if call["type"] == "connect":
        return connect(call)
    if call["type"] == "event":
        # What connect or enter answered as `data` comes back with each event. So an app that was started anew knows its people again.
        if "room" in call["data"]:
            people.setdefault(call["sid"], call["data"])
        handler = EVENTS.get(call["event"])
        return handler(call, *call["args"][:1]) if handler else error("unknown-event", f"there is no event {call['event']}")
    return {}  # Later versions of Bowline may say more.


def connect(call):
    """Whoever says a name may come in. A real app checks a token here."""
    auth = call["auth"]
    name = auth.get("name") if isinstance(auth, dict) else None
    if not isinstance(name, str) or not 1 <= len(name.strip()) <= NAME_MAX:
        return {"allow": False, "message": f"Please say a name of up to {NAME_MAX} letters.", "data": {"code": "name-missing"}}
    return {"allow": True, "data": {"name": name.strip()}}


def enter(call, room=None):
    """Somebody goes to another room; Bowline keeps who is where."""
    if room not in ROOMS:
        return error("unknown-room", "there is no such room")
    data = {"name": call["data"]["name"], "room": room}
    people[call["sid"]] = data
    leave = [name for name in call["rooms"] if name.startswith("room:") and name != f"room:{room}"]
    return {"data": data, "join": [f"room:{room}"], "leave": leave, "emit": [to_all("people", who_is_where())], "ack": [{}]}


def catch_up(call, *_):
    room = call["data"].get("room")
    return {"ack": [{"messages": list(history[room]) if room in ROOMS else [], "people": who_is_where()}]}


def say(call, text=None):
    room = call["data"].get("room")
    if room is None:
        return error("no-room", "please enter a room first")
    if not isinstance(text, str) or not 1 <= len(text.strip()) <= TEXT_MAX:
        return error("bad-text", f"a message has 1 to {TEXT_MAX} letters")
    message = {"id": number(), "room": room, "name": call["data"]["name"], "text": text.strip(), "at": int(time.time() * 1000)}
    history[room].append(message)
    return {"emit": [{"to": [f"room:{room}"], "event": "message", "args": [message]}], "ack": [{"id": message["id"]}]}


def typing(call, on=None):
    """To the others in the room: each socket is a room of its own too, by its sid."""
    room = call["data"].get("room")
    if room is None:
        return {}
    args = [{"room": room, "name": call["data"]["name"], "on": on is True}]
    return {"emit": [{"to": [f"room:{room}"], "except": [call["sid"]], "event": "typing", "args": args}]}


def presence(call):
    """Somebody has lost the connection, has found it again, or is gone. Nobody waits for the answer: the others are told by the API."""
    sid = call["sid"]
    with lock:
        person = people.get(sid)
        away.pop(sid, None)
        if call["type"] == "away":
            away[sid] = time.time()
        if call["type"] == "disconnect":
            people.pop(sid, None)
        told = to_all("people", who_is_where())
    if person:
        try:
            body = json.dumps(told).encode()
            headers = {"content-type": "application/json"}
            urllib.request.urlopen(urllib.request.Request(f"{ADMIN}/api/v1/emit", body, headers), timeout=3).close()
        except OSError as problem:
            app.logger.warning("the others do not know yet of %s (%s): %s", person["name"], call["type"], problem)


EVENTS = {"enter": enter, "history": catch_up, "say": say, "typing": typing}


def who_is_where():
    for sid in [sid for sid, since in away.items() if time.time() - since > AWAY_MAX]:
        del away[sid]
        people.pop(sid, None)
    rooms = {room: [] for room in ROOMS}
    for sid, person in people.items():
        rooms[person["room"]].append({"name": person["name"], "away": sid in away})
    return {"version": number(), "rooms": rooms}


def number():
    """Numbers that grow, over restarts too."""
    global last_number
    last_number = max(last_number + 1, int(time.time() * 1000))
    return last_number


def to_all(event, *args):
    return {"to": "all", "event": event, "args": args}


def error(code, message):
    """In the shape in which Bowline tells clients of its own troubles."""
    return {"ack": [{"error": {"code": code, "message": message, "retry": False}}]}


@app.get("/")
def page():
    return send_from_directory(PAGE, "index.html")


@app.get("/<any('chat.js', 'chat.css'):name>")
def file(name):
    return send_from_directory(PAGE, name)


@app.get("/socket.io.js")
def client():
    return send_from_directory(CLIENT, "socket.io.esm.min.js")


@app.get("/config.json")
def config():
    return {"bowline": os.environ.get("BOWLINE_URL", "http://127.0.0.1:8000"), "rooms": ROOMS}


if __name__ == "__main__":
    from waitress import serve

    port = int(os.environ.get("CHAT_PORT", "5050"))
    print(f"the chat is at http://127.0.0.1:{port}/", flush=True)
    # As many threads as Bowline asks at once (`max-concurrent`).
    serve(app, host="127.0.0.1", port=port, threads=16, max_request_body_size=2_000_000, _quiet=True)
