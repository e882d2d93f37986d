"""A procedural face renderer: ``scene.render`` draws people (``identity``) in pictures (``frames``)."""
