//! The reference interpreter: runs a graph through `OpDef::eval`.
