"""Requests of this page and of programs pass, those of other sites' pages do not."""

from __future__ import annotations

import pytest

from fkp.demo.origins import refusal

HOME = "127.0.0.1:7860"
SPACE = "owner-name.hf.space"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": HOME},  # curl, gradio_client
        {"host": HOME, "origin": "http://127.0.0.1:7860"},
        {"host": "localhost:7860", "origin": "http://localhost:7860", "sec-fetch-site": "same-origin"},
        {"host": "[::1]:7860", "origin": "http://[::1]:7860"},
        {"host": "192.168.1.5:7860", "origin": "http://192.168.1.5:7860"},
        {"host": HOME, "sec-fetch-site": "none", "sec-fetch-mode": "navigate"},  # typed in
        {"host": HOME, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},  # a link
        {"host": SPACE, "origin": f"https://{SPACE}", "sec-fetch-site": "same-origin"},
        {"host": f"{SPACE}:443", "origin": f"https://{SPACE}"},
        {
            "host": SPACE,
            "sec-fetch-site": "cross-site",
            "sec-fetch-mode": "navigate",
            "sec-fetch-dest": "iframe",
        },
        {"host": "App:80", "origin": "http://app"},
        # Proxies that call the page by another name
        {"host": "app:7860", "x-forwarded-host": "faces.example.org", "origin": "https://faces.example.org"},
        {"host": "app", "x-forwarded-host": "a.example, b.example:8443", "origin": "https://b.example:8443"},
        {"host": "app:7860", "origin": "https://faces.example.org", "sec-fetch-site": "same-origin"},
    ],
)
def test_the_page_itself_and_programs_pass(headers):
    assert refusal(headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"host": HOME, "origin": "https://evil.example"},
        {"host": HOME, "origin": "null"},
        {"host": HOME, "origin": ""},
        {"host": HOME, "origin": "http://127.0.0.1:9999"},  # another program of this computer
        {"host": HOME, "origin": "http://localhost:7860"},
        {"host": HOME, "origin": "https://127.0.0.1"},
        {"host": SPACE, "origin": "https://other-name.hf.space", "sec-fetch-site": "cross-site"},
        {"host": SPACE, "origin": f"https://{SPACE}.evil.example"},
        {"host": SPACE, "origin": f"https://evil.example/{SPACE}"},
        {"host": SPACE, "origin": f"https://{SPACE}:8443"},
        {"host": HOME, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},  # <img src="…">
        {"host": HOME, "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {
            "host": HOME,
            "sec-fetch-site": "cross-site",
            "sec-fetch-mode": "navigate",
            "origin": "https://a.example",
        },
    ],
)
def test_the_pages_of_other_sites_do_not(headers):
    assert "pages of other sites are refused" in refusal(headers)


@pytest.mark.parametrize("host", [HOME, "localhost", "LOCALHOST:80", "[::1]:7860", "a.localhost", ""])
def test_names_that_are_only_ours(host):
    assert refusal({"host": host}, at_home=True) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil"]
)
def test_a_name_that_was_made_to_lead_here_is_refused(host):
    rebound = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    assert f"does not answer to the name '{host}'" in refusal(rebound, at_home=True)
    assert refusal(rebound) is None  # where it is served to others, that is how they reach it


def test_hosts_can_be_added():
    headers = {"host": "Faces.example.org", "origin": "https://faces.example.org"}
    assert refusal(headers, ["faces.example.org"], at_home=True) is None
    assert (
        refusal({"host": "app:1", "origin": "https://faces.example.org:8443"}, ["faces.example.org"]) is None
    )
    strict = {"host": "app:1", "origin": "http://faces.example.org:81"}
    assert refusal(strict, ["faces.example.org:81"]) is None
    assert refusal(strict, ["faces.example.org:82"]) is not None
