//! What the guest's kernel says about its memory.

use std::fs;
use std::io;

use crate::reply::Reply;

/// Counters that are returned unless others are named. Some exist in newer kernels only.
const VMSTAT: [&str; 14] = [
    "nr_free_pages",
    "pgfault",
    "pgmajfault",
    "pswpin",
    "pswpout",
    "oom_kill",
    "allocstall_dma32",
    "allocstall_normal",
    "allocstall_movable",
    "pgscan_direct",
    "pgsteal_direct",
    "balloon_inflate",
    "balloon_deflate",
    "thp_fault_alloc",
];

/// `/proc/meminfo`, amounts as `*_bytes`.
pub fn meminfo() -> io::Result<Reply> {
    Ok(parse_meminfo(&fs::read_to_string("/proc/meminfo")?))
}

/// What the page cache holds, bytes.
pub fn cached_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Cached:")?.trim().strip_suffix(" kB"));
    let kib: Option<u64> = kib.and_then(|number| number.parse().ok());
    Ok(kib.ok_or(io::ErrorKind::InvalidData)?.saturating_mul(1024))
}

/// The named counters of `/proc/vmstat`, those of them that this kernel has.
pub fn vmstat(names: &[String]) -> io::Result<Reply> {
    let text = fs::read_to_string("/proc/vmstat")?;
    let wanted = |name: &str| match names {
        [] => VMSTAT.contains(&name),
        names => names.iter().any(|wanted| wanted == name),
    };
    let counters = text.lines().filter_map(|line| line.split_once(' '));
    Ok(counters.filter(|(name, _)| wanted(name)).fold(Reply::new(), |reply, (name, value)| {
        reply.number(name, value.trim().parse().unwrap_or_default())
    }))
}

fn parse_meminfo(text: &str) -> Reply {
    text.lines().filter_map(|line| line.split_once(':')).fold(Reply::new(), |reply, (name, value)| {
        let mut words = value.split_ascii_whitespace();
        let number = words.next().and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
        let name = snake(name);
        match words.next() {
            Some("kB") => reply.number(&format!("{name}_bytes"), number.saturating_mul(1024)),
            _ => reply.number(&name, number),
        }
    })
}

/// `Active(anon)` becomes `active_anon`, `MemFree` becomes `mem_free`, `HugePages_Total` `huge_pages_total`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut before = ' ';
    for c in name.chars() {
        let begins = c.is_ascii_uppercase() && before.is_ascii_lowercase() || before.is_ascii_punctuation();
        if c.is_ascii_alphanumeric() {
            if begins {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::line;

    #[test]
    fn amounts_are_bytes_and_counts_are_not() {
        let reply = parse_meminfo("MemTotal:   2048 kB\nHugePages_Total:   3\nActive(anon):  1 kB\nbroken\n");
        assert_eq!(
            line(1, &Ok(reply)),
            "{\"id\":1,\"ok\":true,\"mem_total_bytes\":2097152,\"huge_pages_total\":3,\"active_anon_bytes\":1024}\n"
        );
    }

    #[test]
    fn names_are_split_where_words_begin() {
        assert_eq!(snake("SReclaimable"), "sreclaimable");
        assert_eq!(snake("DirectMap4k"), "direct_map4k");
        assert_eq!(snake("Inactive(file)"), "inactive_file");
        assert_eq!(snake("AnonHugePages"), "anon_huge_pages");
    }

    #[test]
    fn this_kernel_answers() {
        assert!(line(1, &Ok(meminfo().unwrap())).contains("mem_available_bytes"));
        assert!(line(1, &Ok(vmstat(&["pgfault".into()]).unwrap())).contains("\"pgfault\":"));
    }
}
