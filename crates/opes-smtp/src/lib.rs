//! opes-smtp
