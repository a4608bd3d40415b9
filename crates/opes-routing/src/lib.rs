//! How an edge follows the routing table that operators serve, and keeps the last good one.
