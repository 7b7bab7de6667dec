"""Files of a Hugging Face Hub repository in the local cache. A failure is one sentence.

On top of `huggingface_hub.snapshot_download`: a quick answer where there is no network, and the cache in its
place. Files of the cache are checked against their hash: huggingface_hub compares sizes only, which are right
after an interrupted download or on a full disk, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import validate_repo_id

from fkp.hub.errors import WeightsError

PATIENCE = 2.5
"""Seconds that the Hub's first answer may take; without a network huggingface_hub itself tries for 23."""

LONGEST_WAIT = 5.0
"""Seconds that a busy Hub may make us wait, once, if the cache does not have what is wanted."""

_COMMIT = re.compile("[0-9a-f]{40}")

T = TypeVar("T")


class Options(TypedDict, total=False):
    """Options of a download; each as in `huggingface_hub.snapshot_download`."""

    cache_dir: str | Path | None
    token: str | bool | None
    local_files_only: bool
    force_download: bool
    endpoint: str | None


def is_id(text: str) -> bool:
    """Whether a text can be the name OWNER/NAME of a repository."""
    with contextlib.suppress(ValueError):
        validate_repo_id(text)
        return text.count("/") == 1
    return False


def snapshot(
    repo_id: str,
    revision: str | None,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    is_complete: Callable[[Path], bool] = lambda _: True,
    lacking: Callable[[Sequence[str]], str] = lambda _: "not the file that is asked for",
    absent: str = "is not in the local cache",
    **options: Unpack[Options],
) -> Path:
    """The cache's folder of one commit with the `required` files in it, and those of `optional` that exist.

    A commit that is in the cache and `is_complete` needs no request. Otherwise the Hub is asked; if it gives
    no answer in time, what the cache has is used with a warning. `lacking(names)` says what a repository of
    these files lacks, `absent` that the cache does not have it. Raises WeightsError with one sentence.
    """
    check(options)
    rest: dict[str, Any] = dict(options)
    renew = bool(rest.pop("force_download", False))
    offline = bool(rest.pop("local_files_only", False)) or constants.is_offline_mode()
    where = f"{repo_id} at revision {revision}" if revision else repo_id
    if offline and renew:
        raise WeightsError(f"{where} cannot be downloaded again: the network is switched off")
    cached = _cached(repo_id, revision, required, rest.get("cache_dir"))
    if offline:
        if cached is None:
            raise WeightsError(f"{where} {absent}, and the network is switched off")
        for path in _damaged(cached):
            raise WeightsError(f"{path} is damaged: delete {path.resolve()}, and it will be downloaded again")
        return cached
    pinned = revision and _COMMIT.fullmatch(revision) and not renew
    if cached and pinned and is_complete(cached) and not _damaged(cached):
        return cached

    def get(revision: str | None, renew: bool, patterns: Sequence[str] = (*required, *optional)) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                repo_id, revision=revision, allow_patterns=list(patterns), force_download=renew, **rest
            )
        )

    try:
        info = _ask(repo_id, revision, rest, where, cached, absent)
        if isinstance(info, Path):
            return info
        names = [file.rfilename for file in info.siblings or ()]
        if not set(required) <= set(names):
            raise WeightsError(f"{where} holds {lacking(names)}")
        folder = get(info.sha, renew)
        if damaged := [path.relative_to(folder).as_posix() for path in _damaged(folder)]:
            get(info.sha, True, damaged)
            if _damaged(folder):
                raise WeightsError(f"{damaged[0]} of {repo_id} comes damaged from the Hub")
        # By its own name last: the cache then knows a branch or tag once everything is there.
        return folder if revision == info.sha else get(revision, False)
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
    except errors.HfHubHTTPError as error:
        raise WeightsError(f"{where} could not be downloaded: {refusal(error)}") from error
    except errors.HTTPError as error:
        raise WeightsError(
            f"{where} could not be downloaded, for the connection broke off ({first_line(error)}): try again"
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{where} could not be downloaded: {first_line(error)}") from error


def fetch_file(repo_id: str, name: str, commit: str, **options: Unpack[Options]) -> Path:
    """One file of any repository at a commit (40 hex digits), from the local cache where it is in there.

    Raises WeightsError with one sentence when it cannot be had.
    """
    return snapshot(repo_id, commit, [name], lacking=lambda _: f"no {name}", **options) / name


def check(options: Any) -> None:
    """Raises TypeError for an option that is none, as a function does that has no such argument."""
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        known = ", ".join(Options.__annotations__)
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}: options of the Hub are {known}")


def within(seconds: float, ask: Callable[[], T]) -> T:
    """What `ask` gives or raises; TimeoutError when it takes longer than that.

    It runs in a thread of its own: looking up a host's name and an answer that trickles in know no limit.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(timeout=seconds)
    except TimeoutError:
        if answer.done():
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from None


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def refusal(error: errors.HfHubHTTPError) -> str:
    """What the Hub's refusal means, in words."""
    status = error.response.status_code
    if status == 429:
        wait = _wait(error)
        return f"the Hub has had too many requests from here{f': try again in {wait:g} s' if wait else ''}"
    if status >= 500:
        return f"the Hub answers with error {status}"
    if status == 401:
        return "the Hub does not know your token: run 'hf auth login' again, or take HF_TOKEN away"
    return first_line(error)


def _ask(
    repo_id: str, revision: str | None, options: dict[str, Any], where: str, cached: Path | None, absent: str
) -> huggingface_hub.ModelInfo | Path:
    """What the Hub tells of a revision; where it does not answer, the cached folder, with a warning."""
    api = huggingface_hub.HfApi(endpoint=options.get("endpoint"), token=options.get("token"))
    reason, wait = "", 0.0
    for _ in range(2):
        time.sleep(wait)
        try:
            return within(PATIENCE, lambda: api.model_info(repo_id, revision=revision, timeout=PATIENCE))
        except errors.HfHubHTTPError as error:
            if error.response.status_code != 429 and error.response.status_code < 500:
                raise
            reason, wait = refusal(error), _wait(error)
        except (errors.HTTPError, TimeoutError) as error:
            reason, wait = f"the Hub cannot be reached ({first_line(error)})", 0.0
        if cached and not _damaged(cached):
            warnings.warn(
                f"{reason}: {where} is taken from the local cache as of commit {cached.name}, "
                "and there may be a newer one",
                stacklevel=5,  # who called FaceKeypoints.from_pretrained
            )
            return cached
        if not 0 < wait <= LONGEST_WAIT:
            break
    raise WeightsError(f"{where} {absent}, and {reason}")


def _cached(repo_id: str, revision: str | None, required: Sequence[str], cache_dir: Any) -> Path | None:
    """The cache's folder of a revision, if all of the required files are in it; without any request."""
    # With local_files_only too, the download functions of huggingface_hub 2.4 make a request once a day.
    folder = None
    for name in required:
        path = huggingface_hub.try_to_load_from_cache(repo_id, name, cache_dir, revision)
        if not isinstance(path, str):
            return None
        folder = Path(path).parents[name.count("/")]
    return folder


def _damaged(folder: Path) -> list[Path]:
    """The files of a snapshot that do not have the hash by which the cache calls their content.

    That is the SHA-256 of a large file and git's hash of a small one. Where the cache has no links to
    contents, as on Windows, nothing is known.
    """
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in files if not _has_its_hash(path.resolve())]


def _has_its_hash(blob: Path) -> bool:
    if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return True
    content = blob.read_bytes()
    if len(blob.name) == 64:
        return hashlib.sha256(content).hexdigest() == blob.name
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == blob.name


def _wait(error: errors.HfHubHTTPError) -> float:
    """Seconds that the Hub asks us to wait, 0 if it does not say."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(error.response.headers.get("Retry-After", "")))
    return 0.0
