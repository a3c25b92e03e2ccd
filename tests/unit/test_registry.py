from importlib.metadata import distributions

import pytest
from batchwork_server.errors import ConfigurationError
from batchwork_server.processors.registry import ProcessorLookupError, ProcessorRegistry
from batchwork_server.processors.render import RenderProcessor

PROCESSOR_SOURCE = """
class Processor:
    def check(self, template):
        return []

    async def process(self, call):
        raise NotImplementedError
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder from which modules are imported and in which distributions are found."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site, distribution, *, name, module, source=PROCESSOR_SOURCE, attribute="Processor"):
    (site / f"{module}.py").write_text(source, encoding="utf-8")
    info = site / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(
        f"[batchwork.processors]\n{name} = {module}:{attribute}\n", encoding="utf-8"
    )


def registry_of(site):
    return ProcessorRegistry(
        offer
        for distribution in distributions(path=[str(site)])
        for offer in distribution.entry_points
    )


def test_the_servers_own_processors_are_found():
    registry = ProcessorRegistry.installed()

    assert isinstance(registry.get("render"), RenderProcessor)


def test_a_processor_of_another_distribution_is_found_by_name(site):
    install(site, "shiny", name="polish", module="shiny_polish")

    registry = registry_of(site)

    assert registry.names() == ["polish"]
    assert type(registry.get("polish")).__module__ == "shiny_polish"


def test_a_processor_is_built_once(site):
    install(site, "shiny", name="polish", module="shiny_once")
    registry = registry_of(site)

    first = registry.get("polish")

    assert registry.get("polish") is first


def test_nothing_is_imported_before_it_is_asked_for(site):
    install(site, "shiny", name="polish", module="shiny_lazy", source="raise RuntimeError")

    assert registry_of(site).names() == ["polish"]


def test_a_processor_that_cannot_be_imported_names_whose_it_is_and_why(site):
    install(site, "broken", name="polish", module="broken_polish", source="import not_there_at_all")

    with pytest.raises(ProcessorLookupError) as caught:
        registry_of(site).get("polish")

    for fact in ("'polish'", "'broken'", "broken_polish:Processor", "not_there_at_all"):
        assert fact in caught.value.message


def test_a_broken_processor_leaves_the_others_alone(site):
    install(site, "broken", name="scratch", module="broken_scratch", source="1 / 0")
    install(site, "shiny", name="polish", module="shiny_beside_broken")
    registry = registry_of(site)

    with pytest.raises(ProcessorLookupError):
        registry.get("scratch")

    assert registry.get("polish") is not None


def test_what_lacks_the_methods_is_no_processor(site):
    install(site, "odd", name="polish", module="odd_polish", source="Processor = dict")

    with pytest.raises(ProcessorLookupError, match="check and process"):
        registry_of(site).get("polish")


def test_a_name_that_two_distributions_offer_is_refused_with_both(site):
    install(site, "shiny", name="polish", module="shiny_twice")
    install(site, "glossy", name="polish", module="glossy_twice")

    with pytest.raises(ConfigurationError) as caught:
        registry_of(site)

    for fact in ("'polish'", "'shiny'", "'glossy'"):
        assert fact in caught.value.message


def test_a_processor_built_in_code_is_found_by_name():
    registry = ProcessorRegistry()
    processor = RenderProcessor()

    registry.register("mine", processor)

    assert registry.get("mine") is processor
    assert registry.names() == ["mine"]


def test_a_name_is_registered_once():
    registry = ProcessorRegistry()
    registry.register("mine", RenderProcessor())

    with pytest.raises(ConfigurationError, match="'mine'"):
        registry.register("mine", RenderProcessor())


def test_a_name_that_a_distribution_offers_cannot_be_registered(site):
    install(site, "shiny", name="polish", module="shiny_taken")

    with pytest.raises(ConfigurationError, match="'shiny'"):
        registry_of(site).register("polish", RenderProcessor())


def test_an_unknown_name_is_told_with_those_there_are():
    registry = ProcessorRegistry()
    registry.register("render", RenderProcessor())
    registry.register("publish", RenderProcessor())

    with pytest.raises(ProcessorLookupError, match=r"'rendr'; there are: publish, render\."):
        registry.get("rendr")
