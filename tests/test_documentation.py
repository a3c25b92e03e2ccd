"""What the documents say is so."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import typer.main
from batchwork_client.cli.app import app as client_app
from batchwork_server.bootstrap import serving
from batchwork_server.config import Settings
from batchwork_server.setting_kinds import Secret, variables_of

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path
    for folder in (
        ".",
        "docs",
        "docs/decisions",
        "examples",
        "examples/accounts",
        "examples/publisher",
    )
    for path in (ROOT / folder).glob("*.md")
)

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


# Links


def anchors_of(document: Path) -> set[str]:
    """Returns what the headings of a document are called in links."""
    headings = re.findall(r"^#+ (.+)$", without_code(document.read_text("utf-8")), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@each_document
def test_every_relative_link_leads_somewhere(document: Path):
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text("utf-8")))

    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@each_document
def test_every_file_that_is_named_in_a_folder_of_ours_exists(document: Path):
    named = re.findall(
        r"`((?:bench|client|docs|examples|protos|server|tests)/[\w./-]+)`",
        document.read_text("utf-8"),
    )

    assert [name for name in named if not (ROOT / name).exists()] == []


# Commands and variables


@each_document
def test_every_make_target_exists(document: Path):
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))

    named = re.findall(r"(?:`|^|\$ )make ([a-z-]+)", document.read_text("utf-8"), re.MULTILINE)

    assert set(named) <= targets


def variables_of_the_server() -> dict[str, str]:
    """Returns each setting's variable with its default, as an environment would spell it."""
    settings = Settings()
    return {
        variable: spelled(getattr(settings, field))
        for field, variable in variables_of(Settings).items()
    }


def spelled(default: object) -> str:
    match default:
        case None:
            return "unset"
        case bool():
            return str(default).lower()
        case timedelta():
            return f"{default.total_seconds():g}"
        case Secret():
            return default.reveal()
    return str(default)


def variables_of_the_client() -> Iterator[str]:
    for parameter in typer.main.get_command(client_app).params:
        if isinstance(parameter.envvar, str):
            yield parameter.envvar


def test_the_table_of_settings_has_each_with_its_default_and_no_other():
    rows = re.findall(
        r"^\| `(\w+)` \| `?([^|`]+)`? \| .+ \|$", text_of("docs/configuration.md"), re.M
    )

    assert dict(rows) == variables_of_the_server()
    assert len(rows) == len(dict(rows))


@each_document
def test_every_environment_variable_is_a_setting(document: Path):
    known = {*variables_of_the_server(), *variables_of_the_client()}

    named = re.findall(
        r"\b(?:BATCH(?:WORK)?|DATABASE|DB|ENABLE|LOG|CONFIG|(?:TEMPLATE|USER)_SERVICE|USER_ID)_[A-Z_]+\b",
        document.read_text("utf-8"),
    )

    assert set(named) <= known


# Lifecycle


def named_tests(document: str) -> list[str]:
    return re.findall(r"`(tests/[\w/]+\.py::test_\w+)`", text_of(document))


def test_every_arrow_of_the_lifecycle_has_a_test_that_exists():
    for name in named_tests("docs/lifecycle.md"):
        path, _, function = name.partition("::")
        tree = ast.parse(text_of(path))
        defined = {
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert function in defined, name


def section_of_the_lifecycle(title: str) -> str:
    [section] = re.findall(
        rf"^## {title}\n(.*?)(?=^## |\Z)", text_of("docs/lifecycle.md"), re.M | re.S
    )
    return str(section)


def rows_of_the_lifecycle(title: str) -> list[tuple[str, str]]:
    """Returns each arrow's letter and the test that its row names."""
    return re.findall(
        r"^\| ([A-Z]) \| .+ \| `(tests/.+::test_\w+)` \|$", section_of_the_lifecycle(title), re.M
    )


@pytest.mark.parametrize("title", ["Batch", "Item"])
def test_every_arrow_that_is_drawn_has_a_row(title: str):
    drawn = re.findall(r"--> .+?(?:: ([A-Z, ]+))?$", section_of_the_lifecycle(title), re.MULTILINE)
    letters = dict.fromkeys(", ".join(filter(None, drawn)).split(", "))

    assert list(letters) == [letter for letter, _ in rows_of_the_lifecycle(title)]


def test_every_arrow_that_is_drawn_has_a_letter():
    arrows = re.findall(r"^ +(\S+) --> (\S+?)(:.*)?$", text_of("docs/lifecycle.md"), re.M)

    assert [(old, new) for old, new, letter in arrows if new != "[*]" and not letter] == []


def arrows_that_tests_carry() -> dict[str, set[str]]:
    """Returns the tests that carry a mark, each with what the mark says."""
    carried: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                said = [
                    str(ast.literal_eval(argument))
                    for mark in node.decorator_list
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.arrow"
                    for argument in mark.args
                ]
                carried[f"{path.relative_to(ROOT).as_posix()}::{node.name}"] = set(said)
    return carried


def test_every_test_that_the_lifecycle_names_carries_the_arrow():
    carried = arrows_that_tests_carry()

    for title in ("Batch", "Item"):
        for letter, name in rows_of_the_lifecycle(title):
            assert f"{title.lower()} {letter}" in carried[name], name


def test_every_arrow_that_a_test_carries_is_in_the_lifecycle():
    known = {
        f"{title.lower()} {letter}"
        for title in ("Batch", "Item")
        for letter, _ in rows_of_the_lifecycle(title)
    }

    for name, arrows in arrows_that_tests_carry().items():
        assert arrows <= known, name


# The README


def client_in_the_readme() -> tuple[str, str]:
    """Returns the lines of code, and what they are said to print."""
    found = re.search(
        r"## The client\n\n```python\n(.*?)```.*?```text\n(.*?)```", text_of("README.md"), re.DOTALL
    )
    assert found is not None
    return found[1], found[2]


async def test_the_readmes_client_prints_what_is_said(sqlite_url: str):
    code, said = client_in_the_readme()
    settings = Settings(
        database_url=Secret(sqlite_url),
        listen="127.0.0.1:0",
        templates_dir=ROOT / "examples" / "templates",
    )

    async with serving(settings) as server:
        here = code.replace("localhost:50051", f"127.0.0.1:{server.port}")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", here),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()

    assert here != code
    assert printed.decode() == said
    assert process.returncode == 0


def test_every_fault_has_a_test_that_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs/faults.md").read_text())

    missing = [
        (file, test)
        for file, test in named
        if not (ROOT / file).is_file() or (test and f"def {test}(" not in (ROOT / file).read_text())
    ]

    assert named
    assert missing == []
