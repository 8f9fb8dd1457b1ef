//! Writes the history while the run goes on, without ever keeping a client waiting.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::history::{Event, Fault, Phase};

enum Line {
    Event(Event),
    Flush,
}

/// The history's only writer.
#[derive(Debug)]
pub struct Recorder {
    begin: Instant,
    calls: AtomicU64,
    /// Nothing once the run is over.
    lines: Mutex<Option<mpsc::Sender<Line>>>,
    writer: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

impl Recorder {
    /// Begins a history in this file, which must not be there yet.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create_new(path)?);
        let (sender, lines) = mpsc::channel();
        let writer = std::thread::spawn(move || write(file, &lines));
        Ok(Self {
            begin: Instant::now(),
            calls: AtomicU64::new(0),
            lines: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// When the run began.
    pub fn begin(&self) -> Instant {
        self.begin
    }

    /// A number that no other call of this history has.
    pub fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes an event that happens now; it is made from the microseconds since the run's begin.
    pub fn write(&self, event: impl FnOnce(u64) -> Event) {
        // One after the other, so that no line is older than the one before.
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let at = u64::try_from(self.begin.elapsed().as_micros()).expect("no run lasts that long");
        if let Some(lines) = &*lines {
            // An error: the writer has failed, which the end tells.
            lines.send(Line::Event(event(at))).ok();
        }
    }

    /// Writes a fault, and has all that was written on disk soon.
    pub fn fault(&self, kind: &str, phase: Phase) {
        self.write(|at| Event::Fault(Fault { at, fault: kind.to_owned(), phase }));
        if let Some(lines) = &*self.lines.lock().unwrap_or_else(PoisonError::into_inner) {
            lines.send(Line::Flush).ok();
        }
    }

    /// Ends the history. An error: it is not whole.
    pub fn end(&self) -> io::Result<()> {
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        writer.map_or(Ok(()), |writer| writer.join().expect("it does not panic"))
    }
}

fn write(mut file: BufWriter<File>, lines: &mpsc::Receiver<Line>) -> io::Result<()> {
    for line in lines {
        match line {
            Line::Event(event) => file.write_all(event.line().as_bytes())?,
            Line::Flush => file.flush()?,
        }
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;
    use crate::history::read;

    #[test]
    fn lines_of_many_clients_are_whole_and_in_the_order_of_their_times() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history.jsonl");
        let recorder = Recorder::create(&path).expect("it begins");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1_000).for_each(|_| recorder.write(|at| Event::Rest { at })));
            }
        });
        recorder.fault("a fault", Phase::Begin);
        recorder.end().expect("it is whole");
        recorder.write(|at| Event::Rest { at });
        let events = read(BufReader::new(File::open(&path).expect("it is there")));
        let times: Vec<u64> = events.map(|event| event.expect("readable").1.at()).collect();
        assert_eq!(times.len(), 8_001);
        assert!(times.is_sorted());
        assert!(Recorder::create(&path).is_err(), "another run's history is not overwritten");
    }
}
