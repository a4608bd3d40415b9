//! `OpesRule` and `CalloutService` as custom resources: what the API server is told of them, and their status.
