//! The controller's window. In: GET requests of probes and Prometheus. Out: /healthz, /readyz,
//! /metrics.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};

use super::{lease::Leadership, metrics::Metrics};
use crate::{
    admin::{response, state},
    outcome::CONTENT_TYPE,
};

const TEXT: &str = "text/plain; charset=utf-8";

/// The informer's loop turns at least every second; one that stands still for so long hangs.
const STILL: Duration = Duration::from_secs(30);

/// What the window shows; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Window {
    metrics: Arc<Metrics>,
    leadership: Leadership,
    pulse: Arc<Mutex<Pulse>>,
}

#[derive(Debug)]
struct Pulse {
    beat: Instant,
    missing: Vec<&'static str>,
}

impl Window {
    /// Not ready yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, leadership: Leadership) -> Self {
        let pulse = Pulse { beat: Instant::now(), missing: vec!["everything"] };
        Self { metrics, leadership, pulse: Arc::new(Mutex::new(pulse)) }
    }

    /// The informer turns, and these kinds were not listed yet.
    pub fn beat(&self, missing: Vec<&'static str>) {
        let mut pulse = self.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        *pulse = Pulse { beat: Instant::now(), missing };
    }

    /// Answers a request.
    #[must_use]
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Bytes> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        }
        match request.uri().path() {
            "/healthz" => state(self.healthy()),
            "/readyz" => state(self.ready()),
            "/metrics" => match self.metrics.encode(&self.leadership) {
                Ok(text) => response(StatusCode::OK, CONTENT_TYPE, text),
                Err(error) => {
                    let why = format!("the metrics cannot be written: {error}\n");
                    response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, why)
                }
            },
            _ => {
                response(StatusCode::NOT_FOUND, TEXT, "there are /healthz, /readyz and /metrics\n")
            }
        }
    }

    fn healthy(&self) -> Result<(), String> {
        let still = self.pulse.lock().unwrap_or_else(PoisonError::into_inner).beat.elapsed();
        match still < STILL {
            true => Ok(()),
            false => Err(format!("the watches stand still for {} s", still.as_secs())),
        }
    }

    /// A replica that does not lead is ready as well: it knows what the leader knows.
    fn ready(&self) -> Result<(), String> {
        let missing = &self.pulse.lock().unwrap_or_else(PoisonError::into_inner).missing;
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!("not listed yet: {}", missing.join(", "))),
        }
    }
}
