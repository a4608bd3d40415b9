//! opes-content
