from datetime import UTC, datetime

import pytest
from batchwork_server.domain.batch import Template
from batchwork_server.errors import ItemFailed
from batchwork_server.ports import ItemCall
from batchwork_server.processors.render import LARGEST_MAX_LENGTH, RenderProcessor, compact, percent

render = RenderProcessor()


def item_call(text, *, data=None, user_id="nasa", overrides=None, **parameters):
    return ItemCall(
        batch_id="bat_api_20260101000000_aaaaaaaa",
        tenant_id="acme",
        item_id="account-1",
        user_id=user_id,
        data={} if data is None else data,
        attempt=2,
        idempotency_key="bat_api_20260101000000_aaaaaaaa/account-1",
        parameters={"text": text, **parameters},
        operation="annotate",
        model="small",
        batch_metadata={"data_source_type": "users"},
        due_time=datetime(2026, 3, 2, 9, 30, tzinfo=UTC),
        overrides=overrides or {},
    )


async def rendered(text, **call):
    result = await render.process(item_call(text, **call))
    return result.value


async def failure(text, **call):
    with pytest.raises(ItemFailed) as caught:
        await render.process(item_call(text, **call))
    return caught.value


def problems(**parameters):
    return render.check(Template(template_id="t", processor="render", parameters=parameters))


async def test_keys_of_an_object_are_variables():
    value = await rendered("@{{ name }}: {{ posts }}", data={"name": "nasa", "posts": 3600})

    assert value == {"text": "@nasa: 3600"}


async def test_overrides_are_a_variable():
    value = await rendered("{{ overrides.tone }}", data={"n": 1}, overrides={"tone": "dry"})

    assert value == {"text": "dry"}


async def test_several_texts_become_an_object_of_the_same_names():
    value = await rendered({"title": "{{ n }} posts", "body": "Thanks!"}, data={"n": 3})

    assert value == {"title": "3 posts", "body": "Thanks!"}


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("{{ item.id }} {{ item.user_id }}", "account-1 nasa"),
        ("{{ batch.id }}", "bat_api_20260101000000_aaaaaaaa"),
        ("{{ batch.tenant_id }} {{ batch.operation }}", "acme annotate"),
        ("{{ batch.metadata.data_source_type }}", "users"),
        ("{{ batch.due_time }}", "2026-03-02T09:30:00+00:00"),
        ("{{ attempt }} {{ model }}", "2 small"),
    ],
)
async def test_the_item_and_its_batch_are_variables(expression, expected):
    assert await rendered(expression) == {"text": expected}


async def test_an_item_that_belongs_to_nobody_has_an_empty_user_id():
    assert await rendered("[{{ item.user_id }}]", user_id=None) == {"text": "[]"}


async def test_data_that_is_no_object_is_reached_by_its_name():
    assert await rendered("{{ data | sum }}", data=[1, 2, 3]) == {"text": "6"}


async def test_the_items_own_variables_win_over_keys_of_the_data():
    value = await rendered("{{ model }} {{ data.model }}", data={"model": "large"})

    assert value == {"text": "small large"}


async def test_a_key_is_read_before_a_method_of_the_same_name():
    assert await rendered("{{ data.items | join }}", data={"items": [1, 2]}) == {"text": "12"}


async def test_text_is_not_escaped():
    assert await rendered("{{ name }}", data={"name": "<A & B>"}) == {"text": "<A & B>"}


async def test_a_missing_variable_is_named_with_those_there_are():
    error = await failure("{{ folowers }}", data={"followers": 1})

    assert (error.reason, error.retryable) == ("TEMPLATE_VARIABLE_MISSING", False)
    assert "'folowers'" in error.message
    assert "attempt, batch, data, followers, item, model" in error.message


async def test_a_missing_key_of_a_variable_counts_as_missing_too():
    error = await failure("{{ data.country.name }}", data={"country": {}})

    assert error.reason == "TEMPLATE_VARIABLE_MISSING"
    assert "'name'" in error.message


async def test_a_message_lists_only_so_many_variables():
    error = await failure("{{ missing }}", data={f"key_{n:04}": n for n in range(5000)})

    assert len(error.message) < 1000


@pytest.mark.parametrize(
    "expression",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'].mro() }}",
        "{{ data | attr('__init__') }}",
        "{{ data.update({}) }}",
        "{{ 'a'.ljust(10) }}",
        "{{ 'a'['ljust'](10) }}",
        "{{ '{:>9}'.format(1) }}",
        "{{ '{:>9}' | attr('format')(1) }}",
        "{{ '%9d' % 1 }}",
    ],
)
async def test_what_the_sandbox_refuses_is_forbidden(expression):
    error = await failure(expression)

    assert (error.reason, error.retryable) == ("TEMPLATE_FORBIDDEN", False)


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("{{ 'a' * 10**9 }}", id="text times number"),
        pytest.param("{{ 10**9 * 'a' }}", id="number times text"),
        pytest.param("{{ [0] * 10**9 }}", id="list times number"),
        pytest.param("{{ 10 ** (9 ** 9) }}", id="power of a power"),
        pytest.param("{{ range(10 ** 30) | length }}", id="range beyond a machine word"),
        pytest.param("{{ range(10001) | length }}", id="range just too long"),
        pytest.param(
            "{% set x = namespace(v='aa') %}{% for _ in range(64) %}"
            "{% set x.v = x.v + x.v %}{% endfor %}",
            id="text doubled in a loop",
        ),
    ],
)
async def test_a_value_too_large_is_refused_before_it_is_built(expression):
    assert (await failure(expression)).reason == "OUTPUT_TOO_LARGE"


async def test_rendering_stops_where_the_output_is_full():
    hundred_million_lines = (
        "{% for i in range(10000) %}{% for j in range(10000) %}line\n{% endfor %}{% endfor %}"
    )

    error = await failure(hundred_million_lines, max_length=1000)

    assert (error.reason, error.retryable) == ("OUTPUT_TOO_LARGE", False)


async def test_output_may_be_exactly_as_long_as_allowed():
    assert await rendered("{{ 'a' * 10 }}", max_length=10) == {"text": "a" * 10}
    assert (await failure("{{ 'a' * 11 }}", max_length=10)).reason == "OUTPUT_TOO_LARGE"


async def test_several_texts_share_one_length():
    texts = {"title": "123456", "body": "12345"}

    assert await rendered(texts, max_length=11) == texts
    assert (await failure(texts, max_length=10)).reason == "OUTPUT_TOO_LARGE"


@pytest.mark.parametrize("expression", ["{{ 1 + 'a' }}", "{{ 1 / 0 }}", "{{ 'many' | compact }}"])
async def test_an_expression_that_does_not_fit_its_values_fails_for_good(expression):
    error = await failure(expression)

    assert (error.reason, error.retryable) == ("TEMPLATE_FAILED", False)


@pytest.mark.parametrize("text", ["{{ name", None, 7])
async def test_a_template_that_was_never_checked_fails_for_good(text):
    error = await failure(text)

    assert (error.reason, error.retryable) == ("TEMPLATE_INVALID", False)


def test_good_parameters_have_no_problems():
    assert problems(text="{{ name }}", max_length=LARGEST_MAX_LENGTH) == []
    assert problems(text={"title": "{{ name }}"}) == []


@pytest.mark.parametrize(
    "parameters, problem",
    [
        ({}, "text is missing: set it to the text to render, or to texts by name."),
        ({"text": 7}, "text must be a text or an object of texts by name, not a number."),
        ({"text": {}}, "text must be a text or an object of texts by name, not an object."),
        ({"text": {"title": None}}, "text.title must be a text, not null."),
        ({"text": "a", "max_length": "9"}, "max_length must be a whole number of characters"),
        ({"text": "a", "max_length": 0}, "max_length is 0; it must be from 1 to 1000000."),
        ({"text": "a", "max_lenght": 9}, "max_lenght is no parameter; did you mean max_length?"),
        ({"text": "a\n{{ b"}, "text, line 2: unexpected end of template"),
        ({"text": {"title": "{% if %}"}}, "text.title, line 1: Expected an expression"),
        ({"text": "{{ a | center(9) }}"}, "text, line 1: No filter named 'center'."),
        ({"text": "{% include 'b' %}"}, "text, line 1: include is not available"),
    ],
)
def test_a_bad_parameter_is_named(parameters, problem):
    [found] = problems(**parameters)

    assert found.startswith(problem)


def test_all_problems_are_told_at_once():
    found = problems(text={"a": "{{", "b": "{{"}, max_length=0, colour="red")

    assert len(found) == 4


@pytest.mark.parametrize(
    "number, expected",
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (1250, "1.2K"),
        (999_949, "999.9K"),
        (999_950, "1M"),
        (475_800_000, "475.8M"),
        (29_000_000_000, "29B"),
        (1_500_000_000_000_000, "1500T"),
        (-1_500, "-1.5K"),
    ],
)
def test_compact_keeps_one_decimal_and_a_unit(number, expected):
    assert compact(number) == expected


@pytest.mark.parametrize(
    "number, decimals, expected",
    [(1.39, 2, "1.39%"), (9.0, 2, "9%"), (10, 0, "10%"), (26.41, 1, "26.4%"), (0, 2, "0%")],
)
def test_percent_drops_zeros_at_the_end(number, decimals, expected):
    assert percent(number, decimals) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "{{ true | compact }}",
        "{{ nan | compact }}",
        "{{ '1' | percent }}",
        "{{ nan | percent }}",
        "{{ 1 | percent(1000000000) }}",
    ],
)
async def test_number_filters_take_numbers_only(expression):
    error = await failure(expression, data={"nan": float("nan")})

    assert error.reason == "TEMPLATE_FAILED"
