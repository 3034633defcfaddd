"""The code of the reference page does what the page says."""

import re
from pathlib import Path

import pytest

from nexus_marketing import use_storage
from tests.common import django_project

django_project.configure()

from django.db import connection, models  # noqa: E402 - Django needs its settings first

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "has-marketing.md"

pytestmark = pytest.mark.req("US-001", "US-002", "US-003", "US-006", "US-007", "FR-P1-001", "FR-P1-008")


def create_tables(namespace):
    found = [each for each in namespace.values() if isinstance(each, type) and issubclass(each, models.Model)]
    with connection.schema_editor() as editor:
        for each in found:
            if each._meta.db_table not in connection.introspection.table_names():
                editor.create_model(each)


def test_the_code_of_the_page_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    namespace = {"__name__": "reference_has_marketing"}
    restore = use_storage(None)
    with django_project.database(django_project.sqlite(tmp_path / "shop.db"), []):
        for number, block in enumerate(blocks, 1):
            exec(compile(block, f"{PAGE.name}, block {number}", "exec"), namespace)
            create_tables(namespace)
    namespace["engine"].dispose()
    restore()
