"""Hooks of schemathesis: of the requests that the document allows, half name sockets and rooms that are there and times
that are durations, so that the API is asked for what it can do and not only for what it must refuse. ADMIN is the URL of
the admin listener."""

import json
import os
import urllib.request

import schemathesis

ROOMS = ["lobby", "game-7"]

turns = 0


def sids():
    """The sockets that are connected now: those that were sent away come back under other sids."""
    with urllib.request.urlopen(f"{os.environ['ADMIN']}/api/v1/sockets?namespace=/", timeout=10) as answer:
        return sorted(socket["sid"] for socket in json.load(answer)["sockets"])


@schemathesis.hook
def before_call(context, case, **kwargs):
    global turns
    # What is meant to be wrong stays wrong.
    if not isinstance(case.body, dict) or not case.meta.generation.mode.is_positive:
        return
    turns += 1
    if turns % 2:
        return
    body = dict(case.body)
    if {"sid", "room"} & body.keys():
        say_whom(body)
    if isinstance(body.get("to"), list):
        body["to"] = ROOMS[: 1 + turns % len(ROOMS)]
    for key, value in (("timeout", "200ms"), ("hold", "1s"), ("for", "1s"), ("id", f"event {turns}")):
        if isinstance(body.get(key), str):
            body[key] = value
    case.body = body


def say_whom(body):
    """One way to say whom, where there are several."""
    others = {"sid", "room", "all"} & body.keys()
    way = sorted(others)[turns // 2 % len(others)]
    for key in others - {way}:
        del body[key]
    known = sids()
    if way == "sid" and known:
        body["sid"] = known[turns % len(known)]
    elif way == "room":
        body["room"] = ROOMS[turns % len(ROOMS)]
    elif way == "all":
        body["all"] = True
