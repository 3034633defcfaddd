"""The sizes of STYLE: small functions, modules of one idea, constructors one can call."""

import ast
import statistics

import pytest

pytestmark = pytest.mark.req("MAINT-006")

MODULE_LINES = 600
MODULE_LINES_P90 = 350
FUNCTION_LINES_P90 = 35
CONSTRUCTOR_ARGUMENTS = 6


def p90(numbers: list[int]) -> float:
    return statistics.quantiles(numbers, n=10)[-1]


def is_generated(path: str) -> bool:
    # A migration is a record of what was done, not code that anybody changes.
    return "migrations/versions/" in path


def test_no_module_outgrows_its_purpose(sources):
    lengths = {source.path: source.text.count("\n") for source in sources if not is_generated(source.path)}
    assert {path: lines for path, lines in lengths.items() if lines > MODULE_LINES} == {}
    assert p90(list(lengths.values())) <= MODULE_LINES_P90


def test_most_functions_fit_on_a_screen(sources):
    lengths = [
        function.end_lineno - function.lineno + 1
        for source in sources
        if not is_generated(source.path)
        for function in source.functions
    ]
    assert p90(lengths) <= FUNCTION_LINES_P90


def test_constructors_take_at_most_six_arguments(sources):
    found = {}
    for source in sources:
        for class_ in source.classes:
            for function in class_.body:
                if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                    arguments = len(function.args.posonlyargs + function.args.args + function.args.kwonlyargs) - 1
                    if arguments > CONSTRUCTOR_ARGUMENTS:
                        found[f"{source.path}:{class_.name}"] = arguments
    assert found == {}


def test_package_files_hold_only_includeme_and_re_exports(sources):
    # The two lazy doors of the package itself: what pserve calls and what a model mixes in.
    doors = {"nexus_marketing/__init__.py": {"main", "__getattr__", "__dir__"}}
    found = []
    for source in sources:
        if source.path.endswith("/__init__.py"):
            allowed = {"includeme"} | doors.get(source.path, set())
            found += [
                f"{source.path}: {node.name}"
                for node in source.tree.body
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name not in allowed
            ]
    assert found == []
