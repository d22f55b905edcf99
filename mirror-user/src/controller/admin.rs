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

/// The informer's loop turns at least every second; if it has not turned for this long, it hangs.
const STALLED: Duration = Duration::from_secs(30);

/// What the window shows; a clone is the same one.
#[derive(Clone, Debug)]
pub struct AdminService {
    metrics: Arc<Metrics>,
    leadership: Leadership,
    liveness: Arc<Mutex<Liveness>>,
}

#[derive(Debug)]
struct Liveness {
    beat: Instant,
    missing: Vec<&'static str>,
}

impl AdminService {
    /// Not ready yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, leadership: Leadership) -> Self {
        let liveness = Liveness { beat: Instant::now(), missing: vec!["everything"] };
        Self { metrics, leadership, liveness: Arc::new(Mutex::new(liveness)) }
    }

    /// The informer turns, and these kinds were not listed yet.
    pub fn beat(&self, missing: Vec<&'static str>) {
        let mut liveness = self.liveness.lock().unwrap_or_else(PoisonError::into_inner);
        *liveness = Liveness { beat: Instant::now(), missing };
    }

    /// Responds to a request.
    #[must_use]
    pub fn respond<B>(&self, request: &Request<B>) -> Response<Bytes> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        }
        match request.uri().path() {
            "/healthz" => state(self.healthy()),
            "/readyz" => state(self.ready()),
            "/metrics" => match self.metrics.encode(&self.leadership) {
                Ok(text) => response(StatusCode::OK, CONTENT_TYPE, text),
                Err(error) => {
                    let why = format!("cannot encode the metrics: {error}\n");
                    response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, why)
                }
            },
            _ => response(
                StatusCode::NOT_FOUND,
                TEXT,
                "not found; the paths are /healthz, /readyz and /metrics\n",
            ),
        }
    }

    fn healthy(&self) -> Result<(), String> {
        let still = self.liveness.lock().unwrap_or_else(PoisonError::into_inner).beat.elapsed();
        match still < STALLED {
            true => Ok(()),
            false => Err(format!("the watches have made no progress for {} s", still.as_secs())),
        }
    }

    /// A replica that does not lead is ready as well: it knows what the leader knows.
    fn ready(&self) -> Result<(), String> {
        let missing = &self.liveness.lock().unwrap_or_else(PoisonError::into_inner).missing;
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!("not listed yet: {}", missing.join(", "))),
        }
    }
}
