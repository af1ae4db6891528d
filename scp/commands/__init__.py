"""Commands by area. Each module registers its commands when it is imported."""
