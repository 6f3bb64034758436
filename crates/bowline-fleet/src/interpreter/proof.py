# Runs as `python -I -c`: says what this interpreter is and whether it finds what an entry imports.
# Nothing of the entry is executed; only first components are looked for, since looking for a submodule
# imports its package.
import ast
import importlib.metadata
import importlib.util
import json
import os
import site
import sys

asked = json.loads(sys.argv[1])
said = {
    "version": "%d.%d.%d" % sys.version_info[:3],
    "prefix": sys.prefix,
    "base": sys.base_prefix,
    "missing": [],
    "guarded": [],
    "pins": {},
}


def paths():
    """What the service would find before the interpreter's own paths, which -I leaves out."""
    first = asked["first"]
    return [path for path in [first] + os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def add_user_site():
    # A virtual environment leaves it out by itself, unless its configuration lets the system's in.
    if sys.prefix == sys.base_prefix and not os.environ.get("PYTHONNOUSERSITE"):
        directory = site.getusersitepackages()
        if os.path.isdir(directory):
            site.addsitedir(directory)


def found(name):
    if name in sys.builtin_module_names:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def file_of(module):
    """The file that `python -m module` runs; None for one that is no file or not there."""
    parts = module.split(".")
    try:
        spec = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or [])
    for index, part in enumerate(parts[1:], 1):
        last = index == len(parts) - 1
        for place in places:
            if os.path.isdir(os.path.join(place, part)):
                places = [os.path.join(place, part)]
                break
            if last and os.path.isfile(os.path.join(place, part + ".py")):
                return os.path.join(place, part + ".py")
        else:
            raise LookupError(".".join(parts[: index + 1]))
    if asked["kind"] == "module" and places:
        return next((p for p in (os.path.join(place, "__main__.py") for place in places) if os.path.isfile(p)), None)
    if places:
        return next((p for p in (os.path.join(place, "__init__.py") for place in places) if os.path.isfile(p)), None)
    return spec.origin if spec.origin and spec.origin.endswith(".py") else None


def imports(body, guarded, out):
    """Gathers (first component, line, whether it may be missing) of what runs when the file is loaded."""
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                out.append((alias.name.split(".")[0], node.lineno, guarded))
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and node.module:
                out.append((node.module.split(".")[0], node.lineno, guarded))
        elif isinstance(node, ast.If):
            # A condition: of the type checker, the platform, the main guard.
            if "TYPE_CHECKING" not in ast.dump(node.test):
                imports(node.body, guarded or not is_main(node.test), out)
            imports(node.orelse, True, out)
        elif isinstance(node, ast.Try) or type(node).__name__ == "TryStar":
            imports(node.body, guarded or bool(node.handlers), out)
            for handler in node.handlers:
                imports(handler.body, True, out)
            imports(node.orelse, guarded or bool(node.handlers), out)
            imports(node.finalbody, guarded, out)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            # `contextlib.suppress` for example.
            imports(node.body, True, out)
        elif isinstance(node, ast.ClassDef):
            imports(node.body, guarded, out)
        elif isinstance(node, (ast.For, ast.While)):
            imports(node.body, True, out)


def is_main(test):
    """Whether this is the guard of a script, which is true when it is run as one."""
    if not isinstance(test, ast.Compare):
        return False
    return asked["kind"] != "import" and "'__main__'" in ast.dump(test)


def changes_path(tree):
    """Whether the entry chooses for itself where modules are looked for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "path":
            if isinstance(node.value, ast.Name) and node.value.id == "sys":
                return True
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "addsitedir":
            return True
    return False


def main():
    add_user_site()
    # Before the service's own paths count: this imports more, which a file of the user's could be named like.
    for name in asked["pins"]:
        try:
            said["pins"][name] = importlib.metadata.version(name)
        except Exception:
            pass
    sys.path[:0] = paths()
    entry = asked["entry"]
    if asked["kind"] in ("module", "import"):
        first = asked["entry"].split(".")[0]
        if not found(first):
            said["missing"].append({"name": first, "line": 0})
            return
        try:
            entry = file_of(asked["entry"])
        except LookupError as error:
            said["missing"].append({"name": str(error), "line": 0})
            return
    if not entry:
        return
    said["entry"] = entry
    if os.path.isdir(entry) or entry.endswith((".pyz", ".zip")):
        return
    try:
        with open(entry, "rb") as file:
            tree = ast.parse(file.read(), entry)
    except OSError as error:
        said["unreadable"] = str(error)
        return
    except SyntaxError as error:
        said["syntax"] = {"line": error.lineno or 0, "words": error.msg}
        return
    except ValueError as error:
        said["syntax"] = {"line": 0, "words": str(error)}
        return
    gathered = []
    imports(tree.body, False, gathered)
    lenient = changes_path(tree)
    seen = {}
    for name, line, guarded in gathered:
        if name not in seen:
            seen[name] = found(name)
        if seen[name]:
            continue
        kind = "guarded" if guarded or lenient else "missing"
        if all(known["name"] != name for known in said[kind]):
            said[kind].append({"name": name, "line": line})


main()
print(json.dumps(said))
