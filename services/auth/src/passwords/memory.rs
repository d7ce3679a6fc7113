//! The memory of Argon2: 19 MiB for each password that is worked on.

use std::sync::{Mutex, PoisonError};

use argon2::{Block, Params};

/// Above 32 MiB the C library always asks the system for an allocation and gives it back when it is freed; it would keep
/// smaller ones for later, so that an idle process held 19 MiB for each of its threads (mallopt(3), `M_MMAP_THRESHOLD`).
/// What is reserved and never touched takes no memory.
const RESERVED_BLOCKS: usize = 33 * 1024;

pub(super) type Memory = Vec<Block>;

/// Memory that is handed from one password to the next while others wait: to get it anew costs a fifth of the work.
#[derive(Default)]
pub(super) struct Memories(Mutex<Vec<Memory>>);

impl Memories {
    /// Memory for a password with these parameters.
    pub fn take(&self, params: &Params) -> Memory {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut memory = kept.unwrap_or_else(|| Vec::with_capacity(RESERVED_BLOCKS));
        memory.resize(params.block_count(), Block::new());
        memory
    }

    /// Keeps the memory for whoever waits; when nobody does, nothing is kept at all.
    pub fn give(&self, memory: Memory, somebody_waits: bool) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if somebody_waits {
            kept.push(memory);
        } else {
            kept.clear();
        }
    }

    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}
