"""Templates from a folder of files, read and checked once when the server starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from batchwork_server.adapters.template_reading import Processors, TemplateReading
from batchwork_server.domain.batch import Template
from batchwork_server.errors import ConfigurationError, Violation

SUFFIXES = frozenset({".json", ".yaml", ".yml"})


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
        reading = TemplateReading(processors)
        for file in sorted(directory.iterdir()):
            if file.suffix in SUFFIXES:
                _read(file, reading)
        violations = [
            *reading.violations,
            *(violation for _, violation in reading.claims_in_vain()),
        ]
        if violations:
            raise ConfigurationError(_message(directory, violations))
        return cls([found.template for found in reading.found])

    async def get(self, template_id: str) -> Template | None:
        return self._templates.get(template_id)

    async def all(self) -> Sequence[Template]:
        return list(self._templates.values())


def _read(file: Path, reading: TemplateReading) -> None:
    try:
        content = _parsed(file)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reading.refuse(file.name, f"cannot be read: {_one_line(error)}")
        return
    match content:
        case {"templates": [*several], **others}:
            for name in others:
                message = "stands beside templates; only templates may be."
                reading.refuse(f"{file.name}: $.{name}", message)
            for index, fields_of_one in enumerate(several):
                reading.take(f"{file.name}: $.templates[{index}]", fields_of_one)
        case _:
            reading.take(f"{file.name}: $", content)


def _parsed(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    return json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _message(directory: Path, violations: Sequence[Violation]) -> str:
    listed = "".join(f"\n  {violation.path}: {violation.message}" for violation in violations)
    return f"The templates in {directory} cannot be used:{listed}"
