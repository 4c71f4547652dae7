//! Stack for the recursion of evaluation.
//!
//! A query may nest 200 levels, each of them several futures that poll one another. Worker threads have 2 MiB of stack,
//! so what recurses makes sure of more before it goes on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;

/// More than what lies between two polls that make sure, in builds without optimisation.
const RED_ZONE_BYTES: usize = 512 << 10;
const SEGMENT_BYTES: usize = 4 << 20;

struct Deep<'a, T>(BoxFuture<'a, T>);

impl<T> Future for Deep<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        stacker::maybe_grow(RED_ZONE_BYTES, SEGMENT_BYTES, || self.0.as_mut().poll(cx))
    }
}

/// The future, boxed, polled with enough stack for the levels below it.
pub(crate) fn deep<'a, T: 'a>(future: impl Future<Output = T> + Send + 'a) -> BoxFuture<'a, T> {
    Box::pin(Deep(future.boxed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recurse(depth: usize) -> BoxFuture<'static, usize> {
        deep(async move {
            let ballast = [depth; 2048];
            if depth == 0 {
                return 0;
            }
            recurse(depth - 1).await + std::hint::black_box(ballast)[depth % 2048] / depth
        })
    }

    #[test]
    fn recursion_is_deeper_than_the_stack_of_its_thread() {
        let run = || futures::executor::block_on(recurse(2000));
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap();
        assert_eq!(thread.join().unwrap(), 2000);
    }
}
