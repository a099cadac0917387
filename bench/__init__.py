"""What turncell costs, side by side with what it is built on: `python -m bench [--quick] [case ...]`.

Only ratios of one run travel between machines. Every figure is CPU time, user and system, of the measured process
alone, and a median; each way of doing a thing runs in a process of its own, and the server is another one.
"""
