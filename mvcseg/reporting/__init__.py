"""From a video and folders of predictions, or from a training run, to the page that shows them: `mvcseg report`."""

from mvcseg.reporting.pages import report, report_run

__all__ = ["report", "report_run"]
