"""How findings are counted."""

from __future__ import annotations

from batchwork_server.domain.item_schema import (
    MOST_RULES,
    CheckedItem,
    Finding,
    ItemsReport,
    Rule,
    RuleCount,
)

TYPE = Rule("type", "$.type")
MINIMUM = Rule("minimum", "$.minimum")


def item(item_id: str, *rules: Rule) -> CheckedItem:
    return CheckedItem(item_id, [Finding("$", rule, "It is wrong.") for rule in rules])


def test_items_and_findings_are_counted_by_rule() -> None:
    report = ItemsReport(most_listed=10)

    report.add([item("a"), item("b", TYPE, TYPE, MINIMUM)])
    report.add([item("c", TYPE)])

    assert (report.total, report.valid, report.invalid, report.findings) == (3, 1, 2, 4)
    assert report.rules == {TYPE: RuleCount(3, 2), MINIMUM: RuleCount(1, 1)}
    assert [listed.item_id for listed in report.listed] == ["b", "c"]


def test_only_so_many_items_and_findings_are_listed() -> None:
    report = ItemsReport(most_listed=1)

    report.add([item("a", *[TYPE] * 12), item("b", TYPE)])

    [listed] = report.listed
    assert (listed.item_id, len(listed.findings), listed.count) == ("a", 10, 12)
    assert report.invalid == 2


def test_of_no_items_all_are_valid() -> None:
    assert ItemsReport(most_listed=1).valid_ratio == 1.0


def test_rules_beyond_the_limit_are_counted_by_keyword() -> None:
    report = ItemsReport(most_listed=1)

    report.add([item("a", Rule("type", f"$.{number}")) for number in range(MOST_RULES + 5)])

    assert report.rules[Rule("type", "")] == RuleCount(5, 5)
