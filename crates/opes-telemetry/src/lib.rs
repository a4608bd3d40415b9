//! opes-telemetry
