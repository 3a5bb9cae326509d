"""What people look at: label maps over frames, and one self-contained HTML page."""

from mvcseg.report.overlay import overlay
from mvcseg.report.page import PageVideo, write_page

__all__ = ["PageVideo", "overlay", "write_page"]
