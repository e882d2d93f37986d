"""File formats, images, crops, splits, data sources and the renderer."""
