"""Settings read from an environment, and the sentences about those that cannot be."""

from __future__ import annotations

from dataclasses import fields

import pytest

from fkp.demo import settings
from fkp.demo.settings import Settings, SettingsError, from_environment


def test_an_empty_environment_gives_the_defaults():
    assert from_environment({}) == Settings()
    assert from_environment({"FKP_MAX_FACES": "", "FKP_MODEL": " ", "PATH": "/bin"}) == Settings()


def test_settings_are_all_read():
    environment = {
        "FKP_MODEL": "owner/name",
        "FKP_REVISION": "v2",
        "FKP_DETECTOR": "whole",
        "FKP_THREADS": "3",
        "FKP_MAX_FACES": "7",
        "FKP_MAX_PIXELS": "1000000",
        "FKP_MAX_FILE_SIZE": "5mb",
        "FKP_MAX_VIEWERS": "2",
        "FKP_MAX_CLIP_SECONDS": "30",
        "FKP_MAX_CLIP_SIZE": "20mb",
        "FKP_MAX_CLIP_FRAMES": "900",
        "FKP_MAX_CLIP_WORK": "60",
        "FKP_MAX_DISK": "1gb",
        "FKP_CLIPS_AT_ONCE": "3",
        "FKP_MCP": "1",
        "FKP_SOURCE": "https://code.example.org/fkp",
        "FKP_HOSTS": "Faces.example.org, localhost:8080",
        "FKP_BROWSER_EDITION": "https://owner-name.static.hf.space/",
    }
    expected = Settings(
        "owner/name", "v2", "whole", 3, 7, 1_000_000, 5_000_000, 2, 30, 20_000_000, 900, 60, 10**9, 3,
        True,
        "https://code.example.org/fkp",
        ("faces.example.org", "localhost:8080"),
        "https://owner-name.static.hf.space/",
    )  # fmt: skip
    assert from_environment(environment) == expected
    assert {settings.variable(each.name) for each in fields(Settings)} == environment.keys()


@pytest.mark.parametrize(
    "text, size",
    [("1", 1), ("800", 800), ("800kb", 800_000), ("50MB", 50_000_000), ("2 g", 2 * 10**9), ("5M", 5 * 10**6)],
)
def test_sizes_may_have_a_unit(text, size):
    assert from_environment({"FKP_MAX_FILE_SIZE": text}).max_file_size == size


@pytest.mark.parametrize(
    "name, value, needed",
    [
        ("FKP_THREADS", "two", "a whole number from 1"),
        ("FKP_THREADS", "0", "a whole number from 1"),
        ("FKP_MAX_FACES", "-3", "a whole number from 1"),
        ("FKP_MAX_PIXELS", "1e6", "a whole number from 1"),
        ("FKP_MAX_FILE_SIZE", "much", "a number of bytes"),
        ("FKP_MAX_FILE_SIZE", "0mb", "a number of bytes"),
        ("FKP_MCP", "yes", "0 or 1"),
        ("FKP_DETECTOR", "haar", "one of fkp, yunet, whole is needed"),
    ],
)
def test_settings_that_cannot_be_used_are_told_by_name(name, value, needed):
    with pytest.raises(SettingsError) as caught:
        from_environment({name: value})
    told = str(caught.value)
    assert told.startswith(f"{name} is '{value}', where {needed}") and "\n" not in told


@pytest.mark.parametrize(
    "environment, threads",
    [
        ({"SYSTEM": "spaces", "CPU_CORES": "2"}, 2),
        ({"SYSTEM": "spaces", "CPU_CORES": "8.0"}, 8),
        ({"SYSTEM": "spaces", "CPU_CORES": "2", "FKP_THREADS": "1"}, 1),
        ({"SYSTEM": "spaces", "CPU_CORES": "many"}, None),
        ({"SYSTEM": "spaces"}, None),
        ({"CPU_CORES": "2"}, None),
    ],
)
def test_a_space_says_how_many_cores_it_has(environment, threads):
    assert from_environment(environment).threads == threads


def test_a_space_says_what_it_is_called():
    space = {"SYSTEM": "spaces", "SPACE_HOST": "Me-Demo.hf.space"}
    assert from_environment(space).hosts == ("me-demo.hf.space",)
    assert from_environment(space | {"FKP_HOSTS": "a.org"}).hosts == ("a.org", "me-demo.hf.space")
    assert from_environment({"SPACE_HOST": "me-demo.hf.space"}).hosts == ()


def test_a_space_says_where_its_source_is():
    space = {"SYSTEM": "spaces", "SPACE_ID": "me/demo"}
    assert from_environment(space).source == "https://huggingface.co/spaces/me/demo/tree/main"
    assert from_environment(space | {"FKP_SOURCE": "https://a.org/fkp"}).source == "https://a.org/fkp"
    assert from_environment({"SPACE_ID": "me/demo"}).source is None
    with pytest.raises(SettingsError, match="FKP_SOURCE is 'javascript:x', where an address"):
        from_environment({"FKP_SOURCE": "javascript:x"})


def test_help_has_a_line_for_each():
    lines = settings.help_text().splitlines()
    assert len(lines) == len(fields(Settings))
    for line, each in zip(lines, fields(Settings), strict=True):
        name, text = line.split(None, 1)
        assert name == settings.variable(each.name)
        in_bytes = ("mcp", "max_file_size", "max_clip_size", "max_disk")
        if isinstance(each.default, int) and each.name not in in_bytes:
            assert text.endswith(f"({each.default})")
