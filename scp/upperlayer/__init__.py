"""TODO: scp/upperlayer."""
