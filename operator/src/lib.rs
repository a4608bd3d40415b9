//! The operator: custom resources in, routing tables and callout pools out.
