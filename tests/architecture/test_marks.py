"""Every test says which requirement it proves, or its folder says why it does not."""

import ast

import pytest

pytestmark = pytest.mark.req("MAINT-003")

EXEMPT = {
    "tests/common/": "tests of the test tools: they prove no requirement of the product",
    "tests/functional/db/test_databases.py": "tests of the database fixtures themselves",
}


def has_mark(nodes: list[ast.expr]) -> bool:
    return any("mark.req(" in ast.unparse(node) for node in nodes)


def module_has_mark(tree: ast.Module) -> bool:
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    return any(
        has_mark([node.value])
        for node in assigned
        if any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)
    )


def unmarked(tree: ast.Module) -> list[str]:
    """The tests of a module without a mark of their own, their class's or the module's."""
    if module_has_mark(tree):
        return []
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test") and not has_mark(node.decorator_list):
            found.append(node.name)
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test") and not has_mark(node.decorator_list):
            found += [
                f"{node.name}.{each.name}"
                for each in node.body
                if isinstance(each, ast.FunctionDef)
                and each.name.startswith("test")
                and not has_mark(each.decorator_list)
            ]
    return found


def test_every_test_names_the_requirements_it_proves(test_sources):
    found = [
        f"{source.path}::{name}"
        for source in test_sources
        if not source.path.startswith(tuple(EXEMPT))
        for name in unmarked(source.tree)
    ]
    assert found == []
