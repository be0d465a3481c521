"""The rows beside the paper: detectors of other families (docs/baselines.md)."""
