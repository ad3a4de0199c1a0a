import pytest
import yaml

from glic_pyg.yaml_text import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("-2E3", -2000.0), ("1.5e-4", 1.5e-4), ("5e", "5e"), ("1e-4x", "1e-4x"), ("e5", "e5")],
)
def test_numbers_need_no_point(text, value):
    assert parse_yaml(text) == value
    assert parse_yaml(f"a: [{text}]") == {"a": [value]}


@pytest.mark.parametrize(
    "text", ["1", "-0.5", "1:30:00", "true", "no", "null", "a b", "{a: [1, x]}", "2020-01-02"]
)
def test_all_else_is_as_pyyaml_has_it(text):
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["[1", "!!python/object:os.system {}", "[" * 5000])
def test_what_is_none_is_refused_in_a_line(text):
    with pytest.raises(ValueError) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
