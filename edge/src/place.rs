//! Room for what is under way. Writes, reads and pages of orders have rooms of their own, so that a flood of one kind never
//! starves another.

use std::sync::{Arc, Mutex, PoisonError};

use contracts::Reason;
use http::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{problem::Problem, routes::ORDERS};

/// Reads under way at a time. More are refused at once: waiting in a queue would eat their deadline.
pub const READS_IN_FLIGHT_MAX: usize = 1024;
/// Pages of orders under way at a time: each costs as much as a hundred other reads.
pub const PAGES_IN_FLIGHT_MAX: usize = 64;
/// Writes under way at a time. All kinds together are fewer than one connection to a service takes.
pub const WRITES_IN_FLIGHT_MAX: usize = 2048;

/// For all requests.
pub struct Room {
    reads: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(READS_IN_FLIGHT_MAX, PAGES_IN_FLIGHT_MAX, WRITES_IN_FLIGHT_MAX)
    }
}

impl Room {
    pub fn new(reads_max: usize, pages_max: usize, writes_max: usize) -> Self {
        let [reads, pages, writes] = [reads_max, pages_max, writes_max].map(|max| Arc::new(Semaphore::new(max)));
        Self { reads, pages, writes }
    }

    /// A place for a request, if there is one. It is free again once all clones are gone.
    pub fn take(&self, method: &Method, route: Option<&str>) -> Result<Place, Problem> {
        let among = match (method.is_safe(), route) {
            (true, Some(ORDERS)) => &self.pages,
            (true, _) => &self.reads,
            (false, _) => &self.writes,
        };
        let place = Place { among: Arc::clone(among), held: Arc::default() };
        place.take()?;
        Ok(place)
    }
}

/// Room for one request.
#[derive(Debug, Clone)]
pub struct Place {
    among: Arc<Semaphore>,
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Place {
    /// Leaves the place to others while the request waits for its client.
    pub async fn leave_for<T>(&self, waiting: impl Future<Output = T>) -> Result<T, Problem> {
        self.hold(None);
        let done = waiting.await;
        self.take()?;
        Ok(done)
    }

    fn take(&self) -> Result<(), Problem> {
        let permit = Arc::clone(&self.among).try_acquire_owned().map_err(|_| Problem::of(Reason::Overloaded))?;
        self.hold(Some(permit));
        Ok(())
    }

    fn hold(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}
