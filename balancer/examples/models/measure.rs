//! Measures a system on the nine criteria.

use super::attacks::{ATTACKER, Attack, VICTIM};
use super::cost::{ContainerTime, EventTime, Storage};
use super::generate::{mixed, sharing};
use super::host::Step;
use super::lines::Lines;
use super::replay::{Charged, Difference, play, round, steps, total};
use super::report::{
    Attacked, Attacks, Coverage, Criterion, Mitigation, Outcome, Report, SystemReport, Victim,
};
use super::trace::Trace;
use super::truth::Truth;
use accounting::{Accounting, ContainerId, GRACE_HALF_LIFE_MS, POOL, Rss, Shares, System, Zones};
use accounting::{partial, static_ownership};
use protocol::bytes::{BLOCK_BYTES, FRAME_BYTES};
use std::collections::BTreeMap;

/// A trace, ready to be played.
struct Played {
    trace: Trace,
    truth: Truth,
    steps: Vec<(u64, Step)>,
}

impl Played {
    fn new(trace: Trace) -> Self {
        let (truth, steps) = (Truth::of(&trace), steps(&trace));
        Self { trace, truth, steps }
    }

    fn to(&self, system: &mut dyn Accounting, limits: &BTreeMap<ContainerId, u64>) -> Charged {
        play(system, &self.steps, self.trace.length_ms(), limits)
    }

    fn difference(&self, subject: Subject) -> Difference {
        Difference::of(&self.to(&mut *subject.plain(), &BTreeMap::new()), &self.truth)
    }
}

/// A system or a variant of one.
#[derive(Debug, Clone, Copy)]
enum Subject {
    System(System),
    PowerOfTwo,
}

impl Subject {
    fn name(self) -> String {
        match self {
            Self::System(system) => system.name().into(),
            Self::PowerOfTwo => "partial, powers of 2".into(),
        }
    }

    fn system(self) -> System {
        match self {
            Self::System(system) => system,
            Self::PowerOfTwo => System::Partial,
        }
    }

    /// The rule alone, without a grace.
    fn plain(self) -> Box<dyn Accounting> {
        match self {
            Self::System(System::Zones) => Box::new(Zones::default()),
            Self::System(System::Static) => Box::new(static_ownership(None)),
            Self::System(System::Partial) => Box::new(partial(Shares::Exact, None)),
            Self::System(System::Rss) => Box::new(Rss::default()),
            Self::PowerOfTwo => Box::new(partial(Shares::PowerOfTwo, None)),
        }
    }

    /// As the balancer uses it.
    fn used(self) -> Box<dyn Accounting> {
        match self {
            Self::System(system) => system.build(),
            Self::PowerOfTwo => Box::new(partial(Shares::PowerOfTwo, Some(GRACE_HALF_LIFE_MS))),
        }
    }
}

impl Report {
    /// Measures the systems on traces that are generated from a seed, and on a given one.
    #[must_use]
    pub fn new(seed: u64, given: Option<Trace>) -> Self {
        let traces: Vec<Played> =
            [Some(mixed(seed)), Some(sharing(seed)), given].into_iter().flatten().map(Played::new).collect();
        let attacks: Vec<(Attack, Played)> =
            Attack::ALL.into_iter().map(|attack| (attack, Played::new(attack.trace()))).collect();
        let report = |subject| SystemReport::new(subject, &traces, &attacks);
        Self {
            seed,
            events: traces
                .iter()
                .map(|played| (played.trace.name.clone(), played.trace.events.len()))
                .collect(),
            systems: System::ALL.into_iter().map(|system| report(Subject::System(system))).collect(),
            variants: vec![report(Subject::PowerOfTwo)],
            mitigation: [System::Static, System::Partial]
                .into_iter()
                .map(|system| Mitigation::new(Subject::System(system), &attacks))
                .collect(),
        }
    }
}

impl SystemReport {
    fn new(subject: Subject, traces: &[Played], attacks: &[(Attack, Played)]) -> Self {
        let name = |played: &Played| played.trace.name.clone();
        let against_truth: BTreeMap<String, Difference> =
            traces.iter().map(|played| (name(played), played.difference(subject))).collect();
        let (mixed, sharing) = (against_truth["mixed"], against_truth["sharing"]);
        let attacked: Vec<Attacked> =
            attacks.iter().map(|(attack, played)| Attacked::new(subject, *attack, played)).collect();
        let step = if subject.system() == System::Zones { BLOCK_BYTES } else { FRAME_BYTES };
        let time = ContainerTime::of(&move || subject.used());
        let covered =
            attacks.iter().find(|(attack, _)| *attack == Attack::UnmappedCache).expect("one of all");
        let covered = covered.1.difference(subject);
        let covered = round(covered.charged_pct - covered.fragmentation_pct);
        Self {
            system: subject.name(),
            comprehensive_limits: Criterion {
                verdict: if covered > 99.9 { "yes".into() } else { "no".into() },
                measured: Coverage { resident_charged_pct: covered },
            },
            code_overhead: Lines::of(subject.system()),
            storage_overhead: Storage::of(&move || subject.used()),
            run_time_overhead: EventTime::of(&move || subject.used()),
            resize_at_run_time: Criterion {
                verdict: if step == FRAME_BYTES { "yes".into() } else { "by whole zones".into() },
                measured: [("resize_ns", time.resize_ns), ("step_bytes", step as f64)].into(),
            },
            creation_at_run_time: Criterion {
                verdict: "yes".into(),
                measured: [("create_ns", time.create_ns), ("destroy_ns", time.destroy_ns)].into(),
            },
            recognizes_sharing: Criterion { verdict: sharing_verdict(&sharing), measured: sharing },
            supports_overcommit: Criterion { verdict: overcommit_verdict(&mixed), measured: mixed },
            denial_of_service: Criterion {
                verdict: attacks_verdict(&attacked),
                measured: Attacks { attacks: attacked },
            },
            against_truth,
        }
    }
}

fn sharing_verdict(sharing: &Difference) -> String {
    let wrong = sharing.overcharged_pct.max(sharing.undercharged_pct);
    let verdict = match wrong {
        _ if sharing.pool_pct > 50.0 => "no, the pool pays",
        ..20.0 => "yes",
        _ => "no",
    };
    verdict.into()
}

fn overcommit_verdict(mixed: &Difference) -> String {
    let verdict = match mixed.charged_pct {
        _ if mixed.fragmentation_pct > 1.0 => "partly, strands memory",
        99.0..101.0 => "yes",
        _ => "partly, counts wrong",
    };
    verdict.into()
}

fn attacks_verdict(attacked: &[Attacked]) -> String {
    let harmful = |attacked: &&Attacked| !matches!(attacked.outcome, Outcome::Fails | Outcome::PoolPays);
    let open: Vec<&str> = attacked.iter().filter(harmful).map(|attacked| attacked.attack.name()).collect();
    if open.is_empty() { "no".into() } else { format!("to {}", open.join(", ")) }
}

impl Attacked {
    fn new(subject: Subject, attack: Attack, played: &Played) -> Self {
        let charged = played.to(&mut *subject.plain(), &BTreeMap::new());
        let truth = |container| total(&played.truth.windows, container);
        let part = |container| round(100.0 * charged.total(container) / truth(container));
        let (victim, attacker) = (part(VICTIM), part(ATTACKER));
        let fragmentation = Difference::of(&charged, &played.truth).fragmentation_pct;
        let missing = truth(ATTACKER) - charged.total(ATTACKER);
        let outcome = if victim > 110.0 {
            Outcome::VictimPays
        } else if fragmentation > 10.0 {
            Outcome::Strands
        } else if attacker > 90.0 {
            Outcome::Fails
        } else if charged.total(POOL) > 0.9 * missing {
            Outcome::PoolPays
        } else {
            Outcome::NotCharged
        };
        Self {
            attack,
            victim_charged_pct: victim,
            attacker_charged_pct: attacker,
            fragmentation_pct: fragmentation,
            outcome,
        }
    }
}

impl Mitigation {
    fn new(subject: Subject, attacks: &[(Attack, Played)]) -> Self {
        let (attack, played) =
            attacks.iter().find(|(attack, _)| *attack == Attack::TimedUnshare).expect("one of all");
        let limit_frames = attack.victims_limit_frames();
        let victim = |mut system: Box<dyn Accounting>| {
            let charged = played.to(&mut *system, &[(VICTIM, limit_frames)].into());
            Victim {
                peak_frames: round(charged.peak_frames.get(&VICTIM).copied().unwrap_or(0.0)),
                over_limit_ms: charged.over_limit_ms.get(&VICTIM).copied().unwrap_or(0),
            }
        };
        Self {
            system: subject.name(),
            half_life_ms: GRACE_HALF_LIFE_MS.get(),
            limit_frames,
            before: victim(subject.plain()),
            after: victim(subject.used()),
        }
    }
}
