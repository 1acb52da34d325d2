//! How the frames of a guest are known.

use crate::objects::{FrameSource, SourceObject};
use protocol::frames::{State, Totals};

/// Sources of a guest's frames. The second argument are the frames in its balloon by its own report, where there is
/// no other source (engine qemu).
pub(in crate::state) fn sources(totals: &Totals, reported_ballooned: Option<u64>) -> Vec<SourceObject> {
    let error = totals.error_frames_max;
    let of = |states: &[State], source, frames, error_frames_max| SourceObject {
        states: states.to_vec(),
        unknown: false,
        source,
        frames,
        error_frames_max,
    };
    let mut known = vec![of(&[State::Private], FrameSource::Pagemap, totals.private, error)];
    match reported_ballooned {
        None => {
            known.push(of(&[State::Untouched], FrameSource::Pagemap, totals.untouched, error));
            let given = totals.ballooned.saturating_add(totals.reported);
            known.push(of(&[State::Ballooned, State::Reported], FrameSource::Vmm, given, error));
        }
        Some(reported) => {
            known
                .push(SourceObject { unknown: true, ..of(&[], FrameSource::Pagemap, totals.unknown, error) });
            // It is unknown which frames these are, and whether the guest uses them.
            let frames = reported.min(totals.unknown);
            let ballooned = of(&[State::Ballooned], FrameSource::Guest, frames, totals.unknown);
            known.push(SourceObject { unknown: true, ..ballooned });
            // The pagemap shows which pages of images were not touched yet.
            if totals.untouched > 0 {
                let error = totals.shared_error_frames_max;
                known.push(of(&[State::Untouched], FrameSource::Pagemap, totals.untouched, error));
            }
        }
    }
    if totals.shared > 0 {
        known.push(of(&[State::Shared], FrameSource::Pagemap, totals.shared, totals.shared_error_frames_max));
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_cover_each_frame_once() {
        let kvm = Totals {
            frames: 100,
            private: 40,
            untouched: 30,
            ballooned: 20,
            reported: 10,
            ..Totals::default()
        };
        let sum = |known: &[SourceObject]| known.iter().map(|source| source.frames).sum::<u64>();
        assert_eq!(sum(&sources(&kvm, None)), 100);
        let qemu = Totals { frames: 100, private: 40, unknown: 60, error_frames_max: 3, ..Totals::default() };
        let known = sources(&qemu, Some(25));
        assert_eq!(sum(&known[..2]), 100);
        assert!(!known[0].unknown && known[1].unknown && known[1].states.is_empty());
        // With images: those pages that were not touched yet are known.
        let with_images =
            Totals { frames: 130, untouched: 20, shared: 10, shared_error_frames_max: 2, ..qemu };
        let known = sources(&with_images, Some(0));
        assert_eq!(sum(&known), 130);
        let untouched = known.iter().find(|source| source.states == [State::Untouched]).unwrap();
        assert_eq!(
            (untouched.frames, untouched.error_frames_max, untouched.source),
            (20, 2, FrameSource::Pagemap)
        );
        let known = sources(&qemu, Some(25));
        // A part of what is unknown, by the guest's report: all of it may be wrong.
        assert_eq!(
            (known[2].frames, known[2].error_frames_max, known[2].source),
            (25, 60, FrameSource::Guest)
        );
        assert_eq!(sources(&qemu, Some(u64::MAX))[2].frames, 60);
    }
}
