"""The only import of TensorFlow and Keras: settings that are read once, and start-up messages held back.

Everything else writes ``from visor.core.tf import keras, tf``, so that the settings come first.

The messages go to file descriptor 2 past every log level; they are shown if the import fails.
"""

import gc
import os
import sys
import tempfile

__all__ = ["KerasTensor", "keras", "layers", "ops", "tf"]

os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the shell says
os.environ["KERAS_HOME"] = os.devnull  # no folder, so that no keras.json is read or written
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters is raised, not logged
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"  # the bytes of trained weights depend on it
# With AVX-512, oneDNN's gradient of convolution filters splits its sums by the size of the L1 cache: weights would
# differ between processors. AVX2 kernels add in one order on all that were tried; a training step takes 40 % more.
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"

# Keras has wrappers and galleries that nothing here uses; importing what they wrap is a third of its start-up.
spared = {"matplotlib", "sklearn"} - sys.modules.keys()
sys.modules.update(dict.fromkeys(spared))  # type: ignore[arg-type]  # None: a module that cannot be imported

gc.disable()  # hundreds of thousands of objects are made here, none to be collected: looking takes a third of the time
with tempfile.TemporaryFile() as held:
    stderr = os.dup(2)
    os.dup2(held.fileno(), 2)
    try:
        import keras
        import tensorflow as tf
        from keras import KerasTensor, layers, ops

        keras.config.set_image_data_format("channels_last")  # a program that imported Keras first has read keras.json
        keras.config.set_floatx("float32")
        keras.config.set_epsilon(1e-7)
        tf.get_logger().setLevel("ERROR")  # several networks in one process are no reason to warn
        tf.config.list_physical_devices()  # asks for the drivers, which is noisy where there are none
    except BaseException:
        held.seek(0)
        os.write(stderr, held.read())
        raise
    finally:
        for name in spared:
            del sys.modules[name]
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        gc.enable()
        gc.freeze()  # nor later
