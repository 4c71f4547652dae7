//! Request targets that clients write without escaping: `curl -g 'http://…/query?query=up{job="x"}'`.
//!
//! Go's server takes quotes and braces as they are; the URI type here refuses some of them, and the client would get an empty
//! 400. [`Escaped`] percent-encodes such bytes in the first line of a connection. Later requests of the connection pass
//! untouched: finding them would take a second parser of messages, and clients that keep connections escape.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A first line that is longer passes as it is.
const LINE_BYTES_MAX: usize = 64 << 10;

/// A connection whose first request line is escaped.
#[derive(Debug)]
pub struct Escaped<S> {
    inner: S,
    first: First,
}

#[derive(Debug)]
enum First {
    /// Bytes read so far, without a line feed.
    Reading(Vec<u8>),
    /// Bytes to hand on, from a position.
    Giving(Vec<u8>, usize),
    Done,
}

impl<S> Escaped<S> {
    pub fn new(inner: S) -> Self {
        Escaped {
            inner,
            first: First::Reading(Vec::new()),
        }
    }
}

/// `METHOD target HTTP/…` with the target's unusual bytes escaped; what follows the line stays.
fn escape(bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(0);
    let (line, rest) = bytes.split_at(end);
    let unusual = |b: u8| b >= 0x80 || matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
    if !line.iter().copied().any(unusual) {
        return bytes;
    }
    let mut out = Vec::with_capacity(bytes.len() + 64);
    for b in line.iter().copied() {
        if unusual(b) {
            out.extend_from_slice(format!("%{b:02X}").as_bytes());
        } else {
            out.push(b);
        }
    }
    out.extend_from_slice(rest);
    out
}

impl<S: AsyncRead + Unpin> AsyncRead for Escaped<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.first {
                First::Reading(held) => {
                    let mut space = [0; 4096];
                    let mut read = ReadBuf::new(&mut space);
                    ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
                    let new = read.filled();
                    held.extend_from_slice(new);
                    if new.is_empty() || new.contains(&b'\n') || held.len() > LINE_BYTES_MAX {
                        this.first = First::Giving(escape(std::mem::take(held)), 0);
                    }
                }
                First::Giving(bytes, at) => {
                    let n = buf.remaining().min(bytes.len() - *at);
                    buf.put_slice(&bytes[*at..*at + n]);
                    *at += n;
                    if *at == bytes.len() {
                        this.first = First::Done;
                    }
                    return Poll::Ready(Ok(()));
                }
                First::Done => return Pin::new(&mut this.inner).poll_read(cx, buf),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Escaped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What is read when `parts` arrive one after the other.
    async fn through(parts: &[&[u8]], space: usize) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut server = Escaped::new(server);
        let mut out = Vec::new();
        let mut buf = vec![0; space];
        for part in parts {
            client.write_all(part).await.expect("room");
            // A turn for the reader between the parts.
            if part.contains(&b'\n') {
                let n = server.read(&mut buf).await.expect("open");
                out.extend_from_slice(&buf[..n]);
            }
        }
        drop(client);
        server.read_to_end(&mut out).await.expect("open");
        out
    }

    #[tokio::test]
    async fn the_first_line_is_escaped_and_nothing_else() {
        let first: &[u8] = "GET /q?query=up{j=\"é\"} HTTP/1.1\r\nX: \"{\r\n\r\n".as_bytes();
        let second: &[u8] = b"GET /q?query={} HTTP/1.1\r\n\r\n";
        let want = [
            b"GET /q?query=up%7Bj=%22%C3%A9%22%7D HTTP/1.1\r\nX: \"{\r\n\r\n",
            second,
        ]
        .concat();
        for space in [1, 7, 100_000] {
            assert_eq!(through(&[first, second], space).await, want);
            assert_eq!(
                through(&[&first[..5], &first[5..20], &first[20..], second], space).await,
                want
            );
        }
    }

    #[tokio::test]
    async fn other_beginnings_pass() {
        for bytes in [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x80\xff"[..],
            b"",
            b"GET /{ no end",
            &[b'{'; 100_000],
        ] {
            assert_eq!(through(&[bytes], 1000).await, bytes);
        }
    }
}
