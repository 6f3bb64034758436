"""Fixtures, and the table at the end."""

import pytest

import target
from clients import CLIENTS, TRANSPORTS

results = {}  # case -> column -> "ok" | "FAILED"


@pytest.fixture(scope="session", params=[f"{c}/{t}" for c in CLIENTS for t in TRANSPORTS])
def column(request):
    return request.param


@pytest.fixture(scope="session")
def server(column, tmp_path_factory):
    """A server for one client over one transport. It pings every 300 ms."""
    server = target.Target(tmp_path_factory.mktemp("server"), ping_interval_ms=300)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def new_client(server, column):
    """Makes clients, not connected yet, and closes them after the case."""
    kind, transport = column.split("/")
    made = []

    def make(*namespaces):
        made.append(CLIENTS[kind](server.url, transport, namespaces or ("/",)))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def connected(new_client):
    """Makes connected clients."""
    return lambda *namespaces: new_client(*namespaces).connect()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    # Tests that are not of the matrix have no column in it.
    column = getattr(item, "callspec", None) and item.callspec.params.get("column")
    if column and (report.when == "call" or report.failed):
        case = item.originalname.removeprefix("test_").replace("_", " ")
        result = "ok" if report.passed else "FAILED"
        results.setdefault(case, {})[column] = result


def pytest_terminal_summary(terminalreporter):
    columns = list(dict.fromkeys(column for row in results.values() for column in row))
    width = max(map(len, results), default=0)
    write = terminalreporter.write_line
    write(f"\npython-socketio 5.18.1 against {target.NAME}")
    write("  ".join([" " * width, *(f"{column:<17}" for column in columns)]).rstrip())
    for case, row in results.items():
        cells = (f"{row.get(column, '-'):<17}" for column in columns)
        write("  ".join([f"{case:<{width}}", *cells]).rstrip())
    outcomes = [outcome for row in results.values() for outcome in row.values()]
    passed = outcomes.count("ok")
    write(f"python matrix: {passed} ok, {len(outcomes) - passed} failed")
