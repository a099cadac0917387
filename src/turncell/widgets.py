"""Widgets for dashboards of one's own (`VBox([chat, meter])`, `jslink`, `observe`):

RunView(run)                a run, live
Chat(agent)                 a conversation with a field to type in; it attends its runs
Approvals()                 all that waits for a person, in any run; Approvals(chat): in this one
UsageMeter(chat)            tokens, cost and budget
SessionBrowser(chat)        sessions and their runs: open, go on, branch
Review(table)               a table of runs, and beside it the transcript of the chosen one
"""

from turncell.notebook.kit import Approvals, Chat, Review, SessionBrowser, UsageMeter
from turncell.notebook.widgets import RunView

__all__ = ["Approvals", "Chat", "Review", "RunView", "SessionBrowser", "UsageMeter"]
