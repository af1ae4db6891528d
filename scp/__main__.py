"""`python -m scp` is `imagingstudyd`."""

from scp.cli import main

main()
