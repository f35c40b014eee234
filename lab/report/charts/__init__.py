"""Charts of the reports as static SVG: `lines`, `intervals`, `scatter` and `bands` make a `chart.Chart` from figures.

Strategy: a chart has no width. All places across are in per cent, and all sizes of text in pixels, so that one drawing
is legible in a window of 400 pixels and uses one of 1920. The labels stand in the padding of the SVG element.
"""
