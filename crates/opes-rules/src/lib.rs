//! opes-rules
