"""What may go wrong on the way to the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub.conftest import NAME, find
from tests.hub.test_download import closed_port, silent_port
from tests.loopback_hub import Client, LoopbackHub, User, fresh_process


def push(client: Client, weights: Path, name: str = NAME, token: str = "hf_secret", **options: object) -> str:
    """What `publish.push` gives, after the check that comes before it, or why not."""
    (said,) = client(
        f"""
def push():
    publish.check_push({name!r}, {token!r})
    return publish.push({str(weights)!r}, {name!r}, token={token!r}, **{options!r})

tell(push)
"""
    )
    return said


def test_push_and_push_again(
    server: LoopbackHub, client: Client, weights: Path, cache: Path, files: dict
) -> None:
    url = push(client, weights, private=True)
    repository = server.repositories[NAME]
    initial, commit = repository.commits
    assert url == f"{server.url}/{NAME}/commit/{commit.sha}" and repository.private
    assert commit.files == initial.files | files
    assert push(client, weights) == url and len(repository.commits) == 2  # nothing has changed
    assert find(client, cache, token="hf_secret", revision=commit.sha) == [commit.sha]
    assert {asked.split()[0] for asked in server.requests if "/storage/" in asked} == {"PUT", "POST", "GET"}


@pytest.mark.parametrize(
    "user, said",
    [
        (None, "does not let you write"),
        (User(role="read"), "the token may only read"),
        (User("another"), "the token is another's, who is not in 'someone'"),
        # Such a token does not tell all that it may do: the Hub itself refuses.
        (User("another", role="fineGrained"), "does not let you write"),
    ],
)
def test_push_without_the_right_to(
    server: LoopbackHub, client: Client, weights: Path, user: User | None, said: str
) -> None:
    server.tokens = {"hf_secret": user} if user else {}
    told = push(client, weights)
    assert said in told and NAME in told and not server.repositories


def test_push_to_an_organisation(server: LoopbackHub, client: Client, weights: Path) -> None:
    """In whatever case its name is written."""
    server.tokens["hf_secret"] = User("another", organisations=("Someone", "someone"))
    assert "/commit/" in push(client, weights)


def test_push_without_a_token(client: Client) -> None:
    (said,) = client(f"tell(publish.check_push, {NAME!r})")
    assert NAME in said and "without a token" in said


@pytest.mark.parametrize("nowhere", [closed_port, silent_port])
@pytest.mark.slow
def test_push_to_a_hub_that_is_not_there(tmp_path: Path, nowhere) -> None:
    code = "from fkp.hub import publish\npublish.PATIENCE = 1\n"
    code += "try: publish.check_push('someone/faces', 'hf_secret')\nexcept RuntimeError as e: print(e)"
    with nowhere() as url:
        (said,) = fresh_process(code, url, tmp_path)
    assert NAME in said and "the Hub cannot be reached" in said


@pytest.mark.parametrize(
    "match, how, said",
    [
        ("GET /api/whoami", {"status": 429, "headers": {"Retry-After": "60"}}, "try again in 60 s"),
        ("POST /api/repos", {"status": 500}, "error 500"),
        ("POST .*/commit/", {"status": 403}, "does not let you write"),
        ("POST .*/commit/", {"cut": None}, "the Hub cannot be reached"),
        ("PUT /storage/", {"status": 403}, "does not let you write"),
        ("POST .*/validate-yaml", {"status": 400}, "could not be pushed"),
    ],
)
def test_a_push_that_fails(
    server: LoopbackHub, client: Client, weights: Path, match: str, how: dict, said: str
) -> None:
    """A sentence; the repository is as it was, and the next attempt succeeds."""
    with server.fault(match, **how):
        assert said in push(client, weights)
    commits = [commit for repository in server.repositories.values() for commit in repository.commits]
    assert all(commit.message == "initial commit" for commit in commits)
    assert "/commit/" in push(client, weights)
