"""The page for operators: `/` and what it leads to. No build step, no request to anywhere else."""
