"""`python -m scp` is `imagingstudyd`."""

from scp.commands.application import main

main()
