"""Rows of the benchmark: sizes, targets and what is measured."""

EPOCHS = 12  # of the full-size recording
CHUNKED_EPOCHS = 24  # of the recording whose chunks hold all epochs
CHUNKS = (21, 128, 3)  # frames, columns, rows of such a chunk, as of the laboratory's atlas file
FORWARD = {"num_frames": 168, "height": 128, "width": 128}
STEP = {"num_frames": 42, "height": 32, "width": 32, "num_filters": 16, "num_rnn_units": 16}
CAM = {"num_frames": 42, "height": 32, "width": 32, "num_filters": 16, "num_rnn_units": 16}
STEP_BATCH = 4
CAM_EPOCHS = 24
TARGETS = {
    "create": ">= 8x",
    "chunked": "",
    "reading": ">= 30 epochs/s",
    "first": ">= 3x",
    "forward": "",
    "published": ">= 3x",
    "step": ">= 3x",
    "gradcam": ">= 3x, constant memory",
}
WHAT = {
    "create": f"create_tfrecords, {EPOCHS} epochs of 128 x 128 pixels",
    "chunked": f"reading {CHUNKED_EPOCHS} epochs of 128 x 128 pixels, chunks over all epochs",
    "reading": "reading shards in shuffled order, epochs of 128 x 128 pixels",
    "first": f"first forward, built and traced, {FORWARD['num_frames']} frames of 128 x 128 pixels",
    "forward": "a later forward of the same size, all arithmetic of convolutions",
    "published": "a later forward, the baseline with the kernels of TensorFlow 2.7 (no oneDNN)",
    "step": f"training step, {STEP_BATCH} x {STEP['num_frames']} frames of 32 x 32, after tracing",
    "gradcam": f"Grad-CAM of all states, {CAM_EPOCHS} x {CAM['num_frames']} frames of 32 x 32",
}
TOLERANCE = {"create": 1e-4, "step": 1e-4, "gradcam": 1e-4}  # 1e-5 for the forward pass
