"""The models: one file each, one public `serve(listeners)` each. Where to start reading: docs/design.md."""
