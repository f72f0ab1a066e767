"""A report as JUnit XML, which CI systems read."""

from __future__ import annotations

from xml.etree import ElementTree

from perpo.results.regression.report import Report, ReportRow
from perpo.results.regression.text import CONTROL, sentence


def junit(report: Report) -> str:
    """JUnit's XML: one case per task and metric; a regression is a failure, an inconclusive one is skipped."""
    failed = sum(row.verdict == "regressed" and row.waiver is None for row in report.rows)
    unsure = sum(row.verdict == "inconclusive" or row.waiver is not None for row in report.rows)
    counts = {"tests": str(len(report.rows)), "failures": str(failed), "errors": "0", "skipped": str(unsure)}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "perpo-report", **counts})
    for row in report.rows:
        case = ElementTree.SubElement(suite, "testcase", {"classname": row.benchmark, "name": _case(row), "time": "0"})
        said = CONTROL.sub("?", sentence(row))
        if row.waiver is not None:
            ElementTree.SubElement(case, "skipped", {"message": CONTROL.sub("?", f"waived: {row.waiver.reason}")})
        elif row.verdict == "regressed":
            ElementTree.SubElement(case, "failure", {"message": said, "type": "regressed"}).text = said
        elif row.verdict == "inconclusive":
            ElementTree.SubElement(case, "skipped", {"message": said})
        ElementTree.SubElement(case, "system-out").text = said
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(row: ReportRow) -> str:
    return f"{row.task} {row.metric.name}"
