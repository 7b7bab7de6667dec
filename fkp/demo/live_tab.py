"""The Live tab: the camera, and the keypoints over it; frames are processed in memory only."""

from __future__ import annotations

from fkp.demo import components, live, options
from fkp.demo.site import Site


def build(site: Site) -> None:
    """The camera, and the keypoints over it."""
    viewers = live.Viewers(site.model, site.settings.max_viewers)
    components.camera(viewers, options.usual_confidence(site.model), elem_id="camera")
