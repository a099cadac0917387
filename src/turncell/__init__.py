"""An agent runtime that lives in notebook cells."""
