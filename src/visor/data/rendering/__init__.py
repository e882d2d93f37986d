"""A procedural face renderer: ``scene.render`` draws people (``identity``) in varying images (``frames``)."""
