"""Loads its engines in the start-up hook: uvicorn binds its port when all are loaded, and refuses until then.

It says how far it is on the notify socket.
"""

from loading import ENGINES, answer, lifespan, load, moment, notify


async def startup():
    moment("refused")
    for number, name in enumerate(ENGINES):
        moment(f"{number} of {len(ENGINES)}")
        notify(f"STATUS=loading {name}\nX_BOWLINE_PROGRESS={number}/{len(ENGINES)}")
        # This is what holds up the whole start, and so it is here.
        load(number)
    notify(f"STATUS=\nX_BOWLINE_PROGRESS={len(ENGINES)}/{len(ENGINES)}")
    moment("ready")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send, startup)
    else:
        await answer(send, 200, {"status": "ready"})
