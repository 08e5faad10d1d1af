//! Binds symbolic dims, folds what is constant, and expands ONNX forms into core ops.
