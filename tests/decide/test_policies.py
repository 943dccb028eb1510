"""Files of policies: read as they were written, refused with the place of the mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shelver.decide import (
    DEEPEST,
    POLICIES,
    AttributeRule,
    Costs,
    Policy,
    Promise,
    policies_of,
    policy_named,
    read_policies,
    write_policies,
)
from shelver.errors import ConfigError

PROMISE = Promise(
    precision=0.95,
    model_version="0" * 12,
    catalog_version="1" * 16,
    split="validation",
    n_products=1000,
    n_decided=700,
    n_right=690,
    coverage=0.7,
)
THREE = {
    "default": DEEPEST,
    "tax": Policy(decoder="climb", thresholds=(0.9, 0.8), unsure="review", outside=0.99, promise=PROMISE),
    "ads für alle": Policy(decoder="cost", costs=Costs(values={"a": 3.0, "b": 0.0}, partial=True, review=2.0)),
}


def test_policies_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / POLICIES
    write_policies(path, THREE)
    assert read_policies(path) == THREE
    assert list(read_policies(path)) == list(THREE)
    assert json.loads(path.read_text(encoding="utf-8"))["default"] == {}  # for people: no defaults spelt out
    assert [file.name for file in tmp_path.iterdir()] == [POLICIES]


def test_rules_for_attributes_are_read_as_they_were_written_and_older_files_keep_their_bytes(
    tmp_path: Path,
) -> None:
    path = tmp_path / POLICIES
    write_policies(path, THREE)
    before = path.read_bytes()
    assert b"attributes" not in before
    write_policies(path, read_policies(path))
    assert path.read_bytes() == before
    rules = {
        "colour": AttributeRule(threshold=0.8, promise=PROMISE),
        "taille": AttributeRule(answer=False),
        "never": AttributeRule(threshold=1.0),
    }
    ruled = {**THREE, "tax": THREE["tax"].model_copy(update={"attributes": rules})}
    write_policies(path, ruled)
    assert read_policies(path) == ruled
    assert list(json.loads(path.read_text(encoding="utf-8"))["tax"]["attributes"]["taille"]) == ["answer"]


def test_a_model_without_a_file_of_policies_has_the_default_one(tmp_path: Path) -> None:
    assert policies_of(tmp_path) == {"default": DEEPEST}
    write_policies(tmp_path / POLICIES, {"tax": THREE["tax"]})
    assert policies_of(tmp_path) == {"default": DEEPEST, "tax": THREE["tax"]}
    write_policies(tmp_path / POLICIES, {"default": THREE["tax"]})
    assert policies_of(tmp_path) == {"default": THREE["tax"]}


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    assert policy_named("tax", THREE) is THREE["tax"]
    with pytest.raises(ConfigError, match=r"'taxes'.*default, tax, ads für alle"):
        policy_named("taxes", THREE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", r"policies\.json: Expecting"),
        ("[]", "an object"),
        ('{"a": {}, "a": {}}', "'a' stands there twice"),
        ('{"a": 3}', r"policy 'a': 3"),
        ('{"a": {"decoder": "deep"}}', r"policy 'a', decoder: \"deep\".*'best_leaf'.*'top_n'"),
        ('{"a": {"treshold": 1}}', r"policy 'a', treshold: 1.*a field of a policy:.*thresholds"),
        ('{"a": {"costs": {"worng": 1}}}', r"policy 'a', costs\.worng.*a field of costs: wrong"),
        ('{"a": {"thresholds": []}}', r"thresholds: \[\].*at least 1 item"),
        ('{"a": {"thresholds": [0.5, -1]}}', r"thresholds\.1: -1.*greater than or equal to 0"),
        ('{"a": {"strict": {"x": NaN}}}', r"strict\.x"),
        ('{"a": {"outside": 1}}', "outside: 1.*less than 1"),
        ('{"a": {"min_level": 0}}', "min_level: 0"),
        ('{"a": {"costs": {"values": {"x": -2}}}}', r"costs\.values\.x: -2"),
        ('{"a": {"costs": {"values": {}}}}', r"costs\.values: \{\}"),
        ('{"a": {"promise": {"precison": 1}}}', r"promise\.\w+"),
        ('{"a": {"attributes": {"colour": 0.9}}}', r"attributes\.colour: 0\.9"),
        (
            '{"a": {"attributes": {"colour": {"threshold": 1.1}}}}',
            r"attributes\.colour\.threshold: 1\.1.*equal to 1",
        ),
        (
            '{"a": {"attributes": {"colour": {"treshold": 1}}}}',
            r"attributes\.colour\.treshold: 1.*a field of attributes\.colour: threshold, answer, promise",
        ),
    ],
)
def test_a_mistake_is_named_with_its_policy_and_field(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / POLICIES
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=said) as caught:
        read_policies(path)
    assert "policies.json" in str(caught.value)


def test_a_file_that_is_missing_or_no_text_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file of policies"):
        read_policies(tmp_path / "none.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ConfigError, match=r"b\.json"):
        read_policies(tmp_path / "b.json")
    with pytest.raises(ConfigError):
        read_policies(tmp_path)
