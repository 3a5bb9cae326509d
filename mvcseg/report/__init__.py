"""What people look at: label maps over frames, one self-contained HTML page, and the same page in a notebook."""

from mvcseg.report.look import Look, show
from mvcseg.report.overlay import overlay
from mvcseg.report.page import PageVideo, write_page

__all__ = ["Look", "PageVideo", "overlay", "show", "write_page"]
