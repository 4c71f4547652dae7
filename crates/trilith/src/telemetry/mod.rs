//! How the process shows itself: own metrics, own logs, own traces.
//!
//! Own metrics are gathered on demand into an [`exposition::Exposition`], which is both the page under `/metrics` and the
//! samples that self-observation stores every 15 s. Own logs and request spans go through bounded channels to one
//! task that pushes them into the process's own stores; when a channel is full they are dropped and counted,
//! because watching must never slow what is watched.

pub mod exposition;
pub mod http;
pub mod logging;
pub mod process;
pub mod selfobserve;
