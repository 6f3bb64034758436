"""Prints numbers for ever, and has a descendant that has left it: in a session of its own, with a parent that is gone, deaf to SIGTERM.

A lock that both hold as long as they live tells whether another instance was ever started beside one.
"""

import fcntl
import os
import signal
import socket
import sys
import time

directory = sys.argv[1]
lock = open(f"{directory}/lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    open(f"{directory}/second", "w").close()

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1000)
    os._exit(0)
os.wait()

with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
    notifier.sendto(b"READY=1", "\0" + os.environ["NOTIFY_SOCKET"][1:])
number = 0
while True:
    print("number", number, flush=True)
    number += 1
    time.sleep(0.01)
