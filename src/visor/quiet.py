"""Imports TensorFlow: settings that it reads once, and its start-up messages held back.

Those go to file descriptor 2 past every log level; they are shown if the import fails.
"""

import os
import sys
import tempfile

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters is raised, not logged
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"  # the bytes of trained weights depend on it

with tempfile.TemporaryFile() as held:
    stderr = os.dup(2)
    os.dup2(held.fileno(), 2)
    try:
        import tensorflow

        tensorflow.config.list_physical_devices()  # asks for the drivers, which is noisy where there are none
    except BaseException:
        held.seek(0)
        os.write(stderr, held.read())
        raise
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
