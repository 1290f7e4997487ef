UPDATE evosense_ops.projection_checkpoints SET position = 0
