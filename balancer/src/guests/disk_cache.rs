//! What a guest's `vmm` reported about the host's page cache of its disks, and what it was asked to drop.

use super::guest::Sampled;
use protocol::disk::{CachedFile, DISK_FILES_MAX, FileId};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A request that is not answered within this is made again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// After a request that brought nothing the next one waits, twice as long each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The last report, and the last request.
#[derive(Debug, Default)]
pub struct DiskCache {
    report: Option<Sampled<Vec<CachedFile>>>,
    /// Age of the reading when it came, milliseconds.
    report_age_ms: u64,
    request: Option<Request>,
    pause: Duration,
}

#[derive(Debug)]
struct Request {
    at: Instant,
    /// What there was when it was made, bytes.
    held_bytes: u64,
    answered: bool,
}

impl DiskCache {
    /// Takes a report. Each file counts once, and at most [`DISK_FILES_MAX`] files count.
    pub fn take(&mut self, files: Vec<CachedFile>, age_ms: u64, now: Instant) {
        let unique: BTreeMap<FileId, CachedFile> =
            files.into_iter().take(DISK_FILES_MAX).map(|file| (file.file, file)).collect();
        self.report = Some(Sampled { value: unique.into_values().collect(), at: now });
        self.report_age_ms = age_ms;
        let held_bytes = self.held_bytes();
        if let Some(request) = self.request.as_mut().filter(|request| !request.answered) {
            request.answered = true;
            let gained = held_bytes < request.held_bytes;
            self.pause = if gained { Duration::ZERO } else { (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX) };
        }
    }

    /// Files as they were reported, no larger than the host's page cache.
    #[must_use]
    pub fn files(&self, host_bytes: u64) -> Vec<CachedFile> {
        let mut left = host_bytes;
        let bounded = |file: &CachedFile| {
            let bytes = file.bytes.min(left);
            left -= bytes;
            CachedFile { bytes, error_bytes: file.error_bytes.min(host_bytes), ..file.clone() }
        };
        self.report.iter().flat_map(|report| &report.value).map(bounded).collect()
    }

    /// Age of the report, milliseconds; `None` before the first one.
    #[must_use]
    pub fn age_ms(&self, now: Instant) -> Option<u64> {
        Some(self.report.as_ref()?.age_ms(now).saturating_add(self.report_age_ms))
    }

    /// True if a request may be made now: the last one was answered, and did not fail just before.
    #[must_use]
    pub fn may_ask(&self, now: Instant) -> bool {
        self.request.as_ref().is_none_or(|request| {
            let since = now.saturating_duration_since(request.at);
            since >= if request.answered { self.pause } else { ANSWER_DEADLINE }
        })
    }

    /// A request was made.
    pub fn asked(&mut self, now: Instant) {
        self.request = Some(Request { at: now, held_bytes: self.held_bytes(), answered: false });
    }

    fn held_bytes(&self) -> u64 {
        let files = self.report.iter().flat_map(|report| &report.value);
        files.fold(0, |sum: u64, file| sum.saturating_add(file.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(ino: u64, bytes: u64) -> CachedFile {
        CachedFile { file: FileId { dev: 1, ino }, bytes, error_bytes: u64::MAX, stays: false }
    }

    #[test]
    fn a_claim_of_a_vmm_never_counts_for_more_than_the_host_has() {
        let (mut cache, now) = (DiskCache::default(), Instant::now());
        assert_eq!((cache.files(1000), cache.age_ms(now)), (vec![], None));
        let mut files = vec![file(1, u64::MAX); 1000];
        files[1] = file(2, 600);
        cache.take(files, u64::MAX, now);
        let of =
            |host: u64| cache.files(host).iter().map(|file| (file.file.ino, file.bytes)).collect::<Vec<_>>();
        assert_eq!(of(1000), [(1, 1000), (2, 0)], "each file once");
        assert_eq!(cache.files(1000)[0].error_bytes, 1000);
        assert_eq!(cache.age_ms(now), Some(u64::MAX));
        let many: Vec<CachedFile> = (0..1000).map(|ino| file(ino, 1)).collect();
        cache.take(many, 0, now);
        assert_eq!(cache.files(1000).len(), DISK_FILES_MAX);
    }

    #[test]
    fn requests_wait_for_answers_and_longer_after_they_brought_nothing() {
        let mut cache = DiskCache::default();
        let mut now = Instant::now();
        cache.take(vec![file(1, 100)], 0, now);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(cache.may_ask(now));
            cache.asked(now);
            assert!(!cache.may_ask(now + ANSWER_DEADLINE / 2) && cache.may_ask(now + ANSWER_DEADLINE));
            cache.take(vec![file(1, 100)], 0, now);
            let pause = Duration::from_secs(pause);
            assert!(!cache.may_ask(now + pause - Duration::from_millis(1)));
            now += pause;
        }
        cache.asked(now);
        cache.take(vec![file(1, 99)], 0, now);
        assert!(cache.may_ask(now), "it brought something");
    }
}
