// SPDX-License-Identifier: Apache-2.0
//! Choices that are the same for the same seed.

/// A generator (xorshift64*): enough to choose, and no dependency.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// One of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    /// The place of one of so many, of which there is one at least.
    pub fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap_or(0)
    }
}
