import json

import pytest
from batchwork_server.adapters.templates import FileTemplates
from batchwork_server.domain.batch import Template
from batchwork_server.domain.declared_overrides import DeclaredOverride
from batchwork_server.errors import ConfigurationError
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.processors.render import RenderProcessor


@pytest.fixture
def registry():
    registry = ProcessorRegistry()
    registry.register("render", RenderProcessor())
    return registry


def fields(**changed):
    return {
        "template_id": "tpl_post",
        "processor": "render",
        "parameters": {"text": "Hello"},
        **changed,
    }


def write(folder, **contents):
    for name, content in contents.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")


def violations(folder, registry):
    """The lines of the message, without its first one."""
    with pytest.raises(ConfigurationError) as caught:
        FileTemplates.load(folder, registry)
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


async def test_a_file_may_be_one_template(tmp_path, registry):
    write(tmp_path, post__json=fields(description="A post", operations=["annotate"]))

    templates = FileTemplates.load(tmp_path, registry)

    assert await templates.get("tpl_post") == Template(
        template_id="tpl_post",
        processor="render",
        parameters={"text": "Hello"},
        description="A post",
        operations=("annotate",),
    )


async def test_a_template_may_declare_overrides(tmp_path, registry):
    write(tmp_path, post__json=fields(overrides={"tone": {"enum": ["a", "b"], "default": "a"}}))

    template = await FileTemplates.load(tmp_path, registry).get("tpl_post")

    assert template.overrides == {"tone": DeclaredOverride(choices=("a", "b"), default="a")}


async def test_a_file_may_list_several_templates(tmp_path, registry):
    write(
        tmp_path,
        both__yaml={"templates": [fields(template_id="tpl_b"), fields(template_id="tpl_a")]},
        more__yml="template_id: tpl_c\nprocessor: render\nparameters: {text: Hi}\n",
    )

    templates = FileTemplates.load(tmp_path, registry)

    assert [template.template_id for template in await templates.all()] == [
        "tpl_a",
        "tpl_b",
        "tpl_c",
    ]


async def test_other_files_and_an_empty_folder_are_fine(tmp_path, registry):
    write(tmp_path, README__md="# Templates")
    (tmp_path / "old").mkdir()

    templates = FileTemplates.load(tmp_path, registry)

    assert await templates.all() == []


async def test_an_unknown_template_is_none(tmp_path, registry):
    templates = FileTemplates.load(tmp_path, registry)

    assert await templates.get("tpl_nobody") is None


def test_a_folder_that_is_not_there_is_refused(tmp_path, registry):
    with pytest.raises(ConfigurationError, match="not_there does not exist"):
        FileTemplates.load(tmp_path / "not_there", registry)


@pytest.mark.parametrize(
    "changed, violation",
    [
        ({"procesor": "x"}, "post.json: $.procesor: is no field; did you mean processor?"),
        ({"colour": "red"}, "post.json: $.colour: is no field; there are: template_id"),
        ({"template_id": ""}, "post.json: $.template_id: is required and must be a text"),
        ({"processor": None}, "post.json: $.processor: is required and must be a text"),
        ({"description": 7}, "post.json: $.description: must be a text."),
        ({"operations": "annotate"}, "post.json: $.operations: must be a list of texts."),
        ({"feature_types": [1]}, "post.json: $.feature_types: must be a list of texts."),
        ({"parameters": []}, "post.json: $.parameters: must be an object."),
        ({"overrides": ["tone"]}, 'post.json: $.overrides: ["tone"] is not an object of'),
        ({"overrides": {"a": {"type": "text"}}}, 'post.json: $.overrides.a.type: "text" is none'),
        ({"overrides": {"item_limit": {"default": 0}}}, "post.json: $.overrides.item_limit: 0 is"),
        (
            {"processor": "rendr"},
            "post.json: $.processor: There is no processor 'rendr'; there are: render.",
        ),
        (
            {"parameters": {"text": "{{ name"}},
            "post.json: $.parameters: text, line 1: unexpected end of template",
        ),
    ],
)
def test_a_violation_names_its_file_and_path(tmp_path, registry, changed, violation):
    write(tmp_path, post__json=fields(**changed))

    [found] = violations(tmp_path, registry)

    assert found.startswith(violation)


@pytest.mark.parametrize(
    "content, violation",
    [
        ("{", "post.yaml: cannot be read: while parsing a flow node"),
        ("a\n", "post.yaml: $: must be an object with a template's fields."),
        ("templates: [7]\n", "post.yaml: $.templates[0]: must be an object"),
        ("templates: []\nversion: 1\n", "post.yaml: $.version: stands beside templates"),
    ],
)
def test_a_file_that_holds_no_template_is_named(tmp_path, registry, content, violation):
    write(tmp_path, post__yaml=content)

    [found] = violations(tmp_path, registry)

    assert found.startswith(violation)


@pytest.mark.parametrize(
    "value, violation",
    [
        ("2026-01-01", "$.parameters.text.a: is a date, which is no JSON value"),
        (".nan", "$.parameters.text.a: is nan, which is no JSON value."),
        ("[{1: x}]", "$.parameters.text.a[0].1: has the key 1; put it in quotes."),
    ],
)
def test_what_json_cannot_say_is_refused(tmp_path, registry, value, violation):
    write(
        tmp_path,
        post__yaml=f"template_id: t\nprocessor: render\nparameters: {{text: {{a: {value}}}}}\n",
    )

    [found] = violations(tmp_path, registry)

    assert found.startswith(f"post.yaml: {violation}")


def test_violations_of_all_files_come_at_once(tmp_path, registry):
    write(
        tmp_path,
        a__json=fields(template_id="tpl_a", processor="rendr"),
        b__json={"templates": [fields(), {"template_id": "tpl_b", "extra": 1}]},
        c__json="nonsense",
    )

    places = [line.split(": ")[:2] for line in violations(tmp_path, registry)]

    assert places == [
        ["a.json", "$.processor"],
        ["b.json", "$.templates[1].extra"],
        ["b.json", "$.templates[1].processor"],
        ["c.json", "cannot be read"],
    ]


@pytest.mark.parametrize(
    "shared, field",
    [
        ({"template_id": "tpl_same"}, "template_id"),
        ({"operations": ["annotate"]}, "operations"),
        ({"feature_types": ["instagram_posts"]}, "feature_types"),
    ],
)
def test_what_two_templates_claim_is_refused_with_both_places(tmp_path, registry, shared, field):
    write(
        tmp_path,
        a__json=fields(**{"template_id": "tpl_a", **shared}),
        b__json=fields(**{"template_id": "tpl_b", **shared}),
    )

    [found] = violations(tmp_path, registry)

    assert found.startswith(f"b.json: $.{field}: ")
    assert "a.json: $" in found


def test_a_processor_that_cannot_be_loaded_is_a_violation_like_others(tmp_path):
    class Unloadable:
        def get(self, name):
            raise ConfigurationError(f"The processor {name!r} cannot be loaded.")

    write(tmp_path, post__json=fields())

    assert violations(tmp_path, Unloadable()) == [
        "post.json: $.processor: The processor 'render' cannot be loaded."
    ]
