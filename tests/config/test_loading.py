from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from tests.config.conftest import ANTHROPIC_KEY, OPENAI_KEY, SIGNING_SECRET, SMALL, WriteConfig
from tornado_proxy.config.loading import load_settings, read_config
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.domain.identity import ApiKey, Member, ModelPatterns, Project, Secret

FIRST = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"
OTHER = "5b0a3c1e-1d57-4a6e-9d53-5b1f2a1f6c77"
KEY_ID = "7d0e8a72-0c55-4c0f-9a5b-7f1f1f0f2a11"
OTHER_KEY_ID = "3f4f9f0e-27f8-4a55-93a5-6b7c8d9e0f12"
PROVIDERS = "\n".join(SMALL.splitlines()[:3]) + "\n"


def faults_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    return [str(fault).replace(f"{path.parent}/", "") for fault in caught.value.faults]


def test_ten_lines_are_a_configuration(write: WriteConfig) -> None:
    path = write(SMALL)
    path.write_text(SMALL)  # nothing of prices

    loaded = load_settings(path)

    assert loaded.settings.providers["openai"].base_url == "https://api.openai.com"
    assert loaded.settings.providers["openai"].api_key == Secret(OPENAI_KEY)
    assert loaded.settings.providers["anthropic"].base_url == "https://api.anthropic.com"
    assert loaded.settings.providers["anthropic"].api_key == Secret(ANTHROPIC_KEY)
    assert loaded.settings.pricing.surcharge_rate == Decimal(0)
    assert (loaded.settings.listen.host, loaded.settings.listen.port) == ("127.0.0.1", 8080)
    assert loaded.projects == (Project(FIRST, "first", (ApiKey(KEY_ID, FIRST, Secret(SIGNING_SECRET)),)),)
    assert [Path(document.file).name for document in loaded.price_documents] == ["anthropic.yaml", "openai.yaml"]


def test_no_secret_is_seen_in_what_was_loaded(write: WriteConfig) -> None:
    text = repr(load_settings(write(SMALL)))

    assert not any(secret in text for secret in (OPENAI_KEY, ANTHROPIC_KEY, SIGNING_SECRET))


def test_projects_stand_in_a_file(write: WriteConfig, tmp_path: Path) -> None:
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
                Member("developer@example.com", frozenset({"can_use_llm_proxy"})),
                Member("operator@example.com", admin=True),
            ),
            provider_keys={"openai": Secret("sk-own-key")},
            models=ModelPatterns(("openai/*",)),
        ),
    )


def test_projects_stand_in_a_folder_of_files(write: WriteConfig, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    (folder / "b.yaml").write_text(f"projects: [{{id: {FIRST}, name: b}}]\n")
    (folder / "a.yaml").write_text(f"projects: [{{id: {OTHER}, name: a}}]\n")

    loaded = load_settings(write(PROVIDERS + "projects: people\n"))

    assert [project.name for project in loaded.projects] == ["a", "b"]


def test_ids_that_are_used_twice_are_faults_across_files_too(write: WriteConfig, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    project = (
        f"projects:\n- id: {FIRST}\n  name: x\n  api_keys:\n  - id: {KEY_ID}\n    secret: {{file: ../anthropic.key}}\n"
    )
    (folder / "a.yaml").write_text(project)
    (folder / "b.yaml").write_text(project)

    assert faults_of(write(PROVIDERS + "projects: people\n")) == [
        "people/b.yaml:2: projects[0].id: the id of another project, see people/a.yaml:2",
        "people/b.yaml:5: projects[0].api_keys[0].id: the id of another API key, see people/a.yaml:5",
    ]


def test_the_id_of_a_key_is_not_used_in_two_projects(write: WriteConfig) -> None:
    other = f"  - {{id: {OTHER}, name: b, api_keys: [{{id: {KEY_ID}, secret: {{env: CONFIG_SIGNING_SECRET}}}}]}}\n"

    assert faults_of(write(SMALL + other)) == [
        "proxy.yaml:8: projects[1].api_keys[0].id: the id of another API key, see proxy.yaml:7"
    ]


def test_a_key_of_a_projects_own_needs_the_provider_in_the_configuration(write: WriteConfig) -> None:
    text = (
        "providers: {openai: {base_url: https://api.openai.com, api_key: {env: CONFIG_OPENAI_KEY}}}\n"
        f"projects:\n- id: {FIRST}\n  name: x\n  providers: {{anthropic: {{api_key: {{file: anthropic.key}}}}}}\n"
    )

    assert faults_of(write(text)) == [
        "proxy.yaml:5: projects[0].providers.anthropic: cannot be used: "
        "the server's configuration has no providers.anthropic"
    ]


def test_all_faults_of_all_files_are_told_at_once(write: WriteConfig, tmp_path: Path) -> None:
    (tmp_path / "prices").mkdir()
    (tmp_path / "prices" / "openai.yaml").write_text("provider: openai\nmodels: {}\nx: 1\n")
    (tmp_path / "prices" / "other.yaml").write_text("")
    (tmp_path / "projects.yaml").write_text(
        f"projects:\n"
        f"- {{id: {FIRST}, nme: x, api_keys: [{{id: {KEY_ID}, secret: {{env: NO_SIGNING_SECRET}}}}]}}\n"
        f"- {{id: {OTHER}, name: y, api_keys: [{{id: {OTHER_KEY_ID}, secret: {{env: NO_OTHER_SECRET}}}}]}}\n"
    )
    path = write(
        "lsten: {}\n"
        "providers:\n"
        "  openai: {base_url: ftp://x, api_key: {env: NO_OPENAI_KEY}, region: mars}\n"
        "  anthropic: {api_key: sk-literal}\n"
        "pricing: {path: prices}\n"
        "projects: projects.yaml\n"
    )

    assert faults_of(path) == [
        "prices/other.yaml: is empty",
        "projects.yaml:2: projects[0].api_keys[0].secret: environment variable NO_SIGNING_SECRET is not set",
        "projects.yaml:2: projects[0].name: is required",
        'projects.yaml:2: projects[0].nme: unknown key "nme"; did you mean "name"?',
        "projects.yaml:3: projects[1].api_keys[0].secret: environment variable NO_OTHER_SECRET is not set",
        'proxy.yaml:1: lsten: unknown key "lsten"; did you mean "listen"?',
        "proxy.yaml:3: providers.openai.api_key: environment variable NO_OPENAI_KEY is not set",
        "proxy.yaml:3: providers.openai.base_url: must be an http or https URL such as https://api.openai.com",
        "proxy.yaml:3: providers.openai.region: must be one of us, eu, au, in, jp, other, not 'mars'",
        "proxy.yaml:4: providers.anthropic.api_key: must be a reference to a secret, {env: NAME} or {file: PATH}, "
        "not what stands there (not shown: it could be a secret)",
        "proxy.yaml:4: providers.anthropic.base_url: is required",
    ]


def test_a_faulty_price_file_is_a_fault_and_its_documents_are_not_handed_on(write: WriteConfig, tmp_path: Path) -> None:
    (tmp_path / "openai.yaml").write_text("provider: openai\nmodels: {}\n")

    read = read_config(write(SMALL + "pricing: {path: openai.yaml}\n"))

    assert [(fault.line, fault.key, fault.rule) for fault in read.faults] == [(2, "models", "needs at least 1 key")]
    assert read.price_documents == ()


def test_valid_prices_are_handed_on_whatever_else_is_wrong(write: WriteConfig) -> None:
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
        pytest.param('projects: "a\\tb"\n', "proxy.yaml:4: projects: a\tb does not exist", id="an odd name"),
    ],
)
def test_a_path_that_leads_nowhere_is_told_where_it_stands(write: WriteConfig, lines: str, fault: str) -> None:
    assert faults_of(write(PROVIDERS + lines)) == [fault]


def test_a_file_that_a_file_names_tells_its_own_faults(write: WriteConfig, tmp_path: Path) -> None:
    (tmp_path / "projects.yaml").write_text("projects: []\nprojects: []\n")

    assert faults_of(write(PROVIDERS + "projects: projects.yaml\n")) == [
        "projects.yaml:2: this key stands twice in one mapping, first on line 1"
    ]


def test_a_file_of_projects_that_is_no_mapping_is_told_once(write: WriteConfig, tmp_path: Path) -> None:
    (tmp_path / "projects.yaml").write_text("- a\n")

    assert faults_of(write(PROVIDERS + "projects: projects.yaml\n")) == [
        "projects.yaml:1: must be a mapping, not a list"
    ]


@pytest.mark.parametrize("content", ["5\n", "[]\n", "text\n"])
def test_a_file_that_is_no_mapping_is_told_once(write: WriteConfig, content: str) -> None:
    (fault,) = faults_of(write(content))

    assert fault.startswith("proxy.yaml:1: must be a mapping, not ")


def test_a_configuration_that_does_not_exist_is_a_fault(tmp_path: Path) -> None:
    assert faults_of(tmp_path / "proxy.yaml") == ["proxy.yaml: does not exist; name another file or make this one"]
