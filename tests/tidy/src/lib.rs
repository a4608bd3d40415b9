//! opes-tidy
