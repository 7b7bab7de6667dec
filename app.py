"""The demo page: photos, clips and the camera in, 68 keypoints of every face out. Layout and events only.

    python app.py                          opens http://127.0.0.1:7860
    python app.py --host 0.0.0.0 --port 8080
    FKP_MODEL=owner/name python app.py     other weights: a Hub repository or a folder

Works without any network, and hosts unchanged on Hugging Face Spaces; `python app.py --help` tells more.
"""

from __future__ import annotations

import argparse
import inspect
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Gradio keeps figures of the last 10000 requests and makes a table of them after every one.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")

try:
    import gradio as gr
except ImportError:
    sys.exit("app.py needs gradio: run 'pip install \".[demo]\"' in its folder")

import cv2  # noqa: E402
import httpx  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402

from fkp import hub, runtime  # noqa: E402
from fkp.arguments import whole  # noqa: E402
from fkp.demo import (  # noqa: E402
    batching,
    clip_jobs,
    components,
    data_retention,
    heap,
    live,
    mcp_answers,
    meta_tags,
    page,
    photos,
    request_guard,
    settings,
    view,
)
from fkp.demo.settings import Settings  # noqa: E402
from fkp.demo.site import Site  # noqa: E402
from fkp.demo.theme import THEME  # noqa: E402
from fkp.demo.uploads import own_folder, room  # noqa: E402
from fkp.outputs import printable, show_any_name  # noqa: E402
from fkp.pipeline import FaceKeypoints  # noqa: E402

HERE = Path(__file__).parent

WAITING = 64
"""Requests that wait in the queue at most."""
SESSIONS = 1000
"""Visitors and callers remembered at the same time; beyond that, those longest away are dropped."""


def build(model: FaceKeypoints, limits: Settings | None = None, uploads: Path | None = None) -> gr.Blocks:
    """The page around a model; `uploads` is by default where Gradio puts what browsers send."""
    return page.build(Site(model, limits or Settings(), uploads or Path(gr.utils.get_upload_folder()), HERE))


def launch(
    blocks: gr.Blocks, limits: Settings | None = None, uploads: Path | None = None, **options: Any
) -> str:
    """Serve the page, as it promises to be; returns its address. `options` are those of Blocks.launch."""
    limits, uploads = limits or Settings(), uploads or Path(gr.utils.get_upload_folder())
    largest = max(limits.max_file_size, limits.max_clip_size)  # each is checked by itself later
    host = options.get("server_name") or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    rules = request_guard.Rules(
        endpoints={str(fn.api_name) for fn in blocks.fns.values() if fn.api_visibility == "public"},
        max_bytes=largest * 4 // 3 + 1_000_000,  # as a data: URL within JSON
        hosts=limits.hosts,
        at_home=host in ("127.0.0.1", "localhost", "::1"),
        small_bytes=live.MAX_REQUEST,
        room=lambda: room(uploads, limits.max_disk),
    )
    if "run_history" in inspect.signature(gr.Blocks.launch).parameters:  # since 6.24
        options["run_history"] = False  # it would keep photos in the visitor's browser
    if limits.mcp:
        from gradio.mcp import GradioMCPServer

        mcp_answers.in_json(GradioMCPServer)
    _, address, _ = blocks.queue(max_size=WAITING, api_open=False).launch(
        theme=THEME,
        css=components.css(),
        head=components.head(),
        favicon_path=components.WEB / "icon.svg",
        footer_links=[],
        ssr_mode=False,
        max_file_size=largest,
        mcp_server=limits.mcp,
        enable_monitoring=False,
        state_session_capacity=SESSIONS,
        app_kwargs={
            "lifespan": request_guard.guarded(lambda app: data_retention.sweeping(app, uploads), rules),
            "middleware": [Middleware(meta_tags.MetaTags)],
        },
        **options,
    )
    if blocks.mcp_error:  # Gradio would serve the page without it
        raise ImportError(blocks.mcp_error)
    request_guard.limit_connections(blocks.server)
    return address


def load(limits: Settings) -> FaceKeypoints:
    """The model, warmed up, its network shared by all. Raises hub.WeightsError, runtime.BackendError."""
    model = FaceKeypoints.from_pretrained(
        limits.model, revision=limits.revision, detector=limits.detector, threads=limits.threads or None
    ).with_runner(batching.Shared)
    if limits.threads:  # not more than a model takes: OpenCV would begin any number of them
        cv2.setNumThreads(limits.threads)
    photos.warm_up(model)
    return model


def ask_once(address: str) -> None:
    """A request of our own: Gradio gets much ready only at the first one, which takes a third of a second."""
    api, given = f"{address}gradio_api/call", {"picture": {"url": view.NOTHING}}
    try:
        event = httpx.post(f"{api}/v2/detect", json=given, trust_env=False).json()["event_id"]
        httpx.get(f"{api}/detect/{event}", trust_env=False, timeout=30)
    except (httpx.HTTPError, ValueError, KeyError):
        return  # no reason not to serve others


def main() -> None:
    began = time.perf_counter()
    heap.keep_together()
    show_any_name()
    parser = argparse.ArgumentParser(
        description="Open the face keypoints page in the browser.",
        epilog=f"environment:\n{settings.help_text()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", help="address to listen on, 0.0.0.0 for every network (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=whole(1, 65535), help="port to listen on (default: the first free one from 7860)"
    )
    parser.add_argument("--model", help="weights: a folder or a Hub repository OWNER/NAME, before FKP_MODEL")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    args = parser.parse_args()

    try:
        settings.check_address(args.host or "127.0.0.1", args.port or 0)
        limits = settings.from_environment(os.environ | ({"FKP_MODEL": args.model} if args.model else {}))
        model = load(limits)
    except (settings.SettingsError, hub.WeightsError, runtime.BackendError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    # A folder of its own, so that everything in it can go: after a while, and in the end all at once.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    if os.environ.get("SYSTEM") == "spaces":  # all comes by a proxy there, which says for whom
        os.environ.setdefault("FORWARDED_ALLOW_IPS", "*")
    with own_folder(Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())) as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        blocks = build(model, limits, folder)
        try:
            address = launch(
                blocks, limits, folder, server_name=args.host, server_port=args.port, quiet=True,
                inbrowser=not args.no_browser and _has_desktop(), prevent_thread_lock=True,
            )  # fmt: skip
        except ImportError as error:  # not there, or of another version than Gradio wants
            reason = printable(str(error))
            parser.exit(1, f"{parser.prog}: FKP_MCP: {reason}: run 'pip install \"gradio[mcp]\"'\n")
        except OSError as error:  # the port has been taken since, or there is none left
            parser.exit(1, f"{parser.prog}: {printable(str(error))}; choose another by --port\n")
        ask_once(address)
        print(f"Ready after {time.perf_counter() - began:.1f} s: {address} (Ctrl-C ends it)", flush=True)
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            print()
        finally:
            clip_jobs.close_all()
            blocks.close(verbose=False)


def _has_desktop() -> bool:
    # Without one, a text browser might take over the terminal.
    return sys.platform in ("win32", "darwin") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ


if __name__ == "__main__":
    main()
