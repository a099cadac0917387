"""One module for each case: `report(bench)` prints its tables and returns the targets; the rest runs in children."""
