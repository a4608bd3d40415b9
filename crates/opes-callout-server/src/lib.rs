//! opes-callout-server
