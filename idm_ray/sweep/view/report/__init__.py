"""A sweep as one HTML file that opens anywhere."""

from idm_ray.sweep.view.report.page import report_of, write_report

__all__ = ["report_of", "write_report"]
