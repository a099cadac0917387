"""Widgets for dashboards of one's own (`VBox([chat, meter])`, `jslink`, `observe`):

RunView(run)                a run, live
Chat(agent)                 a conversation with a field to type in; it attends its runs
Approvals()                 all that waits for a person, in any run; Approvals(chat): in this one
UsageMeter(chat)            tokens, cost and budget
SessionBrowser(chat)        sessions and their runs: open, go on, branch
"""

from turncell.notebook.kit import Approvals, Chat, SessionBrowser, UsageMeter
from turncell.notebook.widgets import RunView

__all__ = ["Approvals", "Chat", "RunView", "SessionBrowser", "UsageMeter"]
