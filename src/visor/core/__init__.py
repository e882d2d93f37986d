"""Configuration, errors, files, TensorFlow's set-up: what every package uses."""
