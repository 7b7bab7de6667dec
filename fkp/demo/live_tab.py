"""The Live tab: the camera, and the keypoints over it; what it sees is looked at in memory only."""

from __future__ import annotations

from fkp.demo import components, live
from fkp.demo.site import Site


def build(site: Site) -> None:
    components.camera(live.Viewers(site.model, site.settings.max_viewers), elem_id="camera")
