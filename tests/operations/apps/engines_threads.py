"""Loads its engines in a thread: it answers from the first moment on, 503 with how far it is until all are loaded."""

import threading

from loading import ENGINES, answer, lifespan, load, moment

states = {name: "waiting" for name in ENGINES}


def load_all():
    for number, name in enumerate(ENGINES):
        states[name] = "loading"
        moment(f"{number * 100 // len(ENGINES)} %")
        load(number)
        states[name] = "ready"
    moment("ready")


async def startup():
    threading.Thread(target=load_all, daemon=True).start()


def health():
    """As Bowline's own /health/ready has it."""
    ready = all(state == "ready" for state in states.values())
    parts = [{"name": name, "state": state, "progress": float(state == "ready")} for name, state in states.items()]
    return {"status": "ready" if ready else "starting", "components": parts}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send, startup)
        return
    document = health()
    await answer(send, 200 if document["status"] == "ready" else 503, document)
