//! All that happens in a run, as a hash: the same seed gives the same one. As text, too, for who looks for a fault.

use std::hash::Hasher;

/// What happened so far.
pub struct Trace {
    low: u64,
    high: u64,
    lines: Option<Vec<String>>,
}

/// Odd and without a pattern.
const FACTORS: (u64, u64) = (0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f);

impl Trace {
    /// Of nothing. With `record` it is kept as text.
    pub fn new(record: bool) -> Self {
        Self { low: 0, high: 1, lines: record.then(Vec::new) }
    }

    /// Adds a number.
    pub fn mix(&mut self, word: u64) {
        self.low = (self.low.rotate_left(23) ^ word).wrapping_mul(FACTORS.0);
        self.high = (self.high.rotate_left(29) ^ word ^ (self.low >> 32)).wrapping_mul(FACTORS.1);
    }

    /// A task is polled.
    pub fn step(&mut self, now_micros: u64, process: usize, kind: u64, task: u64) {
        self.mix(now_micros);
        self.mix(task << 16 | kind << 8 | process as u64);
    }

    /// Something happens.
    pub fn note(&mut self, now_micros: u64, what: &str, detail: impl FnOnce() -> String) {
        self.mix(now_micros);
        self.write(what.as_bytes());
        if let Some(lines) = &mut self.lines {
            let millis = now_micros / 1000;
            lines.push(format!("{millis:>7}.{:03} ms  {what}  {}", now_micros % 1000, detail()));
        }
    }

    /// All of it in one number.
    pub fn hash(&self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    /// As text, if it is recorded.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

impl Hasher for Trace {
    fn finish(&self) -> u64 {
        self.low
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(bytes.len() as u64);
    }
}
