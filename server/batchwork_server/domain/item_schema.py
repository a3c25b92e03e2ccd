"""What a JSON Schema finds wrong with items, and how it is counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MAX_SCHEMA_BYTES = 64 * 1024
MOST_FINDINGS_OF_ITEM = 100
"""So many findings of one item are counted at most."""

MOST_SHOWN_OF_ITEM = 10
"""So many findings of one item are listed at most."""

MOST_RULES = 1000
"""So many rules are counted by themselves at most."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One demand of a schema.

    Attributes:
        keyword: Such as ``minimum``.
        schema_path: Where it stands in the schema, such as ``$.properties.age.minimum``.
    """

    keyword: str
    schema_path: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What does not meet a rule.

    Attributes:
        path: Where it stands in the item's data, such as ``$.age``.
    """

    path: str
    rule: Rule
    message: str


@dataclass(frozen=True, slots=True)
class InvalidItem:
    """An item that does not meet a schema.

    Attributes:
        findings: The first of them.
        count: Of all, as far as they are counted.
    """

    item_id: str
    findings: tuple[Finding, ...]
    count: int


@dataclass(frozen=True, slots=True)
class CheckedItem:
    """An item with all that was found, as far as it is counted; nothing of a valid one."""

    item_id: str
    findings: Sequence[Finding]


@dataclass(slots=True)
class RuleCount:
    """How much does not meet one rule."""

    findings: int = 0
    items: int = 0


@dataclass(slots=True, kw_only=True)
class ItemsReport:
    """What was found of items so far.

    Attributes:
        most_listed: So many invalid items are listed.
    """

    most_listed: int
    total: int = 0
    invalid: int = 0
    findings: int = 0
    listed: list[InvalidItem] = field(default_factory=list)
    rules: dict[Rule, RuleCount] = field(default_factory=dict)

    @property
    def valid(self) -> int:
        return self.total - self.invalid

    @property
    def valid_ratio(self) -> float:
        """The share of items that are valid; of no items it is 1."""
        return self.valid / self.total if self.total else 1.0

    def add(self, checked: Iterable[CheckedItem]) -> None:
        for item in checked:
            self.total += 1
            if item.findings:
                self._add_invalid(item)

    def _add_invalid(self, item: CheckedItem) -> None:
        self.invalid += 1
        self.findings += len(item.findings)
        for rule in {self._counted(finding.rule) for finding in item.findings}:
            self.rules.setdefault(rule, RuleCount()).items += 1
        for finding in item.findings:
            self.rules[self._counted(finding.rule)].findings += 1
        if len(self.listed) < self.most_listed:
            shown = tuple(item.findings[:MOST_SHOWN_OF_ITEM])
            self.listed.append(InvalidItem(item.item_id, shown, len(item.findings)))

    def _counted(self, rule: Rule) -> Rule:
        """Returns the rule under which a finding is counted.

        A schema that refers to itself has rules at any number of paths.
        """
        if rule in self.rules or len(self.rules) < MOST_RULES:
            return rule
        return Rule(rule.keyword, "")
