"""Serves the page around a stand-in for the model, for tests of its API; run with a folder for uploads.

Files may have a megabyte; other limits are as the environment says.

Prints the address. For the line "expire" on its input it deletes everything as after an hour, and prints how
many files and sessions are left.
"""

import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(sys.argv[1])
os.environ["GRADIO_TEMP_DIR"] = str(FOLDER)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import app  # noqa: E402
from fkp.demo import data_retention, settings  # noqa: E402
from tests.stand_in import TWO_FACES, FacesInColour  # noqa: E402

LIMITS = settings.from_environment(
    {"FKP_MAX_FILE_SIZE": "1mb", "FKP_MAX_CLIP_SIZE": "1mb"}
    | {"FKP_MCP": str(int(find_spec("mcp") is not None))}
    | os.environ
)


def main() -> None:
    app.WAITING = int(os.environ.get("WAITING", app.WAITING))
    data_retention.SWEEP_SECONDS = 0.2
    page = app.build(FacesInColour(*TWO_FACES), LIMITS)
    print(app.launch(page, LIMITS, server_name="127.0.0.1", quiet=True, prevent_thread_lock=True), flush=True)
    sessions = page.app.state_holder.session_data
    for line in sys.stdin:
        if line != "expire\n":
            break
        data_retention.KEPT_SECONDS, deadline = 0, time.monotonic() + 10
        while (any(FOLDER.iterdir()) or sessions) and time.monotonic() < deadline:
            time.sleep(0.05)
        data_retention.KEPT_SECONDS = 3600
        print(len(list(FOLDER.rglob("*"))), len(sessions), flush=True)
    page.close(verbose=False)


if __name__ == "__main__":
    main()
