"""What fkp asks of the Hugging Face Hub: files into the local cache, a folder up. A failure is one sentence.

A file that is in the cache is taken for good only after a look at it: huggingface_hub compares sizes, which
the rest of an interrupted download, or a disk that was full, may well have.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import re
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import validate_repo_id

from fkp.hub.errors import WeightsError

PATIENCE = 2.5
"""Seconds that the Hub's first answer may take; without a network huggingface_hub itself tries for 23."""

PATIENCE_TO_PUSH = 10.0
"""The same where somebody is about to upload, and nothing else can take the Hub's place."""

LONGEST_WAIT = 5.0
"""Seconds that a busy Hub may make us wait, once, if the cache does not have what is wanted."""

_COMMIT = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")

T = TypeVar("T")

IsWhole = Callable[[Path], bool]
"""Whether a file in the cache is what it should be, as far as can be told by looking at it."""


class Options(TypedDict, total=False):
    """What may be said of a download; each as in `huggingface_hub.hf_hub_download`."""

    cache_dir: str | Path | None
    token: str | bool | None
    local_files_only: bool
    force_download: bool
    endpoint: str | None


class Files:
    """The files of one repository as `download` gets them: from the cache alone, or from the network too."""

    def __init__(self, repo_id: str, cached_only: bool, renew: bool, options: dict[str, Any]) -> None:
        self.repo_id, self.cached_only, self.renew = repo_id, cached_only, renew
        self.options = options

    def get(self, name: str, revision: str | None, is_whole: IsWhole = lambda _: True) -> Path:
        """A file at a revision; one that is damaged in the cache is downloaded again, or raises `_Damaged`.

        Besides, it raises what hf_hub_download does.
        """
        path = self._fetch(name, revision, self.renew)
        if _has_its_hash(path) and is_whole(path):
            return path
        if self.cached_only:
            raise _Damaged(f"{path} is damaged: delete {path.resolve()}, and it will be downloaded again")
        path = self._fetch(name, revision, True)
        if not (_has_its_hash(path) and is_whole(path)):
            raise WeightsError(f"{name} of {self.repo_id} comes damaged from the Hub")
        return path

    def get_if_any(self, name: str, revision: str | None, is_whole: IsWhole = lambda _: True) -> None:
        """The same for a file that need not exist; from the cache, it must be known that it does not."""
        try:
            self.get(name, revision, is_whole)
        except errors.EntryNotFoundError:  # also where it is not in the cache
            if self.cached_only and self._cached(name, revision) is None:
                raise _Incomplete from None

    def mark(self, name: str, revision: str | None) -> Path:
        """A file that is in the cache already, so that the cache knows its commit by the revision's name."""
        return self._fetch(name, revision, False)

    def _fetch(self, name: str, revision: str | None, renew: bool) -> Path:
        if self.cached_only:
            # Even with local_files_only, hf_hub_download of huggingface_hub 2.4 asks the Hub once a day which
            # programs to look for and name in its headers, and waits 3 seconds for that.
            cached = self._cached(name, revision)
            if not isinstance(cached, str):
                raise errors.LocalEntryNotFoundError(f"{name} is not in the cache")
            return Path(cached)
        return Path(
            huggingface_hub.hf_hub_download(
                self.repo_id, name, revision=revision, force_download=renew, **self.options
            )
        )

    def _cached(self, name: str, revision: str | None) -> Any:
        """The path in the cache, None if nothing is known of it, something else if it does not exist."""
        return huggingface_hub.try_to_load_from_cache(
            self.repo_id, name, self.options.get("cache_dir"), revision
        )


class _Damaged(WeightsError):
    """A file in the cache is not what it was."""


class _Incomplete(Exception):
    """The cache lacks a file that may exist."""


def is_id(text: str) -> bool:
    """Whether a text can be the name OWNER/NAME of a repository."""
    with contextlib.suppress(ValueError):
        validate_repo_id(text)
        return text.count("/") == 1
    return False


def download(
    repo_id: str,
    revision: str | None,
    fetch: Callable[[Files, str | None, str | None], Path],
    probed: str,
    lacking: Callable[[Sequence[str]], str],
    absent: str = "is not in the local cache",
    **options: Unpack[Options],
) -> Path:
    """What `fetch(files, revision, commit)` finds in the local cache or puts there from the network.

    A commit that is in the cache needs no request. Everything else begins with one quick request for the
    file `probed`; where that is not answered, the cache is looked at, and what it has is used with a warning.
    `lacking(names)` says what a repository with files of these names lacks when one is not found, `absent`
    that the cache does not have it. Raises WeightsError with one sentence.
    """
    check(options)
    rest: dict[str, Any] = dict(options)
    renew = bool(rest.pop("force_download", False))
    switched_off = bool(rest.pop("local_files_only", False)) or constants.is_offline_mode()
    where = f"{repo_id} at revision {revision}" if revision else repo_id
    if switched_off and renew:
        raise WeightsError(f"{where} cannot be downloaded again: the network is switched off")

    def cached() -> Path:
        return fetch(Files(repo_id, True, False, rest), revision, revision)

    try:
        if switched_off:
            try:
                return cached()
            except _Incomplete:
                # It will not get better than that.
                return fetch(_Whatever(repo_id, True, False, rest), revision, revision)
        if revision and _COMMIT.fullmatch(revision) and not renew:
            with contextlib.suppress(errors.LocalEntryNotFoundError, _Damaged, _Incomplete):
                return cached()
        reason, wait = "", 0.0
        for attempt in range(2):
            if attempt:
                time.sleep(wait)
            try:
                # Or every file would be retried for long where there is no network.
                commit = within(PATIENCE, lambda: _commit(repo_id, probed, revision, rest))
            except errors.HfHubHTTPError as error:
                if not _is_overloaded(error):
                    raise
                reason, wait = _overloaded(error), _wait(error)
            except (errors.HTTPError, TimeoutError) as error:
                reason, wait = f"the Hub cannot be reached ({first_line(error)})", 0.0
            else:
                return fetch(Files(repo_id, False, renew, rest), revision, commit)
            with contextlib.suppress(errors.LocalEntryNotFoundError):
                path = fetch(_Whatever(repo_id, True, False, rest), revision, revision)
                warnings.warn(
                    f"{reason}: {where} is taken from the local cache as of commit {_commit_of(path)}, "
                    "and there may be a newer one",
                    stacklevel=4,  # who called FaceKeypoints.from_pretrained
                )
                return path
            if not 0 < wait <= LONGEST_WAIT:
                break
        raise WeightsError(f"{where} {absent}, and {reason}")
    except WeightsError:
        raise
    except errors.RevisionNotFoundError:
        raise WeightsError(f"{repo_id} has no revision {revision!r} on the Hub") from None
    except errors.GatedRepoError:
        raise WeightsError(
            f"{repo_id} is for those who have accepted its terms: do so on its page, and run 'hf auth login'"
        ) from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(
            f"there is neither a folder {repo_id} here nor a model {repo_id} on the Hub that you may read: "
            "check the name, and for a private model run 'hf auth login' or let HF_TOKEN hold your token"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        why = "the network is switched off" if switched_off else f"the Hub fell silent ({first_line(error)})"
        raise WeightsError(f"{where} {absent}, and {why}") from None
    except errors.EntryNotFoundError:
        raise WeightsError(f"{where} holds {lacking(_names(repo_id, revision, rest))}") from None
    except errors.HfHubHTTPError as error:
        raise WeightsError(f"{where} could not be downloaded: {_refusal(error)}") from error
    except errors.HTTPError as error:
        raise WeightsError(
            f"{where} could not be downloaded, for the connection broke off ({first_line(error)}): try again"
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{where} could not be downloaded: {first_line(error)}") from error


class _Whatever(Files):
    """From the cache, what there is of files that need not exist."""

    def get_if_any(self, name: str, revision: str | None, is_whole: IsWhole = lambda _: True) -> None:
        with contextlib.suppress(_Incomplete):
            super().get_if_any(name, revision, is_whole)


def fetch_file(repo_id: str, name: str, commit: str, **options: Unpack[Options]) -> Path:
    """One file of any repository at a commit (40 hex digits), from the local cache where it is in there.

    Raises WeightsError with one sentence when it cannot be had.
    """

    def fetch(files: Files, revision: str | None, commit: str | None) -> Path:
        return files.get(name, commit)

    return download(repo_id, commit, fetch, name, lambda _: f"no {name}", **options)


def check(options: Any) -> None:
    """Raises TypeError for an option that is none, as a function does that has no such argument."""
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        known = ", ".join(Options.__annotations__)
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}: options of the Hub are {known}")


def check_push(repo_id: str, token: str | None = None) -> None:
    """Raises WeightsError with one sentence if it is clear that `token` cannot write OWNER/NAME.

    That is one request; `token` None stands for the one of `hf auth login` or HF_TOKEN.
    """
    if not is_id(repo_id):
        raise WeightsError(f"{repo_id!r} is no Hub id of the form OWNER/NAME")
    if constants.is_offline_mode():
        raise WeightsError(f"{repo_id} cannot be pushed: the network is switched off (HF_HUB_OFFLINE)")
    token = token or huggingface_hub.get_token()
    if not token:
        raise WeightsError(
            f"{repo_id} cannot be pushed without a token: run 'hf auth login', or let HF_TOKEN hold one that "
            "may write"
        )
    try:
        user = within(PATIENCE_TO_PUSH, lambda: huggingface_hub.HfApi(token=token).whoami())
    except (errors.HTTPError, OSError, ValueError) as error:
        raise not_pushed(repo_id, error) from error
    access = user.get("auth", {}).get("accessToken", {}).get("role")
    if access == "read":
        raise WeightsError(f"{repo_id} cannot be pushed: the token may only read, make one that may write")
    owner, owners = repo_id.split("/")[0], [user["name"], *(org["name"] for org in user.get("orgs", []))]
    # Other kinds of token see only some of the organisations.
    if access == "write" and owner.casefold() not in map(str.casefold, owners):
        raise WeightsError(
            f"{repo_id} cannot be pushed: the token is {user['name']}'s, who is not in {owner!r} on the Hub"
        )


def push(
    folder: Path,
    names: Sequence[str],
    repo_id: str,
    *,
    private: bool,
    token: str | None,
    message: str,
    outdated: Sequence[str],
) -> str:
    """Upload files of a folder as one commit, into a repository that is made if need be; the commit's URL.

    Files of the repository that match a pattern of `outdated` and are none of these go. Raises WeightsError
    with one sentence when the Hub refuses or cannot be reached; `check_push` tells sooner.
    """
    if not is_id(repo_id):
        raise WeightsError(f"{repo_id!r} is no Hub id of the form OWNER/NAME")
    try:
        api = huggingface_hub.HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=message,
            allow_patterns=list(names),
            delete_patterns=list(outdated),
        )
    except (errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise not_pushed(repo_id, error) from error
    return commit.commit_url


def within(seconds: float, ask: Callable[[], T]) -> T:
    """What `ask` gives or raises; TimeoutError when it takes longer than that.

    It runs in a thread of its own: looking up a host's name, and an answer that trickles in, know no limit.
    """
    answers: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]  # T itself may be None


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _commit(repo_id: str, probed: str, revision: str | None, options: dict[str, Any]) -> str | None:
    """The commit that a revision stands for on the Hub."""
    endpoint = options.get("endpoint")
    url = huggingface_hub.hf_hub_url(repo_id, probed, revision=revision, endpoint=endpoint)
    token = options.get("token")
    return huggingface_hub.get_hf_file_metadata(
        url, token=token, timeout=PATIENCE, endpoint=endpoint
    ).commit_hash


def _names(repo_id: str, revision: str | None, options: dict[str, Any]) -> list[str]:
    """The files of a repository; none if the Hub does not tell."""
    api = huggingface_hub.HfApi(endpoint=options.get("endpoint"), token=options.get("token"))
    try:
        return within(PATIENCE, lambda: api.list_repo_files(repo_id, revision=revision))
    except (errors.HTTPError, OSError, ValueError):
        return []


def _has_its_hash(path: Path) -> bool:
    """Whether a file of the cache has the SHA-256 that it is called by, if it is called so.

    The Hub's large files are; small ones are JSON here, which tells when it is cut off.
    """
    blob = path.resolve()
    return not _SHA256.fullmatch(blob.name) or hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def _commit_of(path: Path) -> str:
    """The commit in the path of a snapshot, or of a file in it."""
    return next((part for part in reversed(path.parts) if _COMMIT.fullmatch(part)), "unknown")


def _is_overloaded(error: errors.HfHubHTTPError) -> bool:
    return error.response.status_code == 429 or error.response.status_code >= 500


def _overloaded(error: errors.HfHubHTTPError) -> str:
    if error.response.status_code == 429:
        wait = _wait(error)
        return f"the Hub has had too many requests from here{f': try again in {wait:g} s' if wait else ''}"
    return f"the Hub answers with error {error.response.status_code}"


def _wait(error: errors.HfHubHTTPError) -> float:
    """Seconds that the Hub asks us to wait, 0 if it does not say."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(error.response.headers.get("Retry-After", "")))
    return 0.0


def _refusal(error: errors.HfHubHTTPError) -> str:
    if _is_overloaded(error):
        return _overloaded(error)
    if error.response.status_code == 401:
        return "the Hub does not know your token: run 'hf auth login' again, or take HF_TOKEN away"
    return first_line(error)


def not_pushed(repo_id: str, error: BaseException) -> WeightsError:
    """The sentence for an upload that failed with an error of huggingface_hub."""
    # What went wrong with a single file is wrapped.
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, errors.HfHubHTTPError):
        if error.response.status_code in (401, 403):
            return WeightsError(
                f"the Hub does not let you write {repo_id}: run 'hf auth login' with a token that may write"
            )
        return WeightsError(f"{repo_id} could not be pushed: {_refusal(error)}")
    if isinstance(error, errors.HTTPError | TimeoutError):
        return WeightsError(
            f"{repo_id} could not be pushed: the Hub cannot be reached ({first_line(error)}), try again later"
        )
    return WeightsError(f"{repo_id} could not be pushed: {first_line(error)}")
