// SPDX-License-Identifier: Apache-2.0
//! A caller's deadline, answered by its name.
//!
//! A call carries its deadline in `grpc-timeout`. The transport below ends such a call with CANCELLED, which means
//! that the *caller* gave up; gRPC's word for a deadline that has passed is DEADLINE_EXCEEDED, and clients act on the
//! difference. So it is answered here, a moment before the transport would. The operation itself belongs to the
//! daemon and goes on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::Status;
use tonic::codegen::{Service, http};
use tower::layer::Layer;

/// How much earlier: timers count in milliseconds, and the transport's begins later.
const EARLIER: Duration = Duration::from_millis(1);

/// Puts [`Deadline`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeadlineLayer;

/// A service whose calls end with DEADLINE_EXCEEDED.
#[derive(Debug, Clone)]
pub(crate) struct Deadline<S> {
    inner: S,
}

// === impl DeadlineLayer ===

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner }
    }
}

// === impl Deadline ===

impl<S, In, Out> Service<http::Request<In>> for Deadline<S>
where
    S: Service<http::Request<In>, Response = http::Response<Out>>,
    S::Future: Send + 'static,
    Out: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<In>) -> Self::Future {
        let asked = request.headers().get("grpc-timeout").and_then(|value| parse(value.as_bytes()));
        let answer = self.inner.call(request);
        let Some(asked) = asked else { return Box::pin(answer) };
        Box::pin(async move {
            match tokio::time::timeout(asked.saturating_sub(EARLIER), answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    let message =
                        format!("the caller's deadline of {asked:?} has passed; what it asked for goes on");
                    Ok(Status::deadline_exceeded(message).into_http())
                }
            }
        })
    }
}

/// At most 8 digits and a unit (gRPC over HTTP/2, "Timeout"). What is not of this form is no deadline.
fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers after a time.
    struct After(Duration);

    impl Service<http::Request<()>> for After {
        type Response = http::Response<String>;
        type Error = std::convert::Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<()>) -> Self::Future {
            let wait = self.0;
            Box::pin(async move {
                tokio::time::sleep(wait).await;
                Ok(http::Response::new("done".to_owned()))
            })
        }
    }

    /// What a service that takes ten seconds answers to a call with this deadline, and when.
    async fn answer(deadline: Option<&str>) -> (Option<String>, String, Duration) {
        let mut service = DeadlineLayer.layer(After(Duration::from_secs(10)));
        let mut request = http::Request::new(());
        if let Some(deadline) = deadline {
            request.headers_mut().insert("grpc-timeout", deadline.parse().unwrap());
        }
        let start = tokio::time::Instant::now();
        let response = service.call(request).await.unwrap();
        let status = response.headers().get("grpc-status").map(|it| it.to_str().unwrap().to_owned());
        (status, response.into_body(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_passed_deadline_is_told_as_one_before_the_transport_would() {
        let exceeded = Some((tonic::Code::DeadlineExceeded as i32).to_string());
        let (status, body, after) = answer(Some("2S")).await;
        assert_eq!((status, body), (exceeded.clone(), String::new()));
        assert!(after < Duration::from_secs(2), "{after:?}");
        assert_eq!(answer(Some("1m")).await.0, exceeded);
        for enough in [Some("11S"), Some("nonsense"), None] {
            let (status, body, _) = answer(enough).await;
            assert_eq!((status, body.as_str()), (None, "done"), "{enough:?}");
        }
    }

    #[test]
    fn deadlines_are_read() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("30S", Some(Duration::from_secs(30))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("999999999n", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1s", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
    }
}
