//! opes-callout-client
