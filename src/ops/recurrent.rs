//! LSTM, GRU and RNN, unrolled over time.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
