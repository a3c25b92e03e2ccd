"""Reads and checks templates one after the other, wherever they come from."""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from batchwork_server.domain.batch import Template
from batchwork_server.domain.declared_overrides import (
    DeclaredOverrides,
    defaults_of,
    parse_declared_overrides,
)
from batchwork_server.domain.template_overrides import check_known_overrides
from batchwork_server.errors import ConfigurationError, Violation
from batchwork_server.ports import Processor


class Processors(Protocol):
    """The processors that templates may name."""

    def get(self, name: str) -> Processor:
        """Returns the processor.

        Raises:
            ConfigurationError: there is none of that name, or it cannot be loaded.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTemplate:
    """A template and where it stands, such as ``posts.yaml: $.templates[0]``."""

    place: str
    template: Template


class TemplateReading:
    """What has been found so far, good and bad."""

    def __init__(self, processors: Processors) -> None:
        self._processors = processors
        self.found: list[FoundTemplate] = []
        self.violations: list[Violation] = []

    def refuse(self, place: str, message: str) -> None:
        self.violations.append(Violation(place, message))

    def take(self, place: str, content: object) -> None:
        """Reads one template: an object with the fields of ``domain.batch.Template``."""
        if not isinstance(content, Mapping):
            self.refuse(place, "must be an object with a template's fields.")
            return
        violations = list(_field_violations(place, content))
        if not violations:
            template = _template(content)
            violations = list(self._processor_violations(place, template))
            if not violations:
                self.found.append(FoundTemplate(place=place, template=template))
        self.violations += violations

    def _processor_violations(self, place: str, template: Template) -> Iterator[Violation]:
        try:
            processor = self._processors.get(template.processor)
        except ConfigurationError as error:
            yield Violation(f"{place}.processor", error.message)
            return
        for problem in processor.check(template):
            yield Violation(f"{place}.parameters", problem)

    def keep(self, place: str, template: Template) -> None:
        """Takes a template that was checked before."""
        self.found.append(FoundTemplate(place=place, template=template))

    def claims_in_vain(self) -> Iterator[tuple[FoundTemplate, Violation]]:
        """Yields each second claim to an id, or to be the default of something."""
        claims: defaultdict[tuple[str, str], list[FoundTemplate]] = defaultdict(list)
        for one in self.found:
            for claim in _claims(one.template):
                claims[claim].append(one)
        for (field, value), claiming in claims.items():
            for later in claiming[1:]:
                message = f"{value!r} is taken by {claiming[0].place}; it may stand there only."
                yield later, Violation(f"{later.place}.{field}", message)


_FIELD_NAMES = tuple(field.name for field in fields(Template))
_REQUIRED_TEXTS = ("template_id", "processor")
_LISTS_OF_TEXTS = ("operations", "feature_types")


def _field_violations(place: str, content: Mapping[Any, Any]) -> Iterator[Violation]:
    for name in content:
        if name not in _FIELD_NAMES:
            yield Violation(f"{place}.{name}", f"is no field; {_closest_field(str(name))}")
    for name in _REQUIRED_TEXTS:
        if not isinstance(content.get(name), str) or not content[name]:
            yield Violation(f"{place}.{name}", "is required and must be a text that is not empty.")
    if not isinstance(content.get("description", ""), str):
        yield Violation(f"{place}.description", "must be a text.")
    for name in _LISTS_OF_TEXTS:
        if not _is_list_of_texts(content.get(name, [])):
            yield Violation(f"{place}.{name}", "must be a list of texts.")
    parameters = content.get("parameters", {})
    if not isinstance(parameters, Mapping):
        yield Violation(f"{place}.parameters", "must be an object.")
    else:
        yield from _json_violations(f"{place}.parameters", parameters)
    yield from _override_violations(f"{place}.overrides", content.get("overrides"))


def _override_violations(place: str, overrides: object) -> Iterator[Violation]:
    if overrides is None:
        return
    violations = list(_json_violations(place, overrides))
    if not violations:
        declared, violations = parse_declared_overrides(overrides, path=place)
        violations += check_known_overrides(defaults_of(declared), path=place)
    yield from violations


def _closest_field(name: str) -> str:
    closest = difflib.get_close_matches(name, _FIELD_NAMES, n=1)
    return f"did you mean {closest[0]}?" if closest else f"there are: {', '.join(_FIELD_NAMES)}."


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(element, str) for element in value)


def _json_violations(path: str, value: object) -> Iterator[Violation]:
    """Finds what YAML can say and JSON cannot; a batch keeps its template as JSON."""
    match value:
        case Mapping():
            for key, element in value.items():
                if not isinstance(key, str):
                    yield Violation(f"{path}.{key}", f"has the key {key!r}; put it in quotes.")
                yield from _json_violations(f"{path}.{key}", element)
        case list():
            for index, element in enumerate(value):
                yield from _json_violations(f"{path}[{index}]", element)
        case float() if not math.isfinite(value):
            yield Violation(path, f"is {value}, which is no JSON value.")
        case None | bool() | int() | float() | str():
            pass
        case _:
            yield Violation(
                path, f"is a {type(value).__name__}, which is no JSON value; put it in quotes."
            )


def _template(content: Mapping[str, Any]) -> Template:
    """Builds a template from fields without violations."""
    return Template(
        template_id=content["template_id"],
        processor=content["processor"],
        parameters=content.get("parameters", {}),
        description=content.get("description", ""),
        operations=tuple(content.get("operations", ())),
        feature_types=tuple(content.get("feature_types", ())),
        overrides=_declared(content.get("overrides")),
    )


def _declared(overrides: Any) -> DeclaredOverrides | None:
    return None if overrides is None else parse_declared_overrides(overrides, path="")[0]


def _claims(template: Template) -> Iterator[tuple[str, str]]:
    """Yields what a template has for itself: its id, and what it is the default of."""
    yield "template_id", template.template_id
    for operation in dict.fromkeys(template.operations):
        yield "operations", operation
    for feature_type in dict.fromkeys(template.feature_types):
        yield "feature_types", feature_type
