"""Weights to the Hugging Face Hub, as one commit. A failure is one sentence."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, errors

from fkp.hub import weights
from fkp.hub.download import first_line, is_id, refusal, within
from fkp.hub.errors import WeightsError

PATIENCE = 10.0
"""Seconds that the Hub's first answer may take: somebody is about to upload."""


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
        user = within(PATIENCE, lambda: huggingface_hub.HfApi(token=token).whoami())
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
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Upload fkp weights",
) -> str:
    """Upload a folder's files to the Hub repository "owner/name", made if need be, as one commit; its URL.

    The files are those of `weights.files`; graphs and pictures that the repository has and the folder has not
    are deleted there. `token` is that of `hf auth login` if None; `check_push` tells sooner if it will do.
    Raises WeightsError when the Hub refuses or cannot be reached, or the folder's weights cannot be loaded.
    """
    weights.load(folder)
    if not is_id(repo_id):
        raise WeightsError(f"{repo_id!r} is no Hub id of the form OWNER/NAME")
    try:
        api = huggingface_hub.HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            allow_patterns=list(weights.files(folder)),
            delete_patterns=["onnx/*", "card/*"],
        )
    except (errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise not_pushed(repo_id, error) from error
    return commit.commit_url


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
        return WeightsError(f"{repo_id} could not be pushed: {refusal(error)}")
    if isinstance(error, errors.HTTPError | TimeoutError):
        return WeightsError(
            f"{repo_id} could not be pushed: the Hub cannot be reached ({first_line(error)}), try again later"
        )
    return WeightsError(f"{repo_id} could not be pushed: {first_line(error)}")
