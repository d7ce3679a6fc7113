//! What waits for the batcher.

use std::{sync::Arc, time::Instant};

use tokio::sync::{Semaphore, mpsc};

use super::{MAX_BATCH, job::Job};
use crate::app::error::Error;

/// The batcher's end of the queue.
pub(super) struct Queue {
    jobs: mpsc::Receiver<Job>,
    /// Was taken, and did not fit into its batch.
    left: Option<Job>,
    room: Arc<Semaphore>,
    capacity: usize,
}

impl Queue {
    pub fn new(jobs: mpsc::Receiver<Job>, room: Arc<Semaphore>, capacity: usize) -> Self {
        Self {
            jobs,
            left: None,
            room,
            capacity,
        }
    }

    /// The next batch; waits for its first job, and for no other. None when there will be no more.
    pub async fn next(&mut self) -> Option<Vec<Job>> {
        let first = match self.left.take() {
            Some(job) => job,
            None => self.jobs.recv().await?,
        };
        Some(self.gather(first))
    }

    /// The next batch, of what waits now.
    pub fn take(&mut self) -> Option<Vec<Job>> {
        let first = self.left.take().or_else(|| self.jobs.try_recv().ok())?;
        Some(self.gather(first))
    }

    /// Rows that are not answered yet, those of batches in work among them.
    pub fn rows(&self) -> usize {
        self.capacity.saturating_sub(self.room.available_permits())
    }

    /// Takes what waits, up to the limit of a batch. What is late is answered at once.
    fn gather(&mut self, first: Job) -> Vec<Job> {
        let now = Instant::now();
        let mut rows = 0;
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            if job.is_awaited(now) {
                let weight = job.steps.rows();
                if rows > 0 && rows + weight > MAX_BATCH {
                    self.left = Some(job);
                    break;
                }
                rows += weight;
                batch.push(job);
            } else {
                // a caller who has gone needs no answer
                let _ = job.reply.send(Err(Error::Late));
            }
            next = self.jobs.try_recv().ok();
        }
        batch
    }
}
