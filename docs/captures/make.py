"""Draws terminal captures: what a command prints on a terminal of 100 columns, as SVG.

    pip install rich
    python docs/captures/make.py NAME -- COMMAND…     writes docs/captures/NAME.svg
"""

import pathlib
import shlex
import subprocess
import sys

from rich.console import Console
from rich.text import Text

COLUMNS = 100

name, command = sys.argv[1], sys.argv[3:]
shown = shlex.join(["bowline" if word.endswith("/bowline") else word for word in command])
script = f"stty cols {COLUMNS} rows 60; exec {shlex.join(command)}"
printed = subprocess.run(["script", "-qec", script, "/dev/null"], capture_output=True, check=False).stdout.decode()

console = Console(record=True, width=COLUMNS, file=open("/dev/null", "w"), force_terminal=True)
console.print(Text.assemble(("$ ", "green"), shown))
console.print(Text.from_ansi(printed.replace("\r\n", "\n").rstrip()))
target = pathlib.Path(__file__).with_name(f"{name}.svg")
target.write_text(console.export_svg(title="bowline", unique_id=name))
print(target)
