"""Templates from a folder of files, read and checked once when the server starts."""

from __future__ import annotations

import difflib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import yaml

from batchwork_server.domain.batch import Template
from batchwork_server.errors import ConfigurationError, Violation
from batchwork_server.ports import Processor

SUFFIXES = frozenset({".json", ".yaml", ".yml"})


class Processors(Protocol):
    """The processors that templates may name."""

    def get(self, name: str) -> Processor:
        """Returns the processor.

        Raises:
            ConfigurationError: there is none of that name, or it cannot be loaded.
        """
        ...


class FileTemplates:
    """The templates of a folder. A change in the folder is seen at the next start.

    A file (``.json``, ``.yaml``, ``.yml``) is one template, or an object whose only key
    ``templates`` lists several. The fields are those of ``domain.batch.Template``;
    ``template_id`` and ``processor`` are required.
    """

    def __init__(self, templates: Sequence[Template]) -> None:
        self._templates = {
            template.template_id: template
            for template in sorted(templates, key=lambda template: template.template_id)
        }

    @classmethod
    def load(cls, directory: Path, processors: Processors) -> FileTemplates:
        """Reads every template file of the folder; folders in it are not looked at.

        Raises:
            ConfigurationError: something is wrong with at least one file. The message lists all
                that is wrong, each with its file and its path in the file.
        """
        if not directory.is_dir():
            raise ConfigurationError(f"The folder of templates {directory} does not exist.")
        reading = _Reading(processors)
        for file in sorted(directory.iterdir()):
            if file.suffix in SUFFIXES:
                reading.read(file)
        violations = [*reading.violations, *_clashes(reading.found)]
        if violations:
            raise ConfigurationError(_message(directory, violations))
        return cls([found.template for found in reading.found])

    async def get(self, template_id: str) -> Template | None:
        return self._templates.get(template_id)

    async def all(self) -> Sequence[Template]:
        return list(self._templates.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A template and where it stands, such as ``posts.yaml: $.templates[0]``."""

    place: str
    template: Template


class _Reading:
    """What reading the files one after the other has found so far, good and bad."""

    def __init__(self, processors: Processors) -> None:
        self._processors = processors
        self.found: list[_Found] = []
        self.violations: list[Violation] = []

    def read(self, file: Path) -> None:
        try:
            content = _parsed(file)
        except (OSError, ValueError, yaml.YAMLError) as error:
            self.violations.append(Violation(file.name, f"cannot be read: {_one_line(error)}"))
            return
        match content:
            case {"templates": [*several], **others}:
                self._refuse_beside_templates(file, others)
                for index, fields_of_one in enumerate(several):
                    self._take(f"{file.name}: $.templates[{index}]", fields_of_one)
            case _:
                self._take(f"{file.name}: $", content)

    def _refuse_beside_templates(self, file: Path, others: Mapping[Any, Any]) -> None:
        self.violations += [
            Violation(f"{file.name}: $.{name}", "stands beside templates; only templates may be.")
            for name in others
        ]

    def _take(self, place: str, content: object) -> None:
        if not isinstance(content, Mapping):
            self.violations.append(Violation(place, "must be an object with a template's fields."))
            return
        violations = list(_field_violations(place, content))
        if not violations:
            template = _template(content)
            violations = list(self._processor_violations(place, template))
            self.found.append(_Found(place=place, template=template))
        self.violations += violations

    def _processor_violations(self, place: str, template: Template) -> Iterator[Violation]:
        try:
            processor = self._processors.get(template.processor)
        except ConfigurationError as error:
            yield Violation(f"{place}.processor", error.message)
            return
        for problem in processor.check(template):
            yield Violation(f"{place}.parameters", problem)


def _parsed(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    return json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


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
    )


def _clashes(found: Sequence[_Found]) -> Iterator[Violation]:
    claims: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for one in found:
        for claim in _claims(one.template):
            claims[claim].append(one.place)
    for (field, value), places in claims.items():
        for place in places[1:]:
            yield Violation(
                f"{place}.{field}", f"{value!r} is taken by {places[0]}; it may stand there only."
            )


def _claims(template: Template) -> Iterator[tuple[str, str]]:
    """Yields what a template has for itself: its id, and what it is the default of."""
    yield "template_id", template.template_id
    for operation in dict.fromkeys(template.operations):
        yield "operations", operation
    for feature_type in dict.fromkeys(template.feature_types):
        yield "feature_types", feature_type


def _message(directory: Path, violations: Sequence[Violation]) -> str:
    listed = "".join(f"\n  {violation.path}: {violation.message}" for violation in violations)
    return f"The templates in {directory} cannot be used:{listed}"
