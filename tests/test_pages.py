import json
import re

import pytest
from jinja2 import UndefinedError

from glic_pyg.pages import fill_page


def test_text_stays_text(tmp_path):
    template = tmp_path / "page.html"
    template.write_text("<p>{{ title }}</p>\n<script>{{ content | tojson }}</script>")
    content = {"b": "</script><b>", "a": [1, 2]}
    page = fill_page(template, title="a < b", content=content)
    assert page.startswith("<p>a &lt; b</p>\n<script>")
    assert page.count("</script>") == 1
    inside = re.search("<script>(.*)</script>", page)[1]
    assert json.loads(inside) == content
    assert list(json.loads(inside)) == ["b", "a"]


def test_a_value_that_is_missing_is_no_gap(tmp_path):
    (tmp_path / "page.html").write_text("{{ title }}")
    with pytest.raises(UndefinedError):
        fill_page(tmp_path / "page.html")
