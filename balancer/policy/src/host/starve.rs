//! What happens to guests when the host has next to nothing left although every guest was asked for what it can
//! release: nothing, or one guest at a time is paused, or one is killed ([`OomPolicy`]). It is always the guest that
//! holds most beyond its target, never one that does what it is asked.
//!
//! A paused guest takes no more memory, but releases none either. So it is resumed as soon as the host has half of
//! its reserve again, and after a minute in any case: then it may release what it was asked for.

use super::budget::STARVING_MS;
use crate::knobs::OomPolicy;
use crate::observation::Observation;
use crate::observation::memory::HostMemory;
use crate::plan::GuestTarget;

/// A guest is paused for at most this long, milliseconds.
pub const PAUSE_MS_MAX: u64 = 60_000;
/// Guests are resumed when this part of the reserve is available.
const ENOUGH_PART: u64 = 2;

/// The guests that are paused, and the guest that is to be killed, by their indexes in the observation.
pub(crate) fn starve(
    observation: &Observation,
    targets: &mut [GuestTarget],
    memory: &mut HostMemory,
) -> (Vec<usize>, Option<usize>) {
    let now = observation.now_ms;
    let starves = memory.starving_since_ms.is_some_and(|since| now.saturating_sub(since) >= STARVING_MS);
    let worst = |may: &dyn Fn(&GuestTarget) -> bool| {
        let beyond = |target: &GuestTarget| target.held_bytes.saturating_sub(target.target_bytes);
        let choice = targets.iter().enumerate().filter(|(_, target)| beyond(target) > 0 && may(target));
        choice.max_by_key(|(_, target)| beyond(target)).map(|(i, _)| i)
    };
    let policy = observation.knobs.oom_policy;
    let victim = worst(&|_| starves && policy == OomPolicy::Kill);
    let due = memory.paused_at_ms.is_none_or(|at| now.saturating_sub(at) >= STARVING_MS);
    let next = worst(&|target| {
        starves && due && policy == OomPolicy::Pause && target.memory.paused_since_ms.is_none()
    });
    if let Some(next) = next {
        targets[next].memory.paused_since_ms = Some(now);
        memory.paused_at_ms = Some(now);
    }
    let enough = observation.host.is_none_or(|host| {
        host.available_bytes >= observation.knobs.reserve_of(host.total_bytes) / ENOUGH_PART
    });
    let mut paused = vec![];
    for (i, target) in targets.iter_mut().enumerate() {
        let Some(since) = target.memory.paused_since_ms else { continue };
        if enough || policy != OomPolicy::Pause || now.saturating_sub(since) >= PAUSE_MS_MAX {
            target.memory.paused_since_ms = None;
            memory.paused_at_ms = Some(now);
        } else {
            paused.push(i);
        }
    }
    (paused, victim)
}

#[cfg(test)]
#[path = "starve_test.rs"]
mod tests;
