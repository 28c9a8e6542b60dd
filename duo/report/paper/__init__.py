"""The paper's figures and claims, from what was measured on one backbone.

evidence        comparisons by part, routes token by token
statement       a claim before it is measured; judging all of them
about_losses    claims of figure 4
about_routes    claims of figure 2, the oracle's routes
about_routers   claims of figures 3, 7 and 9, learned routers' routes
about_tokens    claims of figures 5 and 6
about_training  claims of figure 8
beyond_paper    claims of ours: time, and what can be known
shares          what routes look like, as numbers
tables          the numbers of every figure, as rows
figures         what draws each: draw_losses, draw_routes, draw_tokens, on canvas
words           figures in sentences; captions: what is to be known to read them
document        all of it as one page, as markdown and as JSON
"""

from duo.report.paper import about_losses, about_routers, about_routes, about_tokens, about_training, beyond_paper
from duo.report.paper.document import write_report
from duo.report.paper.evidence import Evidence, Missing
from duo.report.paper.statement import STATEMENTS, judge

__all__ = [
    "STATEMENTS", "Evidence", "Missing", "about_losses", "about_routers", "about_routes", "about_tokens",
    "about_training", "beyond_paper", "judge", "write_report",
]  # fmt: skip
