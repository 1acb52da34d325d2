//! `tidy` prints the offences of the rules that are counted; `tidy known` prints their numbers, for
//! `tests/tidy/known.txt`; `tidy unsafe` prints the files with unsafe code, for `tests/tidy/unsafe.txt`.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

fn main() {
    let word = std::env::args().nth(1).unwrap_or_default();
    match word.as_str() {
        "unsafe" => tidy::rules::unsafe_files().iter().for_each(|path| println!("{}", path.display())),
        word => counted(word == "known"),
    }
}

fn counted(is_known: bool) {
    for (rule, offences) in tidy::rules::counted() {
        let mut counts = BTreeMap::new();
        for offence in &offences {
            *counts.entry(&offence.path).or_insert(0) += 1;
            if !is_known {
                println!("{rule}: {offence}");
            }
        }
        for (path, count) in counts.into_iter().filter(|_| is_known) {
            println!("{rule} {count} {}", path.display());
        }
    }
}
