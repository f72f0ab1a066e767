"""A report as JUnit XML, which CI systems read."""

from __future__ import annotations

from xml.etree import ElementTree

from perpo.results.regression.extras import pinned_sentence
from perpo.results.regression.report import Report, ReportRow
from perpo.results.regression.text import CONTROL, sentence


def junit(report: Report) -> str:
    """JUnit's XML: one case per task and metric and per pinned case; a regression is a failure, an inconclusive one is
    skipped.
    """
    failed = sum(row.verdict == "regressed" and row.waiver is None for row in report.rows)
    failed += len(report.extras.fails)
    unsure = sum(row.verdict == "inconclusive" or row.waiver is not None for row in report.rows)
    tests = len(report.rows) + len(report.extras.pinned)
    counts = {"tests": str(tests), "failures": str(failed), "errors": "0", "skipped": str(unsure)}
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
    _pinned(suite, report)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _pinned(suite: ElementTree.Element, report: Report) -> None:
    """Add a case for each sample that may never be lost."""
    for pinned in report.extras.pinned:
        name = CONTROL.sub("?", f"{pinned.sample.task} {pinned.sample.sample_key[:12]}")
        case = ElementTree.SubElement(suite, "testcase", {"classname": "pinned", "name": name, "time": "0"})
        said = CONTROL.sub("?", pinned_sentence(pinned))
        if pinned.fails:
            ElementTree.SubElement(case, "failure", {"message": said[:1000], "type": "pinned"}).text = said
        ElementTree.SubElement(case, "system-out").text = said


def _case(row: ReportRow) -> str:
    return f"{row.task} {row.metric.name}"
