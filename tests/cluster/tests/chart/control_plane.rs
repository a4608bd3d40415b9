//! What helm renders, and what an API server makes of it.

mod admission;
mod alerting;
mod configs;
mod pods;
mod refusals;
mod release;
mod rendering;
mod rights;
mod upgrade;
