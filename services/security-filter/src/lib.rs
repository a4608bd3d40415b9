//! opes-security-filter
