"""`python -m scp` is `imagingstudyd`."""

from scp.commands.main import main

main()
