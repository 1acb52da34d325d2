//! Nanoseconds per recorded event, by the length of the run and the number of writers.

use super::median;
use protocol::frames::{FrameTable, Region, Transition};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// 4 GiB of guest RAM.
const FRAMES: u64 = 1 << 20;
const ROUNDS: usize = 15;
const SETTINGS: [(u64, Place); 3] = [(1, Place::Apart), (2, Place::Apart), (2, Place::Together)];
const FRAMES_PER_ROUND: u64 = 1 << 19;

/// Where writers work.
#[derive(Clone, Copy)]
enum Place {
    /// Each in its part of the table.
    Apart,
    /// All in the same eight blocks.
    Together,
}

pub fn run() {
    println!(
        "Events: ns per run (per frame)       1 writer       2 writers, apart     2 writers, same blocks"
    );
    for (name, length, mixed) in [
        ("1 frame", 1, true),
        ("16 frames", 16, true),
        ("256 frames", 256, true),
        ("512, whole blocks, mixed before", 512, true),
        ("512, whole blocks, alike", 512, false),
        ("32768, whole blocks, alike", 32_768, false),
    ] {
        let table = FrameTable::new(&[Region::ram(0, FRAMES)]).expect("a table");
        let settings: &[(u64, Place)] = if length > 4096 { &SETTINGS[..2] } else { &SETTINGS };
        let mut figures = [vec![], vec![], vec![]];
        for turn in 0..=ROUNDS {
            for ((writers, place), figures) in settings.iter().zip(&mut figures) {
                let nanos = round(&table, length, mixed, *writers, *place);
                // The first round brings the table into memory.
                if turn > 0 {
                    figures.push(nanos);
                }
            }
        }
        print!("  {name:<33}");
        for figures in figures.into_iter().filter(|figures| !figures.is_empty()) {
            let (nanos, _) = median(figures);
            print!("{nanos:>9.1} ({:>7.3})   ", nanos / length as f64);
        }
        println!();
    }
}

/// Nanoseconds per event of each writer.
fn round(table: &FrameTable, length: u64, mixed: bool, writers: u64, place: Place) -> f64 {
    let part = match place {
        Place::Apart => FRAMES / 2,
        Place::Together => 4096,
    };
    let spots = part / length.max(512);
    let passes = (FRAMES_PER_ROUND / length / spots).clamp(1, 32);
    let barrier = Barrier::new(usize::try_from(writers).expect("few"));
    let nanos: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let base = if matches!(place, Place::Apart) { writer * part } else { 0 };
                    let firsts = || {
                        (0..spots).map(|spot| {
                            // Short runs are anywhere in their block, so that they do not compete for one cache set.
                            let inside = if length < 256 { spot * 37 % (512 - length) } else { 0 };
                            base + (spot + writer * 3) % spots * length.max(512) + inside
                        })
                    };
                    let prepare = |transition| {
                        for first in firsts() {
                            black_box(table.apply(first / 512 * 512 + 300, 1, transition));
                        }
                    };
                    let mut nanos = 0;
                    for transition in
                        [Transition::Inflate, Transition::Touch].iter().cycle().take(2 * passes as usize)
                    {
                        if mixed {
                            // Every block has a frame that differs.
                            prepare(Transition::Report);
                            prepare(Transition::Deflate);
                        }
                        barrier.wait();
                        let started = Instant::now();
                        for first in firsts() {
                            black_box(table.apply(first, length, *transition));
                        }
                        nanos += started.elapsed().as_nanos();
                        barrier.wait();
                    }
                    nanos as f64 / (2 * passes * spots) as f64
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer")).collect()
    });
    nanos.iter().sum::<f64>() / writers as f64
}
