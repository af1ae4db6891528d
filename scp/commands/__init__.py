"""Commands by area; each module registers its own on the command line's application."""
