//! What goes back over OTLP, as data: bodies of success, partial success and error in the format of the request, gRPC
//! codes, and the HTTP status of an error per protocol.

use prost::Message;
use serde_json::json;
use trilith_model::{Error, ErrorKind, Rejection, Result, Signal};
use trilith_proto::otlp::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use trilith_proto::rpc;

use crate::{PushHeaders, media_type};

/// The two encodings of OTLP over HTTP; an answer has the one of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Protobuf,
    Json,
}

/// A body ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Format {
    /// # Errors
    /// `Unsupported` (415, answer in plain text) for any other or a missing content type.
    pub fn of(headers: &PushHeaders<'_>) -> Result<Format> {
        match media_type(headers.content_type.unwrap_or_default()).as_str() {
            "application/x-protobuf" => Ok(Format::Protobuf),
            "application/json" => Ok(Format::Json),
            _ => Err(Error::unsupported(
                "415 unsupported media type, supported: [application/json, application/x-protobuf]",
            )),
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Protobuf => "application/x-protobuf",
            Format::Json => "application/json",
        }
    }

    fn reply(self, body: Vec<u8>) -> Reply {
        Reply {
            content_type: self.content_type(),
            body,
        }
    }
}

/// Everything was stored: an empty `ExportTraceServiceResponse`, with 200.
pub fn export_success(format: Format) -> Reply {
    format.reply(match format {
        Format::Protobuf => Vec::new(),
        Format::Json => b"{}".to_vec(),
    })
}

/// Some items were refused for good, the rest was stored: with 200, as OTLP has it. Senders must not retry.
pub fn export_partial(format: Format, signal: Signal, rejected: u64, message: &str) -> Reply {
    let rejected = i64::try_from(rejected).unwrap_or(i64::MAX);
    let items = match signal {
        Signal::Metrics => "rejectedDataPoints",
        Signal::Logs => "rejectedLogRecords",
        Signal::Traces => "rejectedSpans",
    };
    format.reply(match format {
        // The messages of all signals have the same fields.
        Format::Protobuf => partial_response(rejected, message).encode_to_vec(),
        Format::Json => {
            let body = json!({"partialSuccess": {items: rejected.to_string(), "errorMessage": message}});
            body.to_string().into_bytes()
        }
    })
}

/// The message of [`export_partial`], for gRPC.
pub fn partial_response(rejected_spans: i64, message: &str) -> ExportTraceServiceResponse {
    ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans,
            error_message: message.to_owned(),
        }),
    }
}

/// What to answer when the store refused some items: an error when a retry may help (a rate or count is exhausted), else
/// `None` and the answer is [`export_partial`].
///
/// A retry sends the stored items again; an exact repetition of one is stored once.
pub fn retryable(rejections: &[Rejection]) -> Option<Error> {
    let limited = rejections.iter().find(|r| r.kind == ErrorKind::LimitExceeded)?;
    Some(Error::limit(limited.message.clone(), std::time::Duration::from_secs(5)))
}

/// The body of an error: `google.rpc.Status`, with `RetryInfo` when a retry may help. OpenTelemetry senders take
/// `ResourceExhausted` without it as permanent and drop the data.
pub fn error_body(format: Format, error: &Error) -> Reply {
    let code = grpc_code(error.kind);
    format.reply(match format {
        Format::Protobuf => error_status(error).encode_to_vec(),
        Format::Json => {
            let mut body = json!({"code": code, "message": error.message});
            if let Some(delay) = error.retry_after {
                body["details"] = json!([{
                    "@type": RETRY_INFO,
                    "retryDelay": format!("{}s", delay.as_secs_f64()),
                }]);
            }
            body.to_string().into_bytes()
        }
    })
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// The message of [`error_body`]; its bytes are also gRPC's `grpc-status-details-bin`.
pub fn error_status(error: &Error) -> rpc::Status {
    let details = error.retry_after.map(|delay| {
        let info = rpc::RetryInfo {
            retry_delay: prost_types::Duration::try_from(delay).ok(),
        };
        prost_types::Any {
            type_url: RETRY_INFO.to_owned(),
            value: info.encode_to_vec(),
        }
    });
    rpc::Status {
        code: grpc_code(error.kind),
        message: error.message.clone(),
        details: details.into_iter().collect(),
    }
}

/// The gRPC status code of an error.
pub fn grpc_code(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::Cancelled => 1,
        ErrorKind::Invalid | ErrorKind::Execution | ErrorKind::TooLarge => 3,
        ErrorKind::Timeout => 4,
        ErrorKind::NotFound => 5,
        ErrorKind::LimitExceeded => 8,
        ErrorKind::Unsupported => 12,
        ErrorKind::Unavailable | ErrorKind::Fenced => 14,
        ErrorKind::Corrupt => 15,
        _ => 13,
    }
}

/// The push protocols, as far as their status codes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    RemoteWrite,
    Loki,
    Otlp,
}

/// The HTTP status of a failed push.
///
/// Senders drop data on 4xx other than 429 and retry on 429 and 5xx: what can never succeed must be 4xx, what can
/// must not.
pub fn http_status(protocol: Protocol, kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::Invalid => 400,
        ErrorKind::Execution => 422,
        ErrorKind::NotFound => 404,
        ErrorKind::TooLarge => 413,
        ErrorKind::Unsupported if protocol == Protocol::Loki => 400,
        ErrorKind::Unsupported => 415,
        ErrorKind::LimitExceeded => 429,
        ErrorKind::Cancelled => 499,
        ErrorKind::Unavailable | ErrorKind::Fenced | ErrorKind::Timeout => 503,
        // OTLP senders give up on a plain 500.
        _ if protocol == Protocol::Otlp => 503,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trilith_proto::otlp::collector::metrics::v1::ExportMetricsServiceResponse;

    use super::*;

    fn headers(content_type: &str) -> PushHeaders<'_> {
        PushHeaders {
            content_type: Some(content_type),
            content_encoding: None,
        }
    }

    #[test]
    fn formats_by_media_type() {
        assert_eq!(
            Format::of(&headers("application/x-protobuf")).ok(),
            Some(Format::Protobuf)
        );
        assert_eq!(
            Format::of(&headers("Application/JSON; charset=utf-8")).ok(),
            Some(Format::Json)
        );
        for bad in ["", "text/plain", "application/protobuf-ish"] {
            let e = Format::of(&headers(bad)).unwrap_err();
            assert_eq!(http_status(Protocol::Otlp, e.kind), 415);
        }
        assert!(Format::of(&PushHeaders::default()).is_err());
    }

    #[test]
    fn errors_carry_the_retry_hint() {
        let error = Error::limit("RATE_LIMITED: x", Duration::from_millis(5500));
        let body = error_body(Format::Protobuf, &error).body;
        let status = rpc::Status::decode(body.as_slice()).unwrap();
        assert_eq!((status.code, status.message.as_str()), (8, "RATE_LIMITED: x"));
        assert_eq!(status.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
        let info = rpc::RetryInfo::decode(status.details[0].value.as_slice()).unwrap();
        assert_eq!(info.retry_delay.map(|d| (d.seconds, d.nanos)), Some((5, 500_000_000)));

        let json: serde_json::Value = serde_json::from_slice(&error_body(Format::Json, &error).body).unwrap();
        assert_eq!(json["code"], 8);
        assert_eq!(json["details"][0]["retryDelay"], "5.5s");

        let plain = error_body(Format::Json, &Error::invalid("bad \"x\""));
        assert_eq!(plain.content_type, "application/json");
        assert_eq!(plain.body, br#"{"code":3,"message":"bad \"x\""}"#);
    }

    #[test]
    fn success_and_partial_success() {
        assert_eq!(export_success(Format::Protobuf).body, b"");
        assert_eq!(export_success(Format::Json).body, b"{}");
        let body = export_partial(Format::Protobuf, Signal::Traces, 3, "too many").body;
        assert_eq!(
            ExportTraceServiceResponse::decode(body.as_slice()),
            Ok(partial_response(3, "too many"))
        );
        let json: serde_json::Value =
            serde_json::from_slice(&export_partial(Format::Json, Signal::Traces, 3, "x").body).unwrap();
        assert_eq!(json["partialSuccess"]["rejectedSpans"], "3");
        let body = export_partial(Format::Protobuf, Signal::Metrics, 3, "x").body;
        let metrics = ExportMetricsServiceResponse::decode(body.as_slice()).unwrap();
        let partial = metrics.partial_success.unwrap();
        assert_eq!((partial.rejected_data_points, &*partial.error_message), (3, "x"));
        let json: serde_json::Value =
            serde_json::from_slice(&export_partial(Format::Json, Signal::Metrics, 3, "x").body).unwrap();
        assert_eq!(json["partialSuccess"]["rejectedDataPoints"], "3");
    }

    #[test]
    fn nothing_permanent_is_retried() {
        for protocol in [Protocol::RemoteWrite, Protocol::Loki, Protocol::Otlp] {
            for kind in [
                ErrorKind::Invalid,
                ErrorKind::Execution,
                ErrorKind::TooLarge,
                ErrorKind::Unsupported,
            ] {
                let status = http_status(protocol, kind);
                assert!((400..500).contains(&status) && status != 429, "{protocol:?} {kind:?}");
            }
            assert_eq!(http_status(protocol, ErrorKind::LimitExceeded), 429);
            assert_eq!(http_status(protocol, ErrorKind::Unavailable), 503);
        }
    }
}
