//! Liars, and honest tables that look like lies for a while.

use super::super::figures::KernelSample;
use super::super::reading::TableSample;
use super::*;
use protocol::frames::Totals;

const MIB: u64 = 1 << 20;
const FRAMES: u64 = 512 * MIB / FRAME_BYTES;

/// A table that claims so much, with an error bounded so many milliseconds ago.
fn table(private_mib: u64, error_mib: u64, age_ms: Option<u64>) -> Totals {
    Totals {
        frames: FRAMES,
        private: private_mib * MIB / FRAME_BYTES,
        error_frames_max: error_mib * MIB / FRAME_BYTES,
        checked_age_ms: age_ms,
        ..Default::default()
    }
}

fn kernel(anonymous_mib: u64, swapped_mib: u64) -> KernelSample {
    KernelSample {
        resident_bytes: (anonymous_mib + 4) * MIB,
        anonymous_bytes: anonymous_mib * MIB,
        swapped_bytes: swapped_mib * MIB,
        page_tables_bytes: 0,
        at: Instant::now(),
    }
}

/// Both of one moment.
fn reading(kernel: &KernelSample, totals: &Totals, at: Instant) -> Reading {
    let table = TableSample { totals: totals.clone(), ..TableSample::default() };
    Reading { table, kernel: *kernel, at, span: Duration::ZERO }
}

/// A question and its answer, a second after the last.
fn round(check: &mut CrossCheck, now: &mut Instant, kernel: &KernelSample, totals: &Totals) -> Verdict {
    *now += ASK_AGAIN;
    if check.wants_answer(&reading(kernel, totals, *now), *now) {
        check.asked(*now);
    }
    *now += Duration::from_millis(40);
    check.answered(&reading(kernel, totals, *now), *now)
}

#[test]
fn a_table_that_hides_or_invents_memory_is_found_with_the_second_answer() {
    for (claimed, held) in [(10, 300), (300, 10)] {
        let (mut check, mut now) = (CrossCheck::default(), Instant::now());
        let (kernel, lie) = (kernel(held, 0), table(claimed, 1, Some(3)));
        assert_eq!(round(&mut check, &mut now, &kernel, &lie), Verdict::Same);
        assert!(check.is_trusted(), "one answer convicts nobody");
        let Verdict::Distrusted(why) = round(&mut check, &mut now, &kernel, &lie) else {
            panic!("not found")
        };
        assert!(why.contains("10M") && why.contains("300M"), "{why}");
        assert!(!check.is_trusted());
        for _ in 0..100 {
            assert_eq!(round(&mut check, &mut now, &kernel, &lie), Verdict::Same, "told once");
        }
        // An honest table is believed again.
        let honest = table(held, 1, Some(3));
        let verdicts: Vec<_> = (0..40).map(|_| round(&mut check, &mut now, &kernel, &honest)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Trusted).count(), 1);
        assert!(check.is_trusted());
    }
}

#[test]
fn an_honest_table_is_never_found_to_lie() {
    for (kernel, totals, why) in [
        (kernel(110, 0), table(100, 1, Some(3)), "the process holds something beside guest RAM"),
        (kernel(300, 0), table(100, 200, Some(3)), "the table admits that it does not know"),
        (kernel(100, 100), table(200, 1, Some(3)), "memory was swapped out"),
        (kernel(360, 0), table(100, 1, Some(35)), "a guest touched it since the comparison"),
        (kernel(0, 0), table(0, 0, None), "nothing is there"),
    ] {
        let (mut check, mut now) = (CrossCheck::default(), Instant::now());
        for _ in 0..200 {
            assert_eq!(round(&mut check, &mut now, &kernel, &totals), Verdict::Same, "{why}");
            assert_eq!(check.waited(now), Verdict::Same, "{why}");
        }
        assert!(check.is_trusted(), "{why}");
    }
}

#[test]
fn a_vmm_that_does_not_answer_or_only_with_old_comparisons_is_not_believed_for_ever() {
    let kernel = kernel(300, 0);
    // An answer 20 ms after the question whose comparison is from 21 ms ago is older than the question; after 60 ms a
    // guest may have touched anything.
    for (age_ms, answered_ms) in [
        (Some(3), None),
        (Some(4000), Some(20)),
        (Some(21), Some(20)),
        (Some(55), Some(60)),
        (None, Some(20)),
    ] {
        let (mut check, mut now) = (CrossCheck::default(), Instant::now());
        let (lie, start) = (table(10, 1, age_ms), now);
        let found = loop {
            now += ASK_AGAIN;
            assert!(check.wants_answer(&reading(&kernel, &lie, now), now));
            check.asked(now);
            if let Some(ms) = answered_ms {
                check.asked_at = Some(now);
                now += Duration::from_millis(ms);
                assert_eq!(check.answered(&reading(&kernel, &lie, now), now), Verdict::Same);
            }
            if let Verdict::Distrusted(why) = check.waited(now) {
                break why;
            }
            assert!(now.duration_since(start) < SILENT_MAX * 2, "{age_ms:?}");
        };
        assert!(found.contains("did not compare") && now.duration_since(start) >= SILENT_MAX, "{found}");
    }
}

#[test]
fn a_question_is_not_repeated_at_once() {
    let (mut check, now) = (CrossCheck::default(), Instant::now());
    let lie = reading(&kernel(300, 0), &table(10, 1, Some(3)), now);
    assert!(check.wants_answer(&lie, now) && !check.is_asked());
    check.asked(now);
    assert!(check.is_asked() && !check.wants_answer(&lie, now));
    assert!(check.wants_answer(&lie, now + ASK_AGAIN));
}

#[test]
fn questions_are_few_once_the_figures_agreed() {
    let (mut check, mut now) = (CrossCheck::default(), Instant::now());
    let mut asked = 0;
    // Lags behind at each turn and is right after each comparison.
    for _ in 0..120 {
        now += Duration::from_secs(1);
        if check.wants_answer(&reading(&kernel(300, 0), &table(100, 1, Some(900)), now), now) {
            check.asked(now);
            asked += 1;
            let answer = reading(&kernel(300, 0), &table(300, 1, Some(1)), now);
            assert_eq!(check.answered(&answer, now), Verdict::Same);
        }
    }
    assert_eq!(asked, 4);
    assert!(!check.is_asked() && check.is_trusted());
}

#[test]
fn what_qemu_holds_beside_guest_ram_is_no_lie_of_a_table_and_what_it_has_not_is() {
    let (mut check, mut now) = (CrossCheck::of_engine(Engine::Qemu), Instant::now());
    let (kernel, fewer) = (kernel(300, 0), table(100, 0, Some(3)));
    for _ in 0..5 {
        assert_eq!(round(&mut check, &mut now, &kernel, &fewer), Verdict::Same);
    }
    assert!(check.is_trusted());
    let more = table(400, 0, Some(3));
    let verdicts: Vec<_> = (0..3).map(|_| round(&mut check, &mut now, &kernel, &more)).collect();
    assert!(verdicts.iter().any(|verdict| matches!(verdict, Verdict::Distrusted(_))), "{verdicts:?}");
}

#[test]
fn an_honest_table_is_not_found_to_lie_when_one_of_the_two_samples_is_late() {
    // The guest touches 2 GiB/s when it is asked, and its vmm compares whenever it is asked. This process does not
    // run for 200 ms before one of the samples: then the two are of different moments.
    let touched_mib = |since: Duration| 100 + u64::try_from(since.as_millis()).unwrap() * 2;
    for (table_late_ms, kernel_late_ms) in [(0, 0), (200, 0), (0, 200)] {
        let (mut check, start) = (CrossCheck::default(), Instant::now());
        for second in 1..2 * SILENT_MAX.as_secs() {
            let asked = start + Duration::from_secs(second);
            check.asked(asked);
            let clock = std::cell::Cell::new(asked + Duration::from_millis(5));
            let compared = clock.get().duration_since(asked);
            let pass = |ms| clock.set(clock.get() + Duration::from_millis(ms));
            let since = || clock.get().duration_since(asked);
            let table_sample = || {
                pass(table_late_ms);
                let age = u64::try_from((since() - compared).as_millis()).unwrap();
                let totals = table(touched_mib(compared), 1, Some(age));
                TableSample { totals, ..TableSample::default() }
            };
            let kernel_sample = || {
                pass(kernel_late_ms);
                Some(KernelSample { at: clock.get(), ..kernel(touched_mib(since()), 0) })
            };
            let found = Reading::of(table_sample, kernel_sample, || clock.get()).unwrap();
            let late = format!("{table_late_ms} {kernel_late_ms}");
            assert_eq!(check.answered(&found, clock.get()), Verdict::Same, "{late}");
            // It differs at each turn, and that it never tells is not the guest's fault.
            let _ = check.wants_answer(&reading(&kernel(300, 0), &table(10, 1, Some(900)), asked), asked);
            assert_eq!(check.waited(clock.get()), Verdict::Same, "{late}");
            assert!(check.is_trusted());
        }
    }
}
