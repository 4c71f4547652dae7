//! The process's log: text or JSON on stderr, and a copy of every line of level info and above for self-observation.

use std::fmt::Write as _;

use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer};

/// One line of the own log.
#[derive(Clone, Debug)]
pub struct OwnLine {
    pub level: &'static str,
    pub line: String,
}

/// Installs the process-wide subscriber.
///
/// # Errors
/// `level` is not a filter.
pub fn install(level: &str, json: bool, own: Option<mpsc::Sender<OwnLine>>) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|e| format!("log.level: {e}"))?;
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let stderr = if json { stderr.json().boxed() } else { stderr.boxed() };
    let copy = own.map(|tx| Copy { tx }.with_filter(tracing_subscriber::filter::LevelFilter::INFO));
    tracing_subscriber::registry()
        .with(stderr.with_filter(filter))
        .with(copy)
        .try_init()
        .map_err(|e| format!("cannot install the log: {e}"))
}

struct Copy {
    tx: mpsc::Sender<OwnLine>,
}

impl<S: Subscriber> Layer<S> for Copy {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        if !meta.target().starts_with("trilith") {
            return;
        }
        let level = match *meta.level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ => "info",
        };
        let mut fields = Logfmt {
            line: format!("level={level} target={}", meta.target()),
        };
        event.record(&mut fields);
        // A full channel drops the copy; stderr has the line.
        let _ = self.tx.try_send(OwnLine {
            level,
            line: fields.line,
        });
    }
}

/// `msg="…" key=value`, quoted where needed.
struct Logfmt {
    line: String,
}

impl Logfmt {
    fn put(&mut self, field: &Field, text: &str) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        let plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
        let written = if plain {
            write!(self.line, " {name}={text}")
        } else {
            write!(self.line, " {name}={text:?}")
        };
        written.expect("writing to memory cannot fail");
    }
}

impl Visit for Logfmt {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}
