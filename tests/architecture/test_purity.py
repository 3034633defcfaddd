"""What the import contracts cannot see: clocks, stubs, names, raw SQL, paths of a machine."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

#: Reading them inside a decision would make it a different decision in the simulator.
AMBIENT = {
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "time.time",
    "time.monotonic",
    "time.time_ns",
    "random.random",
    "random.choice",
    "random.randint",
    "random.shuffle",
    "secrets.token_bytes",
    "secrets.token_hex",
    "secrets.token_urlsafe",
    "os.urandom",
    "uuid.uuid4",
    "uuid4",
}
CLOCK_MODULES = {"nexus_marketing/core/clock.py"}

RAW_SQL = {"sqlalchemy.text", "sqlalchemy.sql.text", "psycopg", "sqlite3"}


def calls(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found.add(ast.unparse(node.func))
    return found


@pytest.mark.req("MAINT-001")
def test_the_core_reads_neither_clock_nor_randomness(sources):
    found = {
        source.path: sorted(read)
        for source in sources
        if source.path.startswith("nexus_marketing/core/") and source.path not in CLOCK_MODULES
        if (read := calls(source.tree) & AMBIENT)
    }
    assert found == {}


@pytest.mark.req("MAINT-001")
def test_the_core_opens_no_connection(sources):
    network = {"urllib.request", "http.client", "socket", "smtplib", "ssl"}
    found = {
        source.path: sorted(source.imported & network)
        for source in sources
        if source.path.startswith("nexus_marketing/core/") and source.imported & network
    }
    assert found == {}


@pytest.mark.req("MAINT-002", "S10")
def test_there_is_one_way_out(sources):
    clients = {"aiohttp", "httpcore", "httpx", "requests", "ssrfguard", "urllib3", "http.client", "urllib.request"}
    found = {
        source.path
        for source in sources
        if source.path.startswith("nexus_marketing/")
        # Its own tests' channels, and the demo that plays the visitor of its own server.
        and not source.path.startswith(("nexus_marketing/plugin/testing/", "nexus_marketing/demo/"))
        and any(name == client or name.startswith(f"{client}.") for name in source.imported for client in clients)
    }
    ways = ("http", "http_transport", "policies", "sockets")
    assert found == {f"nexus_marketing/plugin/{name}.py" for name in ways}


@pytest.mark.req("MAINT-002", "SR-003")
def test_raw_sql_is_written_only_under_db(sources):
    found = {
        source.path: sorted(used)
        for source in sources
        if source.path.startswith("nexus_marketing/") and not source.path.startswith("nexus_marketing/db/")
        if (used := {name for name in source.imported if name in RAW_SQL or name.startswith("psycopg.")})
        or "exec_driver_sql" in source.text
    }
    assert found == {}


@pytest.mark.req("MAINT-004")
def test_plugins_import_only_the_plugin_api(sources):
    found = {}
    for source in sources:
        ours = {name for name in source.imported if name.split(".")[0] == "nexus_marketing"}
        foreign = {name for name in ours if not name.startswith("nexus_marketing.plugin")} - {"nexus_marketing"}
        if source.path.startswith("plugins/") and foreign:
            found[source.path] = sorted(foreign)
    assert found == {}


@pytest.mark.req("MAINT-006")
def test_class_names_say_what_kind_of_thing_it_is(sources):
    vague = re.compile(r"(Manager|Helper|Util|Utils|Handler|Impl)$")
    assert [
        f"{source.path}: {each.name}" for source in sources for each in source.classes if vague.search(each.name)
    ] == []


def is_contract(class_: ast.ClassDef | None) -> bool:
    return class_ is not None and any("Protocol" in ast.unparse(base) for base in class_.bases)


def is_stub(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether the body does nothing: ``pass``, ``...`` or ``raise NotImplementedError``."""
    if any("overload" in ast.unparse(each) or "abstract" in ast.unparse(each) for each in function.decorator_list):
        return False
    body = function.body
    if (
        isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    ):
        # A documented empty body is a decision: the null object says why it does nothing.
        body = body[1:]
        if not body:
            return False
    return all(
        isinstance(node, ast.Pass)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...)
        or (isinstance(node, ast.Raise) and node.exc is not None and "NotImplementedError" in ast.unparse(node.exc))
        for node in body
    )


@pytest.mark.req("MAINT-006")
def test_nothing_is_a_stub(sources):
    found = []
    for source in sources:
        owners = {id(each): class_ for class_ in source.classes for each in class_.body}
        found += [
            f"{source.path}:{function.lineno} {function.name}"
            for function in source.functions
            if is_stub(function) and not is_contract(owners.get(id(function)))
        ]
    assert found == []


@pytest.mark.req("MAINT-006")
def test_nothing_is_put_off(repository_files):
    put_off = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    kinds = (".py", ".md", ".toml", ".cfg", ".ini", ".lark", ".mako", ".html", "Makefile", "run")
    found = []
    for path in repository_files:
        if path.endswith(kinds) and not path.startswith(("requirements/", "docs/reference/requirements.md")):
            for number, line in enumerate((PROJECT / path).read_text(encoding="utf-8").splitlines(), 1):
                if put_off.search(line):
                    found.append(f"{path}:{number}")
    assert found == []


@pytest.mark.req("MAINT-006")
def test_no_file_names_a_folder_of_somebodys_machine(repository_files):
    # In two pieces, so that this file does not name them either. An example may speak of somebody's home,
    # but not of the one in which it was written.
    mine = [re.escape(str(folder)) for folder in (PROJECT, Path.home()) if len(folder.parts) > 2]
    general = [f"/{start}{end}(?=/)" for start, end in (("wo", "rk"), ("ro", "ot"), ("fa", "rm"))]
    folders = re.compile(r"(?<![\w.~$}\]-])(?:" + "|".join(mine + general) + ")")
    found = []
    for path in repository_files:
        content = (PROJECT / path).read_bytes()
        if b"\0" not in content[:1000]:
            found += [
                f"{path}:{number}"
                for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1)
                if folders.search(line)
            ]
    assert found == []
