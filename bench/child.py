"""A measurement in a process of its own: `python -m bench.child <case> <function> <arguments as JSON>`.

Prints the result as JSON on the last line of stdout.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

if __name__ == "__main__":
    case, function, arguments = sys.argv[1:]
    result = getattr(importlib.import_module(f"bench.cases.{case}"), function)(**json.loads(arguments))
    print("\n" + json.dumps(result), flush=True)
    os._exit(0)  # connections that were kept alive for the next turn are nobody's concern
