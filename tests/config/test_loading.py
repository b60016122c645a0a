from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from tests.config.conftest import ANTHROPIC_KEY, OPENAI_KEY, SIGNING_SECRET, SMALL, WriteConfig
from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.loading import load_settings, read_config
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.domain.identity import ApiKey, Member, ModelPatterns, Project, ProjectProvider, ProviderKey, Secret

FIRST = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"
OTHER = "5b0a3c1e-1d57-4a6e-9d53-5b1f2a1f6c77"
KID = "7d0e8a72-0c55-4c0f-9a5b-7f1f1f0f2a11"
OTHER_KID = "3f4f9f0e-27f8-4a55-93a5-6b7c8d9e0f12"
PROVIDERS = "\n".join(SMALL.splitlines()[:3]) + "\n"


def find_faults(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    return [str(fault).replace(f"{path.parent}/", "") for fault in caught.value.faults]


def test_minimal_configuration_loads_with_defaults(write: WriteConfig) -> None:
    path = write(SMALL)
    path.write_text(SMALL)  # without a pricing section

    loaded = load_settings(path)

    assert loaded.settings.providers["openai"].base_url == "https://api.openai.com"
    assert loaded.settings.providers["openai"].keys == (ProviderKey("default", Secret(OPENAI_KEY)),)
    assert loaded.settings.providers["anthropic"].base_url == "https://api.anthropic.com"
    assert loaded.settings.providers["anthropic"].keys == (ProviderKey("default", Secret(ANTHROPIC_KEY)),)
    assert loaded.settings.pricing.surcharge_rate == Decimal(0)
    assert (loaded.settings.listen.host, loaded.settings.listen.port) == ("127.0.0.1", 8080)
    assert loaded.projects == (Project(FIRST, "first", (ApiKey(KID, FIRST, Secret(SIGNING_SECRET)),)),)
    assert [Path(document.file).name for document in loaded.price_documents] == ["anthropic.yaml", "openai.yaml"]
    assert {Path(document.file).parent for document in loaded.price_documents} == {conf_path("prices")}


def test_loaded_configuration_shows_no_secret(write: WriteConfig) -> None:
    text = repr(load_settings(write(SMALL)))

    assert not any(secret in text for secret in (OPENAI_KEY, ANTHROPIC_KEY, SIGNING_SECRET))


def test_projects_are_read_from_a_file(write: WriteConfig, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    (folder / "own.key").write_text("sk-own-key\n")
    (folder / "own.key").chmod(0o600)
    (folder / "acme.yaml").write_text(
        f"projects:\n"
        f"  - id: {FIRST}\n"
        f"    name: Acme\n"
        f"    members:\n"
        f"      - {{user: developer@example.com, permissions: [can_use_llm_proxy]}}\n"
        f"      - {{user: operator@example.com, admin: true}}\n"
        f"    providers: {{openai: {{api_key: {{file: own.key}}}}}}\n"
        f'    models: ["openai/*"]\n'
    )

    loaded = load_settings(write(PROVIDERS + "projects: people/acme.yaml\n"))

    assert loaded.projects == (
        Project(
            FIRST,
            "Acme",
            members=(
                Member("developer@example.com", permissions=frozenset({"can_use_llm_proxy"})),
                Member("operator@example.com", admin=True),
            ),
            providers={"openai": ProjectProvider((ProviderKey("default", Secret("sk-own-key")),))},
            models=ModelPatterns(("openai/*",)),
        ),
    )


def test_projects_are_read_from_a_folder(write: WriteConfig, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    (folder / "b.yaml").write_text(f"projects: [{{id: {FIRST}, name: b}}]\n")
    (folder / "a.yaml").write_text(f"projects: [{{id: {OTHER}, name: a}}]\n")

    loaded = load_settings(write(PROVIDERS + "projects: people\n"))

    assert [project.name for project in loaded.projects] == ["a", "b"]


def test_duplicate_ids_are_faults_across_files(write: WriteConfig, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    project = (
        f"projects:\n- id: {FIRST}\n  name: x\n  api_keys:\n  - id: {KID}\n    secret: {{file: ../anthropic.key}}\n"
    )
    (folder / "a.yaml").write_text(project)
    (folder / "b.yaml").write_text(project)

    assert find_faults(write(PROVIDERS + "projects: people\n")) == [
        "people/b.yaml:2: projects[0].id: is already the id of another project (people/a.yaml:2); use a new UUID",
        "people/b.yaml:5: projects[0].api_keys[0].id: is already the id of another API key (people/a.yaml:5); "
        "use a new UUID",
    ]


def test_duplicate_key_id_in_two_projects_is_a_fault(write: WriteConfig) -> None:
    other = f"  - {{id: {OTHER}, name: b, api_keys: [{{id: {KID}, secret: {{env: CONFIG_SIGNING_SECRET}}}}]}}\n"

    assert find_faults(write(SMALL + other)) == [
        "proxy.yaml:8: projects[1].api_keys[0].id: is already the id of another API key (proxy.yaml:7); use a new UUID"
    ]


def test_project_key_needs_its_provider_in_proxy_yaml(write: WriteConfig) -> None:
    text = (
        "providers: {openai: {base_url: https://api.openai.com, api_key: {env: CONFIG_OPENAI_KEY}}}\n"
        f"projects:\n- id: {FIRST}\n  name: x\n  providers: {{anthropic: {{api_key: {{file: anthropic.key}}}}}}\n"
    )

    assert find_faults(write(text)) == [
        "proxy.yaml:5: projects[0].providers.anthropic: proxy.yaml has no providers.anthropic; "
        "add it there, or remove this key"
    ]


def test_faults_of_all_files_are_reported_together(write: WriteConfig, tmp_path: Path) -> None:
    (tmp_path / "prices").mkdir()
    (tmp_path / "prices" / "openai.yaml").write_text("provider: openai\nmodels: {}\nx: 1\n")
    (tmp_path / "prices" / "other.yaml").write_text("")
    (tmp_path / "projects.yaml").write_text(
        f"projects:\n"
        f"- {{id: {FIRST}, nme: x, api_keys: [{{id: {KID}, secret: {{env: NO_SIGNING_SECRET}}}}]}}\n"
        f"- {{id: {OTHER}, name: y, api_keys: [{{id: {OTHER_KID}, secret: {{env: NO_OTHER_SECRET}}}}]}}\n"
    )
    path = write(
        "lsten: {}\n"
        "providers:\n"
        "  openai: {base_url: ftp://x, api_key: {env: NO_OPENAI_KEY}, region: mars}\n"
        "  anthropic: {api_key: sk-literal}\n"
        "pricing: {path: prices}\n"
        "projects: projects.yaml\n"
    )

    assert find_faults(path) == [
        "prices/other.yaml: is empty",
        "projects.yaml:2: projects[0].api_keys[0].secret: environment variable NO_SIGNING_SECRET is not set",
        "projects.yaml:2: projects[0].name: is required",
        'projects.yaml:2: projects[0].nme: unknown key "nme"; did you mean "name"?',
        "projects.yaml:3: projects[1].api_keys[0].secret: environment variable NO_OTHER_SECRET is not set",
        'proxy.yaml:1: lsten: unknown key "lsten"; did you mean "listen"?',
        "proxy.yaml:3: providers.openai.api_key: environment variable NO_OPENAI_KEY is not set",
        "proxy.yaml:3: providers.openai.base_url: must be an http or https URL such as https://api.example.com",
        "proxy.yaml:3: providers.openai.region: must be one of us, eu, au, in, jp, other, not 'mars'",
        "proxy.yaml:4: providers.anthropic.api_key: must be a reference to a secret, {env: NAME} or {file: PATH}, "
        "not the present value (hidden: it could be a secret)",
        "proxy.yaml:4: providers.anthropic.base_url: is required",
    ]


def test_invalid_price_file_is_a_fault_and_no_price_documents_are_returned(write: WriteConfig, tmp_path: Path) -> None:
    (tmp_path / "openai.yaml").write_text("provider: openai\nmodels: {}\n")

    read = read_config(write(SMALL + "pricing: {path: openai.yaml}\n"))

    assert [(fault.line, fault.key, fault.rule) for fault in read.faults] == [(2, "models", "must have at least 1 key")]
    assert read.price_documents == ()


def test_valid_price_documents_are_returned_despite_other_faults(write: WriteConfig) -> None:
    read = read_config(write("x: 1\n"))

    assert read.config is None
    assert [Path(document.file).name for document in read.price_documents] == ["prices.yaml"]


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        pytest.param(
            "pricing: {path: none}\nprojects: []\n", "proxy.yaml:4: pricing.path: none does not exist", id="prices"
        ),
        pytest.param("projects: none.yaml\n", "proxy.yaml:4: projects: none.yaml does not exist", id="projects"),
        pytest.param(
            f"projects: {'a' * 300}\n",
            f"proxy.yaml:4: projects: {'a' * 300} cannot be read: File name too long",
            id="a name too long",
        ),
        pytest.param('projects: "a\\tb"\n', "proxy.yaml:4: projects: a\tb does not exist", id="a control character"),
    ],
)
def test_missing_linked_file_is_a_fault_at_the_link(write: WriteConfig, lines: str, fault: str) -> None:
    assert find_faults(write(PROVIDERS + lines)) == [fault]


def test_linked_file_has_faults_of_its_own(write: WriteConfig, tmp_path: Path) -> None:
    (tmp_path / "projects.yaml").write_text("projects: []\nprojects: []\n")

    assert find_faults(write(PROVIDERS + "projects: projects.yaml\n")) == [
        'projects.yaml:2: duplicate key "projects", first on line 1; remove one'
    ]


def test_project_file_that_is_not_a_mapping_is_one_fault(write: WriteConfig, tmp_path: Path) -> None:
    (tmp_path / "projects.yaml").write_text("- a\n")

    assert find_faults(write(PROVIDERS + "projects: projects.yaml\n")) == [
        "projects.yaml:1: must be a mapping, not a list"
    ]


@pytest.mark.parametrize("content", ["5\n", "[]\n", "text\n"])
def test_file_that_is_not_a_mapping_is_one_fault(write: WriteConfig, content: str) -> None:
    (fault,) = find_faults(write(content))

    assert fault.startswith("proxy.yaml:1: must be a mapping, not ")


def test_missing_configuration_is_a_fault(tmp_path: Path) -> None:
    assert find_faults(tmp_path / "proxy.yaml") == ["proxy.yaml: does not exist; create it or name another file"]
