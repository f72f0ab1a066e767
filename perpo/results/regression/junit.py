"""A report as JUnit XML, which CI systems read."""

from __future__ import annotations

from xml.etree import ElementTree

from perpo.results.regression.extras import pinned_sentence
from perpo.results.regression.report import Report
from perpo.results.regression.rows import ReportRow
from perpo.results.regression.text import CONTROL, sentence, short


def junit(*reports: Report) -> str:
    """JUnit's XML: a suite for each candidate, one case per row that gates and per pinned case.

    A failure of the gate is a failure, an inconclusive row is skipped.
    """
    suites = [_suite(report, several=len(reports) > 1) for report in reports]
    names = ("tests", "failures", "errors", "skipped")
    totals = {name: str(sum(int(suite.attrib[name]) for suite in suites)) for name in names}
    root = ElementTree.Element("testsuites", totals)
    root.extend(suites)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(report: Report, *, several: bool) -> ElementTree.Element:
    failed = sum(row.fails for row in report.rows) + len(report.extras.fails)
    unsure = sum(row.verdict == "inconclusive" or row.waiver is not None for row in report.rows)
    tests = len(report.rows) + len(report.extras.pinned)
    counts = {"tests": str(tests), "failures": str(failed), "errors": "0", "skipped": str(unsure)}
    name = f"perpo-report {CONTROL.sub('?', short(report.candidate_entry.name))}" if several else "perpo-report"
    suite = ElementTree.Element("testsuite", {"name": name, **counts})
    for row in report.rows:
        case = ElementTree.SubElement(suite, "testcase", {"classname": row.benchmark, "name": _case(row), "time": "0"})
        said = CONTROL.sub("?", sentence(row))
        if row.waiver is not None:
            ElementTree.SubElement(case, "skipped", {"message": CONTROL.sub("?", f"waived: {row.waiver.reason}")})
        elif row.fails:
            ElementTree.SubElement(case, "failure", {"message": said, "type": row.verdict}).text = said
        elif row.verdict == "inconclusive":
            ElementTree.SubElement(case, "skipped", {"message": said})
        ElementTree.SubElement(case, "system-out").text = said
    _pinned(suite, report)
    return suite


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
    return CONTROL.sub("?", f"{row.task} {row.metric.name}" + (f" [{row.kind[0]}: {row.kind[1]}]" if row.kind else ""))
