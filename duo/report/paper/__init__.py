"""The paper's figures and claims, from what was measured on one backbone.

evidence      comparisons by part, routes token by token
statement     a claim before it is measured; judging all of them
about_losses  claims of figures 4 and 8
about_routes  claims of figures 2, 3 and 9
about_tokens  claims of figures 5 and 6
beyond_paper  claims of ours: time, and what can be known
shares        what routes look like, as numbers
tables        the numbers of every figure
figures       what draws each: draw_losses, draw_routes, draw_tokens, on canvas
words         figures in sentences
document      all of it as one page, as markdown and as JSON
"""

from duo.report.paper import about_losses, about_routes, about_tokens, beyond_paper
from duo.report.paper.document import write_report
from duo.report.paper.evidence import Evidence, Missing
from duo.report.paper.statement import STATEMENTS, judge

__all__ = [
    "STATEMENTS", "Evidence", "Missing", "about_losses", "about_routes", "about_tokens", "beyond_paper", "judge",
    "write_report",
]  # fmt: skip
